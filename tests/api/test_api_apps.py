import asyncio
import json
import time
from dataclasses import replace

import pytest

from isopod.model.tenant import TenantName


def append(api, *messages: str, at: float | None = None, **fields: str) -> None:
    with (api.node.settings.logs_dir / "hello.jsonl").open("a") as log:
        for message in messages:
            when = time.time() if at is None else at
            line = {"at": when, "app": "hello", "stream": "stdout", "message": message, **fields}
            log.write(json.dumps(line) + "\n")


async def messages(api, query: str = "") -> list[str]:
    response = await api.http.get(f"/v1/apps/hello/logs{query}")
    return [json.loads(line)["message"] for line in response.text.splitlines()]


def test_a_log_is_read_from_both_files_filtered_and_cut_from_the_old_end(opened, run):
    async def main():
        async with opened(log_keep_h=0) as api:
            await api.deployed()
            assert await messages(api) == []
            append(api, "one", "two", at=100)
            logs = api.node.settings.logs_dir
            (logs / "hello.jsonl").rename(logs / "hello.jsonl.1")
            append(api, "three", at=200)
            assert await messages(api) == ["one", "two", "three"]
            assert await messages(api, "?since=150") == ["three"]
            assert await messages(api, "?limit=2") == ["two", "three"]
            assert await messages(api, "?limit=0") == []

    run(main())


def test_a_log_is_read_by_level_and_by_request_and_not_beyond_its_age(opened, run):
    async def main():
        async with opened(log_keep_h=1) as api:
            await api.deployed()
            append(api, "too old", at=time.time() - 3700)
            append(api, "plain", "WARNING: careful", "DEBUG of it")
            append(api, "Traceback", stream="stderr", request_id="r1")
            assert await messages(api) == ["plain", "WARNING: careful", "DEBUG of it", "Traceback"]
            assert await messages(api, "?level=warning") == ["WARNING: careful", "Traceback"]
            assert await messages(api, "?level=warning&limit=1") == ["Traceback"]
            assert await messages(api, "?request_id=r1") == ["Traceback"]
            assert await messages(api, "?request_id=r1&level=debug&since=1") == ["Traceback"]
            assert (await api.http.get("/v1/apps/hello/logs?level=loud")).status_code == 400

    run(main())


def test_a_follower_is_sent_each_new_line_and_the_end_of_the_node(opened, run):
    # httpx's in-process transport hands over whole answers, so this looks at control's stream.
    from isopod.control.log_lines import Wanted
    from isopod.control.logs import read_log
    from isopod.model.principal import OPERATOR

    async def main():
        async with opened() as api:
            await api.deployed()
            append(api, "one")
            lines = await read_log(
                OPERATOR, "hello", wanted=Wanted(), limit=10, follow=True, node=api.node
            )
            assert (await anext(lines))["message"] == "one"
            waiting = asyncio.ensure_future(anext(lines))
            append(api, "two")
            assert (await waiting)["message"] == "two"
            api.node.stopping.set()
            assert [line async for line in lines] == []

    run(main())


def test_a_follower_whose_token_is_revoked_or_whose_app_is_deleted_is_sent_no_more(opened, run):
    from isopod.control.log_lines import Wanted
    from isopod.control.logs import read_log
    from isopod.control.tokens import find_principal

    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            await acme.deployed(name="hello")
            now = {"at": api.node.clock()}
            object.__setattr__(api.node, "clock", lambda: now["at"])
            made = await api.token("acme", "read")
            operator = api.with_token("right", **{"x-isopod-tenant": "acme"})
            for end in (f"/v1/tokens/{made['id']}", "/v1/apps/hello"):
                token = made["token"] if "tokens" in end else (await api.token("acme"))["token"]
                who = find_principal(token, asked_for=None, address="", node=api.node)
                lines = await read_log(
                    who, "hello", wanted=Wanted(), limit=1, follow=True, node=api.node
                )
                append(api, "one")
                assert (await anext(lines))["message"] == "one"
                waiting = asyncio.ensure_future(anext(lines, None))
                assert (await operator.http.delete(end)).status_code == 200
                now["at"] += 6
                assert await waiting is None

    run(main())


def test_a_follower_is_sent_no_more_when_its_token_or_tenant_ends(opened, run):
    from isopod.control.log_lines import Wanted
    from isopod.control.logs import read_log
    from isopod.control.tokens import find_principal

    async def main():
        async with opened() as api:
            now = {"at": api.node.clock()}
            object.__setattr__(api.node, "clock", lambda: now["at"])
            for number, end in enumerate(("member", "expiry", "app made anew", "tenant")):
                tenant = f"acme{number}"
                caller = await api.tenant(tenant)
                await caller.deployed(name="hello")
                made = await api.token(tenant, "read", expires_in_s=3)
                if end != "expiry":
                    made = await api.token(tenant, "read")
                who = find_principal(made["token"], asked_for=None, address="", node=api.node)
                lines = await read_log(
                    who, "hello", wanted=Wanted(), limit=1, follow=True, node=api.node
                )
                waiting = asyncio.ensure_future(anext(lines, None))
                if end == "member":
                    response = await caller.http.delete("/v1/members/alice")
                elif end == "tenant":
                    response = await api.http.delete(f"/v1/tenants/{tenant}?force=true")
                else:
                    response = await caller.http.get("/v1/apps")
                assert response.status_code == 200
                if end == "app made anew":
                    await caller.http.delete("/v1/apps/hello")
                    now["at"] += 1
                    await caller.deployed(b"other", name="hello")
                now["at"] += 6
                assert await waiting is None, end
            assert len(api.node.followers._taken) == 0

    run(main())


