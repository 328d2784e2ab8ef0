"""Makes trees and images for a worker, which may only read them.

A worker that broke out must not change what other workers serve from, so it cannot write `trees/`
and `images/`. Yet whoever misses a file there makes it again from its blob: this does, a process
forked from the worker before that runs anything, with one pair of sockets between them. It runs no
guest, and trusts nothing it is asked: a digest is a digest, and what it makes has that digest or
is not made. It ends with its worker.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import IsopodError
from isopod.model.ids import Digest
from isopod.sandbox.features import Features
from isopod.sandbox.worker import Folders, shut_in
from isopod.server.beside import Beside, answer_all, start_beside
from isopod.server.worker_folders import WorkerFolders
from isopod.settings import NodeSettings


class Maker(Beside):
    """The worker's side."""

    def ask(self, what: str, digest: Digest, base: Path | None = None) -> None:
        """Returns when it is made. Raises what kept it from being made."""
        question = {"what": what, "digest": digest, "base": str(base or "")}
        self._ask(question, gone=IsopodError("the process that makes a worker's files has ended"))


class ReadTrees(TreeCache):
    """Trees that somebody else extracts."""

    def __init__(self, root: Path, blobs: BlobStore, *, maker: Maker) -> None:
        super().__init__(root, blobs)
        self._maker = maker

    def _extract(self, digest: Digest) -> None:
        self._maker.ask("tree", digest)


class ReadImages(ImageCache):
    """Images that somebody else assembles, and removes when they are damaged."""

    def __init__(self, root: Path, blobs: BlobStore, *, limit_bytes: int, maker: Maker) -> None:
        super().__init__(root, blobs, limit_bytes=limit_bytes)
        self._maker = maker

    def _assemble(self, digest: Digest, base: Path) -> None:
        self._maker.ask("image", digest, base)

    def _discard(self, folder: Path) -> None:
        self._maker.ask("forget", Digest.parse(folder.name))


def start_maker(
    settings: NodeSettings,
    features: Features,
    *,
    folders: WorkerFolders,
    others: Iterable[int],
) -> Maker:
    """Fork it. Needs a process of one thread that is not shut in yet; `folders` are the worker's,
    `others` descriptors that it shall not keep."""

    def serve(line: socket.socket) -> None:
        _serve(settings, features, folders, line)

    return Maker(start_beside(serve, features, others))


def _serve(
    settings: NodeSettings, features: Features, folders: WorkerFolders, line: socket.socket
) -> None:
    needs = Folders(
        read=(settings.blobs_dir, settings.cache_dir / "runtimes"),
        change=(folders.trees, folders.images),
    )
    sandbox = shut_in(needs, features=features)
    sandbox.guard()
    answer_all(line, lambda question: _answer(settings, folders, json.loads(question)))


def _answer(
    settings: NodeSettings, folders: WorkerFolders, question: dict[str, Any]
) -> dict[str, Any]:
    blobs = BlobStore(settings.blobs_dir)
    limit = settings.image_cache_mib << 20
    images = ImageCache(folders.images, blobs, limit_bytes=limit)
    try:
        digest = Digest.parse(question["digest"])
        if question["what"] == "tree":
            # A new cache: it has verified nothing yet, and so looks.
            TreeCache(folders.trees, blobs).ensure(digest)
        elif question["what"] == "image":
            images.open(digest, Path(question["base"])).close()
        else:
            images.delete(digest)
    except IsopodError as bad:
        return {"error": bad.to_wire()}
    except OSError as bad:
        return {"error": IsopodError(f"{bad.filename or ''}: {bad.strerror or bad}").to_wire()}
    return {}
