"""Compiled dependencies, kept for the tenant's next app that has the same ones.

Compiling Flask's sources in a guest takes seconds; most deploys change only the app. The key is
the digest of the tenant, what was installed and the runtime that compiled it, so an entry never
gets old.
An entry is `<key>.json` (which tree) and `<key>.tree` (its blob), so it serves nodes that do not
have the blob yet; what is read back is hashed, and a damaged entry counts as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from isopod.blobs.store import BlobStore
from isopod.errors import BlobCorrupt, BlobMissing, UsageError
from isopod.model.ids import Digest

_FORMAT = 2  # raise it when a compiled site changes in a way that the digests do not show
_KEPT = 64


def site_key(tenant: str, fingerprint: Digest, runtime: Digest) -> Digest:
    """`fingerprint` is that of the installed files. Of each tenant for itself: how long a build
    takes and what it says of it would tell what others depend on."""
    body = json.dumps([_FORMAT, tenant, fingerprint, runtime])
    return Digest(hashlib.sha256(body.encode()).hexdigest())


class SiteCache:
    """Shared by nodes and builds; each file appears by a rename."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._blobs = blobs

    def find(self, key: Digest) -> Digest | None:
        """The tree with this key; its blob is in the store, and whole, when this returns."""
        index, copy = self._paths(key)
        try:
            tree = Digest.parse(json.loads(index.read_bytes())["tree"])
        except (OSError, ValueError, KeyError, TypeError, UsageError):
            return None
        if not self._sound(tree) and not self._restore(copy, tree):
            return None
        with suppress(OSError):
            os.utime(index)  # the least recently used go first
        return tree

    def keep(self, key: Digest, tree: Digest) -> None:
        """A cache: what cannot be written is not kept, and that is no error."""
        index, copy = self._paths(key)
        with suppress(OSError):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._root / f".tmp-{secrets.token_hex(8)}"
            try:
                shutil.copyfile(self._blobs.path(tree), temporary)
                temporary.replace(copy)
                temporary.write_text(json.dumps({"tree": tree}))
                temporary.replace(index)
            finally:
                temporary.unlink(missing_ok=True)
            self._prune()

    def _sound(self, tree: Digest) -> bool:
        # Hashed: a deploy heals what a disk has damaged, also the dependencies that apps share.
        try:
            self._blobs.open_verified(tree)
        except (BlobMissing, BlobCorrupt):
            return False
        return True

    def _restore(self, copy: Path, tree: Digest) -> bool:
        temporary = self._blobs.temporary()
        try:
            shutil.copyfile(copy, temporary)
            with temporary.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != tree:
                    return False
            return self._blobs.put_file(temporary) == tree
        except FileNotFoundError:
            return False
        finally:
            temporary.unlink(missing_ok=True)

    def _paths(self, key: Digest) -> tuple[Path, Path]:
        return self._root / f"{key}.json", self._root / f"{key}.tree"

    def _prune(self) -> None:
        entries = sorted(self._root.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for index in entries[:-_KEPT]:
            index.unlink(missing_ok=True)
            index.with_suffix(".tree").unlink(missing_ok=True)