def test_a_tenants_followed_logs_are_bounded_and_leave_others_theirs(opened, run):
    from isopod.control.log_lines import Wanted
    from isopod.control.logs import read_log
    from isopod.control.tokens import find_principal
    from isopod.model.principal import OPERATOR

    async def main():
        async with opened() as api:
            callers = {}
            for tenant in ("acme", "globex"):
                callers[tenant] = await api.tenant(tenant)
                await callers[tenant].deployed(name="shop")

            async def follow(tenant: str):
                token = (await api.token(tenant, "read"))["token"]
                who = find_principal(token, asked_for=None, address="", node=api.node)
                return await read_log(
                    who, "shop", wanted=Wanted(), limit=1, follow=True, node=api.node
                )

            held = [await follow("acme") for _ in range(16)]
            path = "/v1/apps/shop/logs"
            refused = await callers["acme"].http.get(path, params={"follow": True})
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "too_many_requests"
            assert refused.headers["retry-after"]
            assert (await callers["acme"].http.get(path)).status_code == 200  # only looks
            held += [await follow("globex")]
            operator = replace(OPERATOR, tenant=TenantName("acme"))
            held += [
                await read_log(
                    operator, "shop", wanted=Wanted(), limit=1, follow=True, node=api.node
                )
            ]
            await held.pop(0).aclose()  # never begun
            held += [await follow("acme")]
            del held

    run(main())


def test_a_deleted_app_is_gone_with_its_log_and_its_route(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed()
            append(api, "one")
            response = await api.http.delete("/v1/apps/hello")
            assert response.json() == {"app": "hello", "deleted": True}
            assert api.routes.get("hello") is None
            assert (await api.http.get("/v1/apps/hello")).status_code == 404
            assert list(api.node.settings.logs_dir.iterdir()) == []
            assert (await api.deployed())["version"] == 1

    run(main())


def test_status_and_app_join_state_with_what_workers_say(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed()
            await api.member("default", "alice")

            async def on_connection(reader, writer):
                await reader.readline()
                instance = {"app": "hello", "version": 1, "state": "idle", "id": "i1"}
                said = {
                    "pid": 7,
                    "worker": 0,
                    "instances": [instance | {"memory_bytes": 2**26, "private_bytes": 2**20}],
                    "apps": {"hello": {"requests": 5, "cold_starts": 1, "errors": 2, "queued": 0}},
                    "memory_bytes": 2**20,
                    "rss_bytes": 2**25,
                }
                writer.write(json.dumps(said).encode() + b"\n")
                await writer.drain()
                writer.close()

            socket = api.node.settings.run_dir / "worker-0.sock"
            server = await asyncio.start_unix_server(on_connection, socket)
            status = await api.get("/v1/status")
            assert (status["instances"], status["memory_bytes"]) == (1, 2**20)
            assert status["workers"][0]["pid"] == 7
            member = api.with_token((await api.token("default", "read"))["token"])
            of_tenant = await member.get("/v1/status")
            assert (of_tenant["instances"], of_tenant["memory_bytes"]) == (1, 2**20)
            app = (await api.get("/v1/apps"))["apps"][0]
            assert (app["instances"], app["requests"], app["errors"]) == (1, 5, 2)
            detail = await api.get("/v1/apps/hello")
            assert detail["instances"][0]["id"] == "i1"
            assert detail["dependencies"] == [["flask", "3.1.0"]]
            server.close()
            await server.wait_closed()

    run(main())


def test_runtimes_are_listed(opened, run):
    async def main():
        async with opened() as api:
            found = (await api.get("/v1/runtimes"))["runtimes"]
            assert [(r["name"], r["prepared"]) for r in found] == [("python", True)]

    run(main())


def test_few_may_read_logs_at_once_since_each_is_held_until_it_is_read(opened, run):
    from isopod.control.log_lines import Wanted
    from isopod.control.logs import read_log
    from isopod.errors import TooManyRequests
    from isopod.model.principal import OPERATOR

    async def main():
        async with opened() as api:
            await api.deployed()
            append(api, "one", "two")

            async def read():
                wanted = Wanted()
                return await read_log(
                    OPERATOR, "hello", wanted=wanted, limit=10, follow=False, node=api.node
                )

            open_now = [await read() for _ in range(8)]
            with pytest.raises(TooManyRequests, match="8 of this tenant"):
                await read()
            assert [line["message"] async for line in open_now.pop()] == ["one", "two"]
            assert [line["message"] async for line in await read()] == ["one", "two"]
            for lines in open_now:
                await lines.aclose()

    run(main())


def test_a_flood_that_a_follower_wants_nothing_of_leaves_control_its_turns(opened, run):
    from isopod.control.log_lines import Wanted
    from isopod.control.logs import read_log
    from isopod.model.principal import OPERATOR

    async def main():
        async with opened() as api:
            await api.deployed()
            wanted = Wanted(request_id="r1")
            lines = await read_log(
                OPERATOR, "hello", wanted=wanted, limit=0, follow=True, node=api.node
            )
            first = asyncio.ensure_future(anext(lines))
            while not first.done():  # it follows from some moment on
                append(api, "begin", request_id="r1")
                await asyncio.sleep(0.01)
            assert (await first)["message"] == "begin"
            append(api, *["flood"] * 5000)
            append(api, "end", request_id="r1")
            turns = 0

            async def others():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            busy = asyncio.ensure_future(others())
            while (await anext(lines))["message"] != "end":
                pass
            busy.cancel()
            assert turns >= 40
            await lines.aclose()

    run(main())
