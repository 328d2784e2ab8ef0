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
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import IsopodError
from isopod.model.ids import Digest
from isopod.sandbox.features import Features
from isopod.sandbox.worker import Folders, shut_in
from isopod.server.beside import start_beside
from isopod.server.worker_folders import WorkerFolders
from isopod.settings import NodeSettings


class Maker:
    """The worker's side. Safe for several threads; one thing is made at a time."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._answers = line.makefile("rb")
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._line.fileno()

    def ask(self, what: str, digest: Digest, base: Path | None = None) -> None:
        """Returns when it is made. Raises what kept it from being made."""
        question = {"what": what, "digest": digest, "base": str(base or "")}
        answer = b""
        with self._lock, suppress(ConnectionError):
            self._line.sendall(json.dumps(question).encode() + b"\n")
            answer = self._answers.readline()
        if not answer:
            raise IsopodError("the process that makes a worker's files has ended")
        if "error" in (body := json.loads(answer)):
            raise IsopodError.from_wire(body["error"])

    def is_gone(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False  # it is being asked, and will be missed
        try:
            return self._line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        finally:
            self._lock.release()


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
    with line.makefile("rwb") as file:
        while question := file.readline():
            answer = _answer(settings, folders, json.loads(question))
            file.write(json.dumps(answer).encode() + b"\n")
            file.flush()


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
