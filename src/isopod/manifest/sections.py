"""Every section and key of isopod.toml, the field of Manifest that it sets, and its check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isopod.manifest.checks import (
    Check,
    allow,
    command,
    commands,
    cordon,
    entrypoint,
    folder,
    hook,
    job,
    job_name,
    mode,
    mount,
    name,
    number,
    runtime,
    schedule,
    true_or_false,
    url_path,
    volume_name,
    warmup,
    whole,
)
from isopod.model.volume import VolumeMount, check_together

MAX_STATIC_PATHS = 20

# Keys of [static] that begin with "/" are paths; the reader has them.
# section -> key -> (field of Manifest, check)
SECTIONS: dict[str, dict[str, tuple[str, Check]]] = {
    "app": {
        "name": ("name", name),
        "runtime": ("runtime", runtime),
        "entrypoint": ("entrypoint", entrypoint),
        "debug": ("debug", true_or_false),
    },
    "scaling": {
        "max_instances": ("max_instances", whole(1, 1000)),
        "idle_s": ("idle_s", number(0, 86_400)),
        "queue": ("queue", whole(0, 100_000)),
        "concurrency": ("concurrency", whole(1, 1000)),
    },
    "limits": {
        "memory_mib": ("memory_mib", whole(32, 4095)),  # a 32-bit guest's address space
        "deadline_ms": ("deadline_ms", whole(10, 3_600_000)),
        "max_request_mib": ("max_request_mib", whole(1, 4096)),
        "max_response_mib": ("max_response_mib", whole(1, 1 << 20)),
        "cpu_ms_per_request": ("cpu_ms_per_request", whole(1, 3_600_000)),
        "max_instances": ("max_instances", whole(1, 1000)),  # as in [scaling]
        "log_kib_per_s": ("log_kib_per_s", whole(1, 1 << 20)),
        "disk_mib": ("disk_mib", whole(0, 1 << 20)),
    },
    "health": {"path": ("health_path", url_path)},
    "startup": {
        "snapshot": ("snapshot", true_or_false),
        "warmup": ("warmup", warmup),
        "before_snapshot": ("before_snapshot", hook),
        "after_restore": ("after_restore", hook),
    },
    "isolation": {"mode": ("isolation", mode), "cordon": ("cordon", cordon)},
    "static": {"root": ("static_root", folder), "spa": ("static_spa", true_or_false)},
    "network": {"allow": ("allow", allow)},
    "deploy": {"post_deploy": ("post_deploy", commands)},
    "websocket": {"hibernate": ("hibernate", true_or_false)},
}


@dataclass(frozen=True, slots=True)
class Table:
    """A section that there may be several of, such as [[volumes]]: each makes one value."""

    keys: Mapping[str, Check]
    make: Callable[..., Any]
    required: tuple[str, ...]
    most: int
    together: Callable[[Sequence[Any]], None] = lambda _entries: None  # ValueError


# section -> what its entries hold. The field of Manifest has the section's name, and entries differ
# in their names.
TABLES: dict[str, Table] = {
    "volumes": Table(
        {"name": volume_name, "mount": mount},
        VolumeMount,
        required=("name", "mount"),
        most=8,
        together=check_together,
    ),
    "jobs": Table(
        {
            "name": job_name,
            "schedule": schedule,
            "path": url_path,
            "command": command,
            "timeout_s": number(1, 3600),
            "retries": whole(0, 10),
        },
        job,
        required=("name", "schedule"),
        most=50,
    ),
}
