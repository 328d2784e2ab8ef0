import asyncio
import json

import pytest

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


def test_a_module_is_made_by_the_first_worker_that_answers_and_asked_for_until_it_is(tmp_path):
    asked = []

    def answer(question):
        asked.append(question)
        return {"ready": len(asked) > 3}

    async def main():
        silent = await worker(tmp_path, 0, None)
        busy = await worker(tmp_path, 1, answer)
        workers = Workers(tmp_path, shared=2)
        question = {"op": "make_module", "entrypoint": "app.wasm"}
        assert await workers.make_module(question, own=None) is None
        assert asked == [question] * 4
        silent.close()
        busy.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"error": {"code": "module_too_costly"}}, {"code": "module_too_costly"}),
        ({"error": "unknown operation"}, None),  # of an earlier isopod
        ({"ready": True}, None),
    ],
)
def test_why_a_module_cannot_be_made_is_told(tmp_path, said, error):
    async def main():
        server = await worker(tmp_path, 0, said)
        assert await Workers(tmp_path, shared=1).make_module({}, own=None) == error
        server.close()
        assert await Workers(tmp_path / "none", shared=1).make_module({}, own=None) is None

    asyncio.run(main())
