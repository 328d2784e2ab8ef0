"""Which failures to read say that stored bytes are damaged, and which that the machine lacks
something just now.

Damage is a file that is missing or no file any more (or, as its reader sees, has another size or
digest): it is made again from its blob. A shortage of descriptors or memory is none: to throw a
sound copy away then costs the most when there is the least to spare.
"""

from __future__ import annotations

import errno

from isopod.errors import FilesUnreadable

_DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


class ShorterThanItWas(OSError):
    """A part of a file is missing."""


def is_damage(error: OSError) -> bool:
    return isinstance(error, ShorterThanItWas) or error.errno in _DAMAGE


def is_shortage(error: OSError) -> bool:
    return error.errno in _SHORTAGE


def unreadable(what: str, error: OSError) -> FilesUnreadable:
    return FilesUnreadable(f"{what} cannot be read now: {error.strerror or error}")
