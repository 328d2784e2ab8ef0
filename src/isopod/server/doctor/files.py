"""Who may read and write what a node keeps. Looks only; `isopod up` mends the folder's own mode."""

from __future__ import annotations

import json
import stat
from contextlib import suppress
from pathlib import Path

from isopod import __version__
from isopod.server.doctor.check import Check
from isopod.settings import NodeSettings

_OTHERS = 0o077
_OTHERS_WRITE = 0o022


def check_files(settings: NodeSettings, *, uid: int) -> list[Check]:
    """`uid`: who the node runs as."""
    folder = settings.data_dir
    checks = [_account(uid), _cache(settings.cache_dir, uid=uid)]
    try:
        folder.lstat()
    except OSError as bad:
        text = f"{folder}: {(bad.strerror or str(bad)).lower()}: no node was started there"
        return [Check("files", "data directory", "ok", text), *checks]
    private = [
        folder,
        settings.token_path,
        settings.state_path,
        settings.signing_key_path,
        settings.sealing_key_path,
        settings.ledger_path,
        settings.storage_path,
        settings.routes_path,
        settings.run_dir,
        settings.logs_dir,
        settings.blobs_dir,
        settings.cordons_dir,
    ]
    wrong = [check for path in private if (check := _not_private(path, uid=uid))]
    if wrong:
        checks += wrong
    else:
        checks.append(Check("files", "data directory", "ok", f"{folder} is its owner's alone"))
    checks += _replaceable(folder)
    checks += _running(settings)
    return checks


def _account(uid: int) -> Check:
    if uid == 0:
        text = "root: what leaves the sandbox could do anything"
        return Check("files", "account", "warning", text, "run the node as an account of its own")
    return Check("files", "account", "ok", f"user id {uid}")


def _not_private(path: Path, *, uid: int) -> Check | None:
    try:
        found = path.lstat()
    except OSError:
        return None  # not made yet
    name = path.name
    if stat.S_ISLNK(found.st_mode):
        return Check("files", name, "problem", f"{path} is a link", "put the file itself there")
    if found.st_uid != uid:
        text = f"{path} belongs to user id {found.st_uid}, not to {uid}"
        return Check("files", name, "problem", text, f"chown {uid} {path}")
    if found.st_mode & _OTHERS:
        right = "700" if stat.S_ISDIR(found.st_mode) else "600"
        text = f"{path} has mode {stat.S_IMODE(found.st_mode):o}: others may use it"
        return Check("files", name, "problem", text, f"chmod {right} {path}")
    return None


def _replaceable(folder: Path) -> list[Check]:
    """Whoever may write a folder above can put another in this one's place."""
    for above in folder.absolute().parents:
        with suppress(OSError):
            mode = above.stat().st_mode
            if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
                text = (
                    f"{above} has mode {stat.S_IMODE(mode):o}: others may replace {folder.name!r}"
                )
                return [Check("files", "above", "problem", text, f"chmod go-w {above}")]
    return []


def _cache(path: Path, *, uid: int) -> Check:
    """What lies there is run as machine code."""
    try:
        found = path.stat()
    except OSError:
        return Check("files", "cache", "ok", f"{path} is not there yet")
    if found.st_uid not in (uid, 0):
        text = f"{path} belongs to user id {found.st_uid}, whose machine code would be run"
        return Check("files", "cache", "problem", text, "choose another with --cache-dir")
    if found.st_mode & _OTHERS_WRITE:
        text = (
            f"{path} has mode {stat.S_IMODE(found.st_mode):o}: others may change code that is run"
        )
        return Check("files", "cache", "problem", text, f"chmod go-w {path}")
    return Check("files", "cache", "ok", f"{path} can be written by its owner alone")


def _running(settings: NodeSettings) -> list[Check]:
    try:
        node = json.loads(settings.node_path.read_text())
        pid, version = int(node["pid"]), str(node["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return [Check("files", "node", "ok", "no node runs on it")]
    if not Path(f"/proc/{pid}").exists():
        return [Check("files", "node", "ok", "a node was killed there; its next start tidies up")]
    if version != __version__:
        text = f"isopod {version} runs there (process {pid}), {__version__} is installed"
        return [Check("files", "node", "warning", text, "restart the node")]
    return [Check("files", "node", "ok", f"isopod {version} runs there (process {pid})")]
