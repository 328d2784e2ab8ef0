"""Receiving packages: streamed to a temporary file, checked, and only then kept."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from isopod.control.amounts import check_tenant, check_uploads
from isopod.control.audit import audited, entry
from isopod.control.node import Node, sound
from isopod.errors import PackageCorrupt, PackageTooLarge, disk_full_is_clear
from isopod.model.ids import Digest
from isopod.model.principal import Principal

MAX_PACKAGE_BYTES = 200 * 2**20  # compressed; unpacking has its own limits


async def has_package(who: Principal, digest: Digest, *, node: Node) -> bool:
    """Whether it need not be uploaded: a damaged one must be, and one that only others have."""
    who.need("deploy")
    mine = node.state.of(who.tenant).packages
    return await asyncio.to_thread(lambda: mine.has(digest) and sound(node, digest))


async def receive_package(
    who: Principal, digest: Digest, chunks: AsyncIterator[bytes], *, node: Node
) -> int:
    """Keep the package whose sha256 is `digest`; returns its size.

    PackageCorrupt when the bytes are others, PackageTooLarge past the limit, QuotaExceeded when
    the tenant has sent too much that it then did not deploy, DiskFull; nothing remains then.
    """
    path = node.settings.uploads_dir / secrets.token_hex(8)

    def may_more(size: int) -> None:
        quota = check_tenant(who, node.state.node.tenants)
        check_uploads(quota, digest, size, mine=node.state.of(who.tenant), blobs=node.blobs)

    def keep() -> None:
        node.blobs.put_file(path)
        with node.state.transaction() as t:
            now = node.clock()
            mine = t.of(who.tenant)
            mine.packages.add(digest, now=now)
            mine.audit.add(entry(who, "package.put", digest.short, now, details={"bytes": size}))

    async with audited(who, "package.put", digest.short, node=node):
        who.need("deploy")
        async with node.uploads.turn(who.tenant):
            try:
                await asyncio.to_thread(may_more, 0)
                with disk_full_is_clear(str(node.settings.uploads_dir)):
                    size = await _write(path, digest, chunks)
                await asyncio.to_thread(may_more, size)
                await asyncio.to_thread(keep)
            finally:
                path.unlink(missing_ok=True)
    return size


async def _write(path: Path, digest: Digest, chunks: AsyncIterator[bytes]) -> int:
    seen, size = hashlib.sha256(), 0
    with path.open("xb", buffering=2**20) as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_PACKAGE_BYTES:
                raise PackageTooLarge(
                    f"the package is larger than {MAX_PACKAGE_BYTES // 2**20} MiB"
                )
            seen.update(chunk)
            file.write(chunk)
    if seen.hexdigest() != digest:
        raise PackageCorrupt(
            f"the package that arrived is not {digest.short!r}: its sha256 is "
            f"{seen.hexdigest()[:12]!r}"
        )
    return size
