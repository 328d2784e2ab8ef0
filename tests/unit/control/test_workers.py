import asyncio
import json

from isopod.control.workers import Workers


async def worker(run_dir, index: int, answer: object) -> asyncio.Server:
    async def on_connection(reader, writer):
        asked = json.loads(await reader.readline())
        said = answer(asked) if callable(answer) else answer
        if said is not None:
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        else:
            await reader.read()  # until the caller has enough
        writer.close()

    return await asyncio.start_unix_server(on_connection, run_dir / f"worker-{index}.sock")


def test_a_dead_or_silent_worker_is_left_out(tmp_path):
    instance = {"app": "a", "version": 1, "state": "idle", "id": "x", "memory_bytes": 5}

    async def main():
        said = {"pid": 7, "worker": 1, "instances": [instance], "apps": {"a": {"requests": 3}}}
        alive = await worker(tmp_path, 1, said)
        silent = await worker(tmp_path, 2, None)
        dead = await worker(tmp_path, 3, said)
        dead.close()
        await dead.wait_closed()
        found = await Workers(tmp_path, shared=2).status()
        assert [one.worker for one in found] == [1]
        assert found[0].instances[0].app == "a"
        assert found[0].apps["a"]["requests"] == 3
        alive.close()
        silent.close()

    asyncio.run(main())


def test_sleep_adds_up_what_each_worker_ended(tmp_path):
    async def main():
        servers = [
            await worker(tmp_path, i, lambda asked: {"ended": 2 if asked["app"] == "a" else 0})
            for i in range(2)
        ]
        assert await Workers(tmp_path, shared=2).sleep("a") == 4
        assert await Workers(tmp_path, shared=2).sleep("b") == 0
        for server in servers:
            server.close()

    asyncio.run(main())


def test_a_folder_whose_path_is_longer_than_a_socket_address_works(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100) / "run"
    deep.mkdir(parents=True)

    async def main():
        monkeypatch.chdir(deep)
        server = await worker(type(deep)(), 0, {"pid": 1, "worker": 0})
        found = await Workers(deep, shared=2).status()
        assert [one.pid for one in found] == [1]
        server.close()

    asyncio.run(main())


def test_no_workers_is_no_error(tmp_path):
    assert asyncio.run(Workers(tmp_path, shared=2).status()) == []
