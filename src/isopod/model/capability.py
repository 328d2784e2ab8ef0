"""What an app asks for beyond its own memory, so that two versions can be compared: a deploy that
asks for more than the version before it did is told apart from one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from isopod.errors import CapabilitiesNew
from isopod.model.app import AppSpec


@dataclass(frozen=True, slots=True)
class CapabilityDiff:
    """In words for people: "connect to api.example.com:443"."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def asked(spec: AppSpec) -> list[str]:
    """All of it, in words."""
    return [
        *(f"connect to {target}" for target in spec.network.allow),
        *(f"keep files in volume {one.name!r} at {one.mount}" for one in spec.volumes),
    ]


def compare(new: AppSpec, old: AppSpec | None) -> CapabilityDiff:
    """`old` None: there was none, and all is new. What an entry of the other covers is not told:
    "api.example.com:443" is no more than "*.example.com:443" was."""
    if old is None:
        return CapabilityDiff(added=asked(new))
    return CapabilityDiff(added=_beyond(new, old), removed=_beyond(old, new))


def _beyond(one: AppSpec, other: AppSpec) -> list[str]:
    """What `one` asks for and `other` does not."""
    volumes = {(volume.name, volume.mount) for volume in other.volumes}
    return [
        *(
            f"connect to {target}"
            for target in one.network.allow
            if not any(known.covers(target) for known in other.network.allow)
        ),
        *(
            f"keep files in volume {volume.name!r} at {volume.mount}"
            for volume in one.volumes
            if (volume.name, volume.mount) not in volumes
        ),
    ]


def check_not_more(new: AppSpec, old: AppSpec) -> None:
    """CapabilitiesNew."""
    diff = compare(new, old)
    if diff.added:
        raise CapabilitiesNew(
            f"app {new.name!r} asks for more than its live version does: {listed(diff.added)}",
            details={"added": diff.added, "removed": diff.removed},
        )


def listed(texts: Sequence[str], most: int = 5) -> str:
    """In one line; the rest by its number."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
