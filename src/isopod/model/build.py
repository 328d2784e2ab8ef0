"""What the control process and a builder say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class BuildJob:
    """One build, as JSON on the builder's standard input. Paths are absolute."""

    package: str  # digest of the package blob
    app_name: str  # from --name, or "" to take the manifest's or `folder_name`
    folder_name: str  # what the deployed folder is called
    env: Mapping[str, str]
    blobs_dir: str
    trees_dir: str
    images_dir: str
    image_cache_mib: int
    cache_dir: str
    timeout_s: float
    # `Build.to_json()` of an earlier build of this package by the same runtimes, its blobs being
    # there: then nothing needs to be installed or compiled again, only detected and started.
    reuse: Mapping[str, Any] | None = None
    # {"spec": AppSpec, "build": Build}, as JSON: only take a new snapshot of this; nothing is
    # installed, compiled or asked for its health, and it gives way to everything else.
    only_snapshot: Mapping[str, Any] | None = None
    memory_mib: int = 4096  # of the builder and what it starts
    tenant: str = "default"  # whose build it is: nothing that was compiled for another is used
    require_sandbox: bool = False  # fail where the kernel refuses a part of it
    # Values that the app is tried with, and that no image may hold. They are the app's of this name
    # and no other's.
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets_of: str = ""
    # AppSpec, as JSON, of the live version of app `secrets_of`: what asks for more is refused
    # before it is built. None: it may.
    live: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "env": dict(self.env), "secrets": dict(self.secrets)}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> BuildJob:
        return BuildJob(**body)


StepState = Literal["start", "progress", "done"]


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of one step of a deploy: `name` is stable ("upload", "unpack", "detect",
    "dependencies", "compile", "start", "snapshot", "module", "post_deploy", "publish"), `text` is
    for people."""

    name: str
    state: StepState
    text: str
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
