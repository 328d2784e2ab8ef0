"""Two that change which version of an app is live, at the same time."""

import asyncio
import threading

import pytest

from isopod.control import switching
from isopod.control.switching import make_live
from isopod.errors import DiskFull
from isopod.model.ids import AppName
from isopod.model.principal import OPERATOR
from isopod.model.tenant import DEFAULT_TENANT

HELLO = AppName("hello")


def to_version(api, number: int):
    mine = api.node.state.of(DEFAULT_TENANT)
    app, version = mine.apps.get(HELLO), mine.versions.get(HELLO, number)
    return make_live(OPERATOR, "app.rollback", app, version, source=None, node=api.node)


def live(api) -> int:
    return api.node.state.of(DEFAULT_TENANT).apps.get(HELLO).live_version


def test_of_two_switches_at_once_the_routes_get_what_state_says(opened, run, monkeypatch):
    async def main():
        async with opened() as api:
            for number in range(1, 4):
                await api.deployed(b"%d" % number)
            first, go = threading.Event(), threading.Event()
            put = switching.put_route

            def slowly(*args):
                if not first.is_set():
                    first.set()
                    go.wait(60)
                put(*args)

            monkeypatch.setattr(switching, "put_route", slowly)
            slow = asyncio.create_task(to_version(api, 1))
            await asyncio.to_thread(first.wait, 10)
            await to_version(api, 2)
            go.set()
            await slow
            assert live(api) == api.routes.get("hello").version == 2

    run(main())


@pytest.mark.parametrize("other", [2, None])
def test_who_cannot_write_the_routes_takes_back_only_its_own(opened, run, monkeypatch, other):
    async def main():
        async with opened() as api:
            for number in range(1, 4):
                await api.deployed(b"%d" % number)
            mine = api.node.state.of(DEFAULT_TENANT)

            def full(*_):
                if other is not None:  # another switch came first
                    mine.apps.set_live(HELLO, other)
                raise DiskFull("no space")

            monkeypatch.setattr(api.node.routes, "put", full)
            with pytest.raises(DiskFull):
                await to_version(api, 1)
            assert live(api) == (other or 3)

    run(main())


def test_state_does_not_go_back_to_a_version_that_was_forgotten(opened, run, monkeypatch):
    async def main():
        async with opened() as api:
            for number in range(1, 4):
                await api.deployed(b"%d" % number)

            def full(*_):
                assert api.node.state.node.storage.forget_old_versions(keep=1) == 1
                raise DiskFull("no space")

            api.node.state.of(DEFAULT_TENANT).apps.set_live(HELLO, 1)
            monkeypatch.setattr(api.node.routes, "put", full)
            with pytest.raises(DiskFull):
                await to_version(api, 2)
            assert live(api) == 2  # the routes follow at the next start

    run(main())


def test_nobody_else_deploys_an_app_until_a_publication_whose_caller_hung_up_has_ended(
    opened, run, monkeypatch
):
    async def main():
        async with opened() as api:
            await api.deployed(b"1", name="hello")
            first, go = threading.Event(), threading.Event()
            put = switching.put_route

            def slowly(*args):
                if not first.is_set():
                    first.set()
                    go.wait(60)
                put(*args)

            monkeypatch.setattr(switching, "put_route", slowly)
            slow = asyncio.create_task(api.deploy(b"2", name="hello"))
            await asyncio.to_thread(first.wait, 10)
            slow.cancel()
            await asyncio.wait([slow])
            refused = (await api.deploy(b"3", name="hello"))[-1]
            assert refused["error"]["code"] == "deploy_in_progress"
            rolled = await api.http.post("/v1/apps/hello/rollback", json={"version": 1})
            assert rolled.json()["error"]["code"] == "deploy_in_progress"
            go.set()
            while api.node.deploying:
                await asyncio.sleep(0.01)
            assert live(api) == api.routes.get("hello").version == 2
            assert (await api.deployed(b"3", name="hello"))["version"] == 3

    run(main())
