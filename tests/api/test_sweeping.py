"""What no version needs goes, an hour later; what one needs stays, whatever happens meanwhile."""

import hashlib
import os

from isopod.control.sweeping import sweep
from isopod.model.ids import Digest


def age(node) -> None:
    """Everything on the node is two hours old."""
    for digest in node.blobs.digests():
        os.utime(node.blobs.path(digest), (node.clock() - 7200,) * 2)


def later(node) -> None:
    """The node's clock is two hours on: what state holds is old too."""
    now = node.clock()
    object.__setattr__(node, "clock", lambda: now + 7200)


def test_what_every_version_needs_stays(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(b"one")
            await api.deployed(b"two")
            age(api.node)
            before = set(api.node.blobs.digests())
            assert (await sweep(api.node)).blobs == 0
            assert set(api.node.blobs.digests()) == before
            assert (await api.http.post("/v1/apps/hello/rollback", json={})).status_code == 200

    run(main())


def test_the_blobs_of_a_deleted_app_go_when_they_are_old(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(b"kept", name="kept")
            kept = set(api.node.blobs.digests())
            await api.deployed(b"gone", name="gone")
            gone = set(api.node.blobs.digests()) - kept
            assert (await api.http.delete("/v1/apps/gone")).status_code == 200
            assert (await sweep(api.node)).blobs == 0  # too young
            age(api.node)
            later(api.node)
            swept = await sweep(api.node)
            assert (swept.blobs, swept.cut_short) == (len(gone), False)
            assert swept.bytes > 0
            assert set(api.node.blobs.digests()) == kept
            # And it can come back.
            assert (await api.deployed(b"gone", name="gone"))["version"] == 1

    run(main())


def test_a_package_that_was_never_deployed_goes(opened, run):
    async def main():
        async with opened() as api:
            digest = await api.put(b"uploaded, and forgotten")
            age(api.node)
            later(api.node)
            assert (await sweep(api.node)).blobs == 1
            assert (await api.http.head(f"/v1/packages/{digest}")).status_code == 404

    run(main())


def test_of_each_app_the_newest_versions_stay_and_the_live_one(opened, run):
    async def main():
        async with opened(keep_versions=2) as api:
            for number in range(1, 6):
                await api.deployed(b"%d" % number)
            await api.http.post("/v1/apps/hello/rollback", json={"version": 2})
            age(api.node)
            later(api.node)
            swept = await sweep(api.node)
            assert swept.versions == 2
            there = await api.get("/v1/apps/hello")
            assert [(v["number"], v["live"]) for v in there["versions"]] == [
                (5, False), (4, False), (2, True),
            ]  # fmt: skip
            assert not api.node.blobs.has(_sha256(b"1")) and api.node.blobs.has(_sha256(b"2"))
            assert (await api.deployed(b"6"))["version"] == 6  # numbers are not given again

    run(main())


def test_nothing_goes_while_a_deploy_runs(opened, run):
    async def main():
        async with opened() as api:
            await api.put(b"about to be deployed")
            age(api.node)
            later(api.node)
            with api.node.one_deploy("someone's", ""):
                swept = await sweep(api.node)
            assert swept.cut_short and swept.blobs == 0
            assert (await api.deployed(b"about to be deployed"))["version"] == 1

    run(main())


def test_what_was_published_after_the_look_stops_the_round(opened, run, monkeypatch):
    async def main():
        async with opened() as api:
            digest = Digest(await api.put(b"late"))
            age(api.node)
            state = api.node.state
            look = state.node.storage.blobs_in_use

            def and_then_a_deploy(self):
                used = look()
                with state._writing():
                    pass
                return used

            monkeypatch.setattr(type(state.node.storage), "blobs_in_use", and_then_a_deploy)
            swept = await sweep(api.node)
            assert swept.cut_short
            assert api.node.blobs.has(digest)

    run(main())


def _sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())
