"""Removing what no version needs any more, in the background: old versions, then blobs, extracted
trees and images.

Nothing younger than an hour goes: a deploy writes its blobs before state names them. Nothing goes
while a deploy or a build is under way, nor after state has changed since it was read: the look is
then taken again at the next round. So a blob that a deploy finds in the store stays there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.blobs.trees import TreeCache
from isopod.control.former import FormerSnapshots
from isopod.control.node import Node
from isopod.errors import IsopodError
from isopod.model.ids import Digest

_log = logging.getLogger("isopod.storage")
_EVERY_S = 900.0
_YOUNG_S = 3600.0
_AT_ONCE = 50  # files between two looks at whether a deploy began; the API waits meanwhile


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round removed."""

    versions: int = 0
    blobs: int = 0
    bytes: int = 0  # of blobs
    cut_short: bool = False  # a deploy began, or something was published


async def sweep_regularly(node: Node) -> None:
    """Until cancelled. Never raises for what one round found."""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            swept = await sweep(node)
            if swept.blobs:
                _log.info("storage  %d blobs (%d MiB) removed", swept.blobs, swept.bytes >> 20)
        except (IsopodError, OSError):
            _log.exception("storage could not be tidied; trying again")


async def sweep(node: Node) -> Swept:
    """One round. Raises StateBusy and the like."""
    if _busy(node):
        return Swept(cut_short=True)
    before = node.clock() - _YOUNG_S

    def look() -> tuple[Swept, int, list[tuple[Digest, int]]]:
        storage = node.state.node.storage
        former = FormerSnapshots(node.settings.former_dir)
        versions = storage.forget_old_versions(keep=node.settings.keep_versions)
        storage.forget_unused(before=before)
        # Before the rest is read: what is committed after this makes it worthless.
        revision = node.state.revision()
        used = storage.blobs_in_use() | former.images(node.state.node.live())
        old = [one for one in _old_blobs(node, before) if one[0] not in used]
        return Swept(versions=versions), revision, old

    swept, revision, old = await asyncio.to_thread(look)
    remove = _remover(node)
    for start in range(0, len(old), _AT_ONCE):
        # No await from here to the removal: a deploy registers itself on this same loop.
        if _busy(node) or node.state.revision() != revision:
            return replace(swept, cut_short=True)
        for digest, size in old[start : start + _AT_ONCE]:
            remove(digest)
            swept = replace(swept, blobs=swept.blobs + 1, bytes=swept.bytes + size)
        await asyncio.sleep(0)
    return swept


def _busy(node: Node) -> bool:
    return bool(node.deploying or node.building)


def _old_blobs(node: Node, before: float) -> Iterator[tuple[Digest, int]]:
    for digest in node.blobs.digests():
        try:
            there = node.blobs.path(digest).stat()
        except FileNotFoundError:
            continue
        if there.st_mtime < before:
            yield digest, there.st_size


def _remover(node: Node) -> Callable[[Digest], None]:
    """Removes a blob and what was made of it: a tree's folder, an image's file."""
    settings = node.settings
    trees = TreeCache(settings.trees_dir, node.blobs)
    limit_bytes = settings.image_cache_mib << 20
    images = ImageCache(settings.images_dir, node.blobs, limit_bytes=limit_bytes)

    def remove(digest: Digest) -> None:
        node.blobs.delete(digest)
        node.whole.pop(digest, None)
        for folder, delete in (
            (settings.trees_dir, trees.delete),
            (settings.images_dir, images.delete),
        ):
            if Path(folder / digest).exists():
                delete(digest)

    return remove
