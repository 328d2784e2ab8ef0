"""A version's snapshot, in words."""

from __future__ import annotations

from typing import Any

from isopod.cli import output
from isopod.model.snapshot import Finding


def lines(snapshot: dict[str, Any], warmup: list[str]) -> list[str]:
    """The verdict with its sizes or its reason, then each finding that it does not name."""
    findings = [Finding(**finding).text() for finding in snapshot["findings"]]
    why = snapshot["why"]
    if snapshot["verdict"] == "unneeded":
        return [why]
    if snapshot["verdict"] == "plain":
        if len(findings) == 1 and not why:
            return [f"plain boot: {findings[0]}"]
        return [f"plain boot: {why}" if why else "plain boot", *findings]
    own, whole = output.mib(snapshot["own_bytes"]), output.mib(snapshot["size"], digits=0)
    parts = [snapshot["verdict"], f"{own} of its own ({whole})"]
    if snapshot["verdict"] == "sound" and warmup:
        parts.append(f"warmed by {_some(warmup)}")
    if snapshot["private"]:
        parts.append("private")
    first = ", ".join(parts)
    return [f"{first}: {why}" if why else first, *findings]


def note(snapshot: dict[str, Any] | None, warmup: list[str]) -> None:
    """As a step of a deploy, on standard error."""
    if snapshot is None:
        return
    name = "snapshot"
    for line in lines(snapshot, warmup):
        output.note(f"  {name:<13} {line}")
        name = ""


def fields(found: dict[str, Any]) -> list[tuple[str, object]]:
    """For `isopod app`: what there is to say of an app's snapshot and its starts."""
    snapshot, starts = found["snapshot"], found["starts"]
    if snapshot is not None and snapshot["verdict"] == "unneeded":
        return [("instances", f"none: {snapshot['why']}")]
    pairs: list[tuple[str, object]] = []
    if snapshot is None:
        pairs.append(("snapshot", "none yet: the node makes one in the background"))
    else:
        first, *more = lines(snapshot, found["warmup"])
        pairs += [("snapshot", first), *(("", line) for line in more)]
        if snapshot["outdated"]:
            pairs.append(("", "of another engine: plain boots serve until the node has a new one"))
    if snapshot is not None and snapshot["image"]:
        shared = "private to this app" if snapshot["private"] else "shared with equal apps"
        pairs.append(
            ("image", f"{snapshot['image'][:12]}, {output.mib(snapshot['blob_bytes'])}, {shared}")
        )
    times = "none yet"
    if starts["count"]:
        times = (
            f"p50 {starts['p50_ms']:.1f} ms, p99 {starts['p99_ms']:.1f} ms "
            f"(of the last {starts['count']})"
        )
    return [*pairs, ("starts", times), ("isolation", found["isolation"])]


def _some(warmup: list[str]) -> str:
    distinct = list(dict.fromkeys(warmup))
    more = f" and {len(distinct) - 3} more" if len(distinct) > 3 else ""
    return ", ".join(distinct[:3]) + more
