"""Commands before a version goes live, with a worker that answers as the test says."""

import asyncio
import json

from tests.api.workers import fake_worker

from isopod.control.deploy_request import DeployRequest
from isopod.control.deploys import deploy
from isopod.model.ids import AppName, Digest
from isopod.model.principal import OPERATOR
from isopod.model.tenant import DEFAULT_TENANT

COMMANDS = {"POST_DEPLOY": json.dumps(["python one.py", "python two.py"])}
HELLO = AppName("hello")


def test_commands_run_one_after_the_other_and_then_the_version_is_live(opened, run):
    async def main():
        async with opened() as api:
            seen = []

            def answer(question):
                staged = api.routes.get("hello~next")
                seen.append((staged.name, staged.version, api.routes.get("hello")))
                return {"code": "ok"}

            async with fake_worker(api.node.settings.run_dir, answer) as worker:
                lines = await api.deploy(env=COMMANDS)
                assert lines[-1]["result"]["version"] == 1
                steps = [line["step"] for line in lines if "step" in line]
                done = [
                    s["text"] for s in steps if (s["name"], s["state"]) == ("post_deploy", "done")
                ]
                assert done == ["python one.py", "python two.py"]
                assert [one["job"]["command"] for one in worker.asked] == done
                assert {one["known_as"] for one in worker.asked} == {"hello~next"}
                assert seen == [("hello", 1, None)] * 2
                assert api.routes.get("hello").version == 1
                assert api.routes.get("hello~next") is None
                await api.deployed(env=COMMANDS)  # is live: nothing to do
                assert len(worker.asked) == 2
                await api.deployed(b"other")
                await api.http.post("/v1/apps/hello/rollback", json={"version": 1})
                assert len(worker.asked) == 2
                await api.deployed(b"other")
                await api.deployed(env=COMMANDS)  # as before, and deployed again
                assert len(worker.asked) == 4
                assert seen[-1][:2] == ("hello", 1)

    run(main())


def test_a_command_that_fails_leaves_all_as_it_was(opened, run):
    failed = {"code": "command_failed", "message": "it ended with status 3", "output": "no table"}

    async def main():
        async with opened() as api:
            run_dir = api.node.settings.run_dir
            async with fake_worker(run_dir, lambda _question: failed) as worker:
                error = (await api.deploy(env=COMMANDS))[-1]["error"]
                assert (error["code"], error["details"]["output"]) == ("command_failed", "no table")
                assert "it ended with status 3" in error["message"]
                assert len(worker.asked) == 1
                assert api.node.state.of(DEFAULT_TENANT).apps.all() == []
                assert api.routes.get("hello~next") is None
                first = await api.deployed(b"first")
                assert "error" in (await api.deploy(env=COMMANDS))[-1]
                assert (await api.get("/v1/apps/hello"))["app"]["version"] == first["version"]
                assert api.routes.get("hello").version == first["version"]
                entries = (await api.get("/v1/audit"))["entries"]
                assert [one["outcome"] for one in entries][:1] == ["command_failed"]
            lost = (await api.deploy(env=COMMANDS))[-1]["error"]  # no worker is there
            assert lost["code"] == "command_failed"

    run(main())


def test_a_deploy_that_is_given_up_ends_its_command(opened, run):
    async def main():
        async with opened() as api:
            run_dir = api.node.settings.run_dir
            async with fake_worker(run_dir, lambda _question: {"code": "ok"}) as worker:
                worker.hold.clear()
                package = Digest(await api.put(b"package"))
                request = DeployRequest(package, HELLO, "hello", "", dict(COMMANDS))

                async def give_up() -> None:
                    async for _ in deploy(OPERATOR, request, node=api.node):
                        pass

                deploying = asyncio.create_task(give_up())
                async with asyncio.timeout(60):
                    while not worker.asked:
                        await asyncio.sleep(0.01)
                    deploying.cancel()
                    await asyncio.gather(deploying, return_exceptions=True)
                    while not worker.gone:
                        await asyncio.sleep(0.01)
                assert api.node.state.of(DEFAULT_TENANT).apps.all() == []
                assert api.routes.get("hello~next") is None

    run(main())


def test_an_app_that_a_kill_left_without_a_version_is_forgotten_at_the_start(opened, run):
    async def main():
        async with opened() as api:
            api.node.state.of(DEFAULT_TENANT).apps.save(HELLO, source="", now=1.0)
        async with opened() as api:
            assert api.node.state.of(DEFAULT_TENANT).apps.all() == []

    run(main())
