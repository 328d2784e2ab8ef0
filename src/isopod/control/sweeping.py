"""Removing what no version needs any more, in the background: blobs with the extracted trees and
images made of them, then old versions.

A blob goes when every look for `keep_unused_h` found it unused. So a restore that comes late, a
look at the wrong state, and a backup that copies blobs long after state lose nothing. A blob older
than the state is not ours to judge; and when state names no version at all, nothing goes.

Deploys are not waited for, or a tenant that always deploys would keep everything on the disk.
Instead, a deploy touches the blobs it finds and relies on (what a builder writes is young anyway),
and nothing young goes. The last look is taken in the write transaction in which blobs are removed,
and a version is written only when its blobs are there, in its own: one of the two sees the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.blobs.trees import TreeCache
from isopod.control.former import FormerSnapshots
from isopod.control.node import Node
from isopod.control.unused import Unused
from isopod.model.ids import Digest

_log = logging.getLogger("isopod.storage")
_EVERY_S = 3600.0
_YOUNG_S = 3600.0  # and the time that a build may take: what was written or touched since stays
_AT_ONCE = 50  # files in one transaction; deploys wait meanwhile


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round removed."""

    versions: int = 0
    blobs: int = 0
    bytes: int = 0  # of blobs
    refused: bool = False  # state names nothing, and there are blobs


async def sweep_regularly(node: Node) -> None:
    """Until cancelled. Never raises for what one round found."""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            swept = await sweep(node)
            if swept.blobs:
                _log.info("storage  %d blobs (%d MiB) removed", swept.blobs, swept.bytes >> 20)
        except Exception:  # of ours or not: apps are served, and the next round may work
            _log.exception("storage could not be tidied; trying again")


async def sweep(node: Node) -> Swept:
    """One round. StateCorrupt when a version is damaged: then nothing goes. StateBusy, DiskFull."""
    return await asyncio.to_thread(_sweep, node)


def _sweep(node: Node) -> Swept:
    storage, now = node.state.node.storage, node.clock()
    young_since = now - _YOUNG_S - node.settings.build_timeout_s
    used = storage.blobs_in_use()
    refused = not used and any(node.blobs.digests())
    removed: list[int] = []
    if refused:
        _log.warning("state names no version, and there are blobs: none of them is removed")
    else:
        ripe = _ripe(node, used, now=now, young_since=young_since)
        for start in range(0, len(ripe), _AT_ONCE):
            if node.stopping.is_set():
                break
            removed += _remove(node, ripe[start : start + _AT_ONCE], young_since=young_since)
    # Last: what only these need is found unused at the next look.
    versions = storage.forget_old_versions(keep=node.settings.keep_versions)
    storage.forget_unused(before=now - _YOUNG_S)
    return Swept(versions, len(removed), sum(removed), refused)


def _ripe(node: Node, used: set[Digest], *, now: float, young_since: float) -> list[Digest]:
    """What has been unused for long enough."""
    storage, settings = node.state.node.storage, node.settings
    used = used | FormerSnapshots(settings.former_dir).images(node.state.node.live())
    made_at = storage.made_at()
    unused = []
    for digest in node.blobs.digests():
        if digest not in used:
            written = _written_and_size(node, digest)
            if written and made_at <= written[0] < young_since:
                unused.append(digest)
    since = Unused(settings.unused_path, state=storage.name()).look(unused, now=now)
    until = now - settings.keep_unused_h * 3600.0
    return [digest for digest, at in since.items() if at <= until]


def _remove(node: Node, some: Sequence[Digest], *, young_since: float) -> list[int]:
    """The sizes of those that were removed."""
    settings = node.settings
    trees = TreeCache(settings.trees_dir, node.blobs)
    limit_bytes = settings.image_cache_mib << 20
    images = ImageCache(settings.images_dir, node.blobs, limit_bytes=limit_bytes)
    # What was made of a blob can be made again; without the blob, nobody would find it.
    for digest in some:
        if Path(settings.trees_dir / digest).exists():
            trees.delete(digest)
        if Path(settings.images_dir / digest).exists():
            images.delete(digest)
    sizes = []
    with node.state.transaction() as t:
        needed = t.node.storage.in_use(some)
        for digest in some:
            written = _written_and_size(node, digest)
            if digest in needed or written is None or written[0] >= young_since:
                continue
            node.blobs.delete(digest)
            node.whole.pop(digest, None)
            sizes.append(written[1])
    return sizes


def _written_and_size(node: Node, digest: Digest) -> tuple[float, int] | None:
    """When it was written or touched last."""
    try:
        there = node.blobs.path(digest).stat()
    except FileNotFoundError:
        return None
    return there.st_mtime, there.st_size
