"""Sites in one worker: their indexes, and their files' bytes.

Small files stay in memory, up to a bound for all sites together; others are read in pieces by a few
threads. Trees are verified when they are first used, as a guest's are.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from isopod.blobs.trees import TreeCache
from isopod.errors import BadRequest, BlobCorrupt, BlobMissing, NotFound
from isopod.model.ids import Digest
from isopod.model.route import Route
from isopod.runtimes.direct import DirectRequest, DirectResponse
from isopod.runtimes.static.answer import Heads, Planned, Slice, plan
from isopod.runtimes.static.index import INDEX, Form, Index, SiteFile
from isopod.runtimes.static.site import Site

_MAX_SITE_FILES = 100_000  # in all indexes that are held; 600 bytes each
_SMALL = 256 << 10  # a body up to this goes out in one piece
_PIECE = 256 << 10
_KEPT = 64 << 10  # a form up to this stays in memory
_MAX_KEPT = 32 << 20
_THREADS = 4


@dataclass(slots=True)
class _Open:
    """A site in use."""

    tree: Path
    site: Site
    heads: Heads = field(default_factory=Heads)


class StaticSites:
    """Fulfils `isopod.runtimes.direct.Direct`; with `beside`, the folder of trees where an app's
    files are, `isopod.runtimes.direct.Beside`."""

    def __init__(self, trees: TreeCache, *, beside: str = "") -> None:
        self._trees = trees
        self._beside = beside
        self._sites: OrderedDict[Digest, _Open] = OrderedDict()
        self._files = 0
        self._loading: dict[Digest, asyncio.Future[_Open]] = {}
        self._kept: OrderedDict[tuple[Digest, str, str], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="static")

    async def answer(self, route: Route, request: DirectRequest) -> DirectResponse:
        """Raises NotFound, BadRequest, BlobMissing, BlobCorrupt."""
        digest = route.app_tree
        opened = self._sites.get(digest) or await self._open(digest)
        planned = plan(opened.site, opened.heads, request)
        if planned is None:
            raise NotFound(f"there is nothing at {request.path[:200]!r}")
        return self._from_memory(digest, planned) or await self._read(digest, opened, planned)

    async def look(self, route: Route, request: DirectRequest) -> DirectResponse | None:
        """None: there is nothing, or another thing than to read is asked. Raises BlobMissing,
        BlobCorrupt."""
        if request.method not in ("GET", "HEAD"):
            return None
        digest = route.app_tree
        opened = self._sites.get(digest) or await self._open(digest)
        try:
            planned = plan(opened.site, opened.heads, request)
        except BadRequest:  # no path of a file's; an app may have a use for it
            return None
        if planned is None:
            return None
        return self._from_memory(digest, planned) or await self._read(digest, opened, planned)

    def _from_memory(self, digest: Digest, planned: Planned) -> DirectResponse | None:
        if len(planned.parts) != 1 or not isinstance(part := planned.parts[0], Slice):
            return None
        kept = self._kept.get((digest, part.file.path, part.form.encoding))
        if kept is None:
            return None
        body = kept if len(kept) == part.end - part.first else kept[part.first : part.end]
        return DirectResponse(planned.status, planned.headers, body, size=planned.size)

    async def make_ready(self, route: Route) -> None:
        await self._open(route.app_tree)

    # -- sites ------------------------------------------------------------------------------

    async def _open(self, digest: Digest) -> _Open:
        found = self._sites.get(digest)
        if found is not None:
            return found
        loading = self._loading.get(digest)
        if loading is None:
            loop = asyncio.get_running_loop()
            loading = self._loading[digest] = loop.run_in_executor(
                self._threads, self._load, digest
            )
            loading.add_done_callback(lambda _: self._loading.pop(digest, None))
        opened = await asyncio.shield(loading)
        if digest not in self._sites:
            self._sites[digest] = opened
            self._files += len(opened.site.index.files)
            while self._files > _MAX_SITE_FILES and len(self._sites) > 1:
                self._forget(next(iter(self._sites)))
        return opened

    def _load(self, digest: Digest) -> _Open:
        tree = self._trees.ensure(digest) / self._beside
        try:
            index = Index.from_json(orjson.loads((tree / INDEX).read_bytes()))
            return _Open(tree, Site(index, beside=bool(self._beside)))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise BlobCorrupt(f"tree {digest!r} has no index of a site: {error}") from error

    def _forget(self, digest: Digest) -> None:
        opened = self._sites.pop(digest, None)
        if opened is not None:
            self._files -= len(opened.site.index.files)

    # -- bytes ------------------------------------------------------------------------------

    async def _read(self, digest: Digest, opened: _Open, planned: Planned) -> DirectResponse:
        if not planned.parts:
            return DirectResponse(planned.status, planned.headers, size=planned.size)
        if planned.size > _SMALL:
            pieces = self._pieces(opened.tree, planned)
            return DirectResponse(planned.status, planned.headers, pieces=pieces, size=planned.size)
        loop = asyncio.get_running_loop()
        body = []
        try:
            for part in planned.parts:
                if isinstance(part, bytes):
                    body.append(part)
                    continue
                keep = part.form.size <= _KEPT
                first, end = (0, part.form.size) if keep else (part.first, part.end)
                data = await loop.run_in_executor(
                    self._threads, _read_slice, _path(opened.tree, part), first, end
                )
                if keep:
                    self._keep(digest, part.file, part.form, data)
                    data = data[part.first : part.end]
                body.append(data)
        except OSError as error:
            # Somebody changed its files: the next request has them made again from the blob.
            self._forget(digest)
            self._trees.doubt(digest)
            raise BlobMissing(f"tree {digest!r} is not whole: {error.strerror}") from error
        return DirectResponse(planned.status, planned.headers, b"".join(body), size=planned.size)

    async def _pieces(self, tree: Path, planned: Planned) -> AsyncGenerator[bytes]:
        """In order, one read ahead of nobody: a client that takes nothing costs no memory."""
        loop = asyncio.get_running_loop()
        for part in planned.parts:
            if isinstance(part, bytes):
                yield part
                continue
            path = _path(tree, part)
            for at in range(part.first, part.end, _PIECE):
                end = min(at + _PIECE, part.end)
                yield await loop.run_in_executor(self._threads, _read_slice, path, at, end)

    def _keep(self, digest: Digest, file: SiteFile, form: Form, data: bytes) -> None:
        key = (digest, file.path, form.encoding)
        if key in self._kept:
            return
        self._kept[key] = data
        self._kept_bytes += len(data)
        while self._kept_bytes > _MAX_KEPT:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])


def _path(tree: Path, part: Slice) -> Path:
    return tree / part.form.folder / part.file.path


def _read_slice(path: Path, first: int, end: int) -> bytes:
    """Raises OSError, also where the file is shorter than its index says."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        data = os.pread(number, end - first, first)
    finally:
        os.close(number)
    if len(data) != end - first:
        raise OSError(0, "a file is shorter than it was")
    return data
