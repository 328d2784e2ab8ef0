import errno
import hashlib

import pytest

from isopod.control import packages


def left_over(api) -> list[str]:
    return [path.name for path in api.node.settings.uploads_dir.iterdir()]


def test_a_package_is_there_once_it_was_put(opened, run):
    async def main():
        async with opened() as api:
            digest = hashlib.sha256(b"bytes").hexdigest()
            assert (await api.http.head(f"/v1/packages/{digest}")).status_code == 404
            assert await api.put(b"bytes") == digest
            assert (await api.http.head(f"/v1/packages/{digest}")).status_code == 204
            assert api.node.blobs.open_verified(digest).read_bytes() == b"bytes"
            assert left_over(api) == []

    run(main())


def test_other_bytes_than_the_digest_says_are_refused_and_gone(opened, run):
    async def main():
        async with opened() as api:
            digest = hashlib.sha256(b"bytes").hexdigest()
            response = await api.http.put(f"/v1/packages/{digest}", content=b"others")
            assert response.json()["error"]["code"] == "package_corrupt"
            assert not api.node.blobs.has(digest)
            assert left_over(api) == []

    run(main())


@pytest.mark.parametrize("announced", [True, False])
def test_a_package_past_the_limit_is_refused_and_gone(opened, run, monkeypatch, announced):
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 1000)
    monkeypatch.setattr("isopod.api.packages.MAX_PACKAGE_BYTES", 1000)

    async def chunks():
        for _ in range(20):
            yield b"x" * 100

    async def main():
        async with opened() as api:
            content = b"x" * 2000 if announced else chunks()
            response = await api.http.put(f"/v1/packages/{'a' * 64}", content=content)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "package_too_large"
            assert left_over(api) == []

    run(main())


def test_a_full_disk_is_told_as_that_and_nothing_remains(opened, run):
    full = "/dev/full"

    async def main():
        async with opened() as api:
            folder = api.node.settings.uploads_dir
            # The real error from the system: every name in this folder is the full device.
            real_open = type(folder).open

            def open_full(path, mode="r", *args, **kwargs):
                if path.parent == folder:
                    path = type(folder)(full)
                    mode = "wb"
                return real_open(path, mode, *args, **kwargs)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(folder), "open", open_full)
                response = await api.http.put(f"/v1/packages/{'a' * 64}", content=b"x" * 3_000_000)
            assert response.status_code == 507, response.text
            assert response.json()["error"]["code"] == "disk_full"
            assert left_over(api) == []

    run(main())
    assert errno.ENOSPC


def test_half_uploads_of_an_earlier_process_are_removed_at_start(opened, run):
    async def main():
        async with opened() as api:
            (api.node.settings.uploads_dir / "half").write_bytes(b"x")
        async with opened() as api:
            assert left_over(api) == []

    run(main())
