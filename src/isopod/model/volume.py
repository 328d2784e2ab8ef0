"""A folder that outlives instances: which volume an app wants, and where it sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from isopod.errors import NameInvalid

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_MOUNT = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]{0,62}){1,4}")
# What a guest has at these places, or might believe to have.
_TAKEN = ("/bin", "/dev", "/etc", "/isopod", "/lib", "/proc", "/site", "/sys", "/tmp", "/usr")  # noqa: S108
DEFAULT_SIZE_MIB = 1024
MAX_SIZE_MIB = 1 << 20


class VolumeName(str):
    """1 to 32 characters of a DNS label, lower case. It is also a folder's name."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _NAME.fullmatch(text):
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise NameInvalid(
                f"volume name {shown!r} is not a short DNS label",
                hint="use 1 to 32 of a-z, 0-9 and '-', starting and ending with a letter or digit",
            )
        return cls(text)


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """One [[volumes]] of a manifest. `mount`: an absolute path in the guest, such as "/data"."""

    name: str
    mount: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> VolumeMount:
        return VolumeMount(str(body["name"]), str(body["mount"]))


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """What a worker needs to know of one. `size_mib` is the most that it may hold."""

    name: str
    mount: str
    size_mib: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> MountedVolume:
        return MountedVolume(str(body["name"]), str(body["mount"]), int(body["size_mib"]))


def check_mount(path: str) -> str:
    """The path if a volume can be there. ValueError."""
    if not _MOUNT.fullmatch(path) or path == "/app":
        raise ValueError('must be an absolute path such as "/data" or "/app/data"')
    first = "/" + path.split("/")[1]
    if first in _TAKEN:
        raise ValueError(f"cannot be below {first!r}, which is the runtime's")
    return path


def check_together(mounts: Sequence[VolumeMount]) -> None:
    """ValueError when two are one volume, or lie in one place."""
    for number, one in enumerate(mounts):
        for other in mounts[:number]:
            if one.name == other.name:
                raise ValueError(f"mounts volume {one.name!r} twice")
            if f"{one.mount}/".startswith(f"{other.mount}/") or f"{other.mount}/".startswith(
                f"{one.mount}/"
            ):
                raise ValueError(f"has one mount inside another: {other.mount!r}, {one.mount!r}")
