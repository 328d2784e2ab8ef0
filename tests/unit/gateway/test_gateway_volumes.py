"""Whose an app's volumes are, between two workers."""

import asyncio
from dataclasses import replace

import pytest

from isopod.errors import VolumeNotFound
from isopod.gateway.volumes import HeldVolumes
from isopod.model.volume import MountedVolume
from isopod.volumes.lease import VolumeFolder, owned


def two_workers(route, tmp_path):
    app = replace(route(), volumes=(MountedVolume("data", "/data", 1),))
    folder = VolumeFolder.of(tmp_path, app.tenant, "data")
    folder.make()
    return app, folder, *(HeldVolumes(tmp_path, worker=number) for number in (1, 2))


def test_the_worker_that_was_asked_first_has_them_until_nothing_there_needs_them(route, tmp_path):
    app, _, one, two = two_workers(route, tmp_path)
    assert one.elsewhere(app) is None
    assert two.elsewhere(app) == 1
    one.tidy({app.name})
    assert two.elsewhere(app) == 1
    one.tidy(set())
    assert two.elsewhere(app) is None
    assert one.elsewhere(app) == 2


def test_one_instance_has_them_and_the_next_waits_for_its_end(route, tmp_path):
    async def body():
        app, _, one, two = two_workers(route, tmp_path)
        first = await one.claim(app)
        second = asyncio.ensure_future(one.claim(app))
        await asyncio.sleep(0)
        assert not second.done()
        one.tidy(set())
        assert two.elsewhere(app) == 1  # an instance has them, whatever else is
        first()
        first()
        (await second)()

    asyncio.run(body())


def test_while_somebody_copies_requests_go_to_the_worker_that_had_them_last(route, tmp_path):
    async def body():
        app, folder, one, two = two_workers(route, tmp_path)
        (await one.claim(app))()
        one.tidy(set())
        with owned(folder, name="data", patience_s=5):
            assert two.elsewhere(app) == 1
            assert one.elsewhere(app) is None
            waiting = asyncio.ensure_future(one.claim(app))
            await asyncio.sleep(0)
            assert not waiting.done()
        (await waiting)()

    asyncio.run(body())


def test_a_volume_that_is_gone_is_said(route, tmp_path):
    app, folder, one, _ = two_workers(route, tmp_path)
    folder.path.rename(tmp_path / "gone")
    with pytest.raises(VolumeNotFound, match="'data'"):
        one.elsewhere(app)


def test_a_version_that_waits_for_the_one_before_takes_the_volumes_it_mounts(route, tmp_path):
    async def body():
        before, _, one, two = two_workers(route, tmp_path)
        VolumeFolder.of(tmp_path, before.tenant, "new").make()
        after = replace(route(version=2), volumes=(MountedVolume("new", "/data", 1),))
        end_before = await one.claim(before)
        waiting = asyncio.ensure_future(one.claim(after))
        await asyncio.sleep(0)
        end_before()
        end_after = await waiting
        assert two.elsewhere(after) == 1
        end_after()
        one.tidy(set())
        assert two.elsewhere(after) is None

    asyncio.run(body())
