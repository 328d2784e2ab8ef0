"""Volumes as folders of an instance's, whatever its language."""

from __future__ import annotations

from collections.abc import Sequence

from isopod.engine.instance import Instance, Preopen
from isopod.model.snapshot import Finding
from isopod.runtimes.base import LentVolume


def preopened(volumes: Sequence[LentVolume]) -> tuple[Preopen, ...]:
    """In their order, after the instance's other folders: their numbers are in its images."""
    return tuple(
        Preopen(one.folder, one.mount, True, one.size_bytes, True, one.used_bytes)
        for one in volumes
    )


def used_volumes(instance: Instance) -> tuple[Finding, ...]:
    """What the app made or remembered of the empty folders that stand for its volumes in a build is
    not true of those."""
    preopens = instance.spec.preopens
    used = sorted(preopens[fd - 3].guest for fd in instance.files.used_lasting)
    return tuple(
        Finding("volume", f"the volume at {mount} is used before the snapshot", "")
        for mount in used
    )
