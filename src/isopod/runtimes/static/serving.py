"""Sites in one worker: their indexes, and their files' bytes.

Small files stay in memory, up to a bound for all sites together; others are read in pieces by a few
threads. Trees are verified when they are first used, as a guest's are, by other threads: that of a
large one takes seconds. Memory and threads are fair between tenants.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from isopod.blobs.reading import ShorterThanItWas, is_damage, unreadable
from isopod.blobs.trees import TreeCache
from isopod.errors import BadRequest, BlobCorrupt, BlobMissing, NotFound
from isopod.model.ids import Digest
from isopod.model.route import Route
from isopod.runtimes.direct import DirectRequest, DirectResponse
from isopod.runtimes.static.answer import Heads, KeptHeads, Planned, Slice, plan
from isopod.runtimes.static.index import INDEX, Index
from isopod.runtimes.static.kept import Kept
from isopod.runtimes.static.site import Site
from isopod.runtimes.static.threads import FairThreads

_MAX_SITE_FILES = 100_000  # in all indexes that are held; 600 bytes each
_SMALL = 256 << 10  # a body up to this goes out in one piece
_PIECE = 256 << 10
_KEPT = 64 << 10  # a form up to this stays in memory
_MAX_KEPT = 32 << 20
_ENTRY = 500  # bytes of memory for what is kept, beside itself
_MAX_HEADS = 16 << 20  # bytes
_READING, _READING_OF_ONE = 4, 3  # threads: a piece is soon read
# A tree may take seconds, and each is read by one thread: the kernel parts the disk and the cores.
_VERIFYING, _VERIFYING_OF_ONE = 8, 1


@dataclass(slots=True)
class _Open:
    """A site in use by a tenant."""

    digest: Digest
    tenant: str
    tree: Path
    site: Site
    heads: Heads


class StaticSites:
    """Fulfils `isopod.runtimes.direct.Direct`; with `beside`, the folder of trees where an app's
    files are, `isopod.runtimes.direct.Beside`."""

    def __init__(self, trees: TreeCache, *, beside: str = "") -> None:
        self._trees = trees
        self._beside = beside
        self._sites: Kept[Digest, _Open] = Kept(_MAX_SITE_FILES)
        self._loading: dict[tuple[str, Digest], asyncio.Task[_Open]] = {}
        self._heads: KeptHeads = Kept(_MAX_HEADS)
        self._kept: Kept[tuple[Digest, str, str], bytes] = Kept(_MAX_KEPT)
        self._reading = FairThreads(_READING, of_one=_READING_OF_ONE, name="static")
        self._verifying = FairThreads(_VERIFYING, of_one=_VERIFYING_OF_ONE, name="static-verify")

    async def answer(self, route: Route, request: DirectRequest) -> DirectResponse:
        """Raises NotFound, BadRequest, BlobMissing, BlobCorrupt, FilesUnreadable."""
        opened = self._sites.get(route.tenant, route.app_tree) or await self._open(route)
        planned = plan(opened.site, opened.heads, request)
        if planned is None:
            raise NotFound(f"there is nothing at {request.path[:200]!r}")
        return self._from_memory(opened, planned) or await self._read(opened, planned)

    async def look(self, route: Route, request: DirectRequest) -> DirectResponse | None:
        """None: there is nothing, or another thing than to read is asked. Raises BlobMissing,
        BlobCorrupt, FilesUnreadable."""
        if request.method not in ("GET", "HEAD"):
            return None
        opened = self._sites.get(route.tenant, route.app_tree) or await self._open(route)
        try:
            planned = plan(opened.site, opened.heads, request)
        except BadRequest:  # no path of a file's; an app may have a use for it
            return None
        if planned is None:
            return None
        return self._from_memory(opened, planned) or await self._read(opened, planned)

    async def make_ready(self, route: Route) -> None:
        await self._open(route)

    # -- sites ------------------------------------------------------------------------------

    async def _open(self, route: Route) -> _Open:
        tenant, digest = route.tenant, route.app_tree
        found = self._sites.get(tenant, digest)
        if found is not None:
            return found
        key = (tenant, digest)
        loading = self._loading.get(key)
        if loading is None:
            work = self._verifying.run(tenant, self._load, tenant, digest)
            loading = self._loading[key] = asyncio.get_running_loop().create_task(work)
            loading.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(loading)

    def _load(self, tenant: str, digest: Digest) -> _Open:
        """In a thread."""
        tree = self._trees.ensure(digest) / self._beside
        try:
            index = Index.from_json(orjson.loads((tree / INDEX).read_bytes()))
            site = Site(index, beside=bool(self._beside))
        except OSError as error:
            if not is_damage(error):
                raise unreadable(f"tree {digest!r}", error) from error
            raise BlobCorrupt(f"tree {digest!r} has no index of a site: {error}") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BlobCorrupt(f"tree {digest!r} has no index of a site: {error}") from error
        return _Open(digest, tenant, tree, site, Heads(self._heads, tenant, digest))

    def _loaded(self, key: tuple[str, Digest], done: asyncio.Task[_Open]) -> None:
        del self._loading[key]
        # Asked also where everybody who waited for it is gone.
        if done.cancelled() or done.exception() is not None:
            return
        opened = done.result()
        index = opened.site.index
        size = 1 + len(index.files) + len(index.redirects) + len(index.headers)
        self._sites.put(*key, opened, size)

    # -- bytes ------------------------------------------------------------------------------

    def _from_memory(self, opened: _Open, planned: Planned) -> DirectResponse | None:
        if len(planned.parts) != 1 or not isinstance(part := planned.parts[0], Slice):
            return None
        kept = self._kept.get(opened.tenant, (opened.digest, part.file.path, part.form.encoding))
        if kept is None:
            return None
        body = kept if len(kept) == part.end - part.first else kept[part.first : part.end]
        return DirectResponse(planned.status, planned.headers, body, size=planned.size)

    async def _read(self, opened: _Open, planned: Planned) -> DirectResponse:
        if not planned.parts:
            return DirectResponse(planned.status, planned.headers, size=planned.size)
        if planned.size > _SMALL:
            cuts = _cuts(planned)
            # Before the head: what cannot be read is an error yet, and no response that is cut.
            first = await self._piece(opened, next(cuts))
            pieces = self._pieces(opened, first, cuts)
            return DirectResponse(planned.status, planned.headers, pieces=pieces, size=planned.size)
        body = [await self._part(opened, part) for part in planned.parts]
        return DirectResponse(planned.status, planned.headers, b"".join(body), size=planned.size)

    async def _part(self, opened: _Open, part: Slice | bytes) -> bytes:
        if isinstance(part, bytes) or part.form.size > _KEPT:
            return await self._piece(opened, part)
        whole = await self._slice(opened, Slice(part.file, part.form, 0, part.form.size))
        key = (opened.digest, part.file.path, part.form.encoding)
        self._kept.put(opened.tenant, key, whole, len(whole) + _ENTRY)
        return whole[part.first : part.end]

    async def _pieces(
        self, opened: _Open, first: bytes, others: Iterator[Slice | bytes]
    ) -> AsyncGenerator[bytes]:
        """In order, one read ahead of nobody: a client that takes nothing costs no memory."""
        yield first
        for cut in others:
            yield await self._piece(opened, cut)

    async def _piece(self, opened: _Open, cut: Slice | bytes) -> bytes:
        return cut if isinstance(cut, bytes) else await self._slice(opened, cut)

    async def _slice(self, opened: _Open, part: Slice) -> bytes:
        """Raises BlobMissing, FilesUnreadable."""
        path = opened.tree / part.form.folder / part.file.path
        try:
            return await self._reading.run(opened.tenant, _read_slice, path, part.first, part.end)
        except OSError as error:
            if not is_damage(error):
                raise unreadable(f"tree {opened.digest!r}", error) from error
            # Somebody changed its files: the next request has them made again from the blob.
            self._sites.drop(opened.tenant, opened.digest)
            self._trees.doubt(opened.digest)
            raise BlobMissing(f"tree {opened.digest!r} is not whole: {error}") from error


def _cuts(planned: Planned) -> Iterator[Slice | bytes]:
    """In pieces of a size that may be in memory."""
    for part in planned.parts:
        if isinstance(part, bytes):
            yield part
            continue
        for at in range(part.first, part.end, _PIECE):
            yield Slice(part.file, part.form, at, min(at + _PIECE, part.end))


def _read_slice(path: Path, first: int, end: int) -> bytes:
    """Raises OSError, also where the file is shorter than its index says."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        data = os.pread(number, end - first, first)
    finally:
        os.close(number)
    if len(data) != end - first:
        raise ShorterThanItWas(f"a file has {first + len(data):,} bytes and had {end:,} or more")
    return data
