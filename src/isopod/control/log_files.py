"""Log files as control finds them: where an app's are, and opened without being led astray.

Shut-in workers write into their folders, and one that was taken over can put a link there in place
of a log. Control follows none: it may read and write what no worker may.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from isopod.model.ids import AppName
from isopod.model.tenant import TenantName
from isopod.settings import NodeSettings

# Not to wait for what nobody writes to, either.
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def log_paths(settings: NodeSettings, tenant: TenantName, label: AppName) -> tuple[Path, Path]:
    """The rotated log, then the current one: behind a cordon, if it is there. Another tenant's
    worker can make files in its own folder, and is not asked."""
    names = (f"{label}.jsonl.1", f"{label}.jsonl")
    own = settings.cordons_dir / tenant / "logs"
    folder = own if any(os.path.lexists(own / name) for name in names) else settings.logs_dir
    older, current = (folder / name for name in names)
    return older, current


def open_log(path: Path, *, append: bool = False) -> BinaryIO:
    """Unbuffered. `append`: made if it is not there. OSError, of ELOOP for what is no plain
    file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT if append else os.O_RDONLY
    fd = os.open(path, flags | _PLAIN, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, "not a plain file", str(path))
    return os.fdopen(fd, "ab" if append else "rb", buffering=0)
