"""What isopod.toml said, and the specification that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from isopod.model.app import (
    AppSpec,
    Health,
    Isolation,
    IsolationMode,
    Limits,
    Scaling,
    Startup,
    WarmupRequest,
)
from isopod.model.ids import AppName
from isopod.model.job import Job
from isopod.model.network import NetworkGrant, Target
from isopod.model.tenant import Cordon
from isopod.model.volume import VolumeMount


@dataclass(frozen=True, slots=True)
class Manifest:
    """What isopod.toml says; None is what it does not say."""

    name: AppName | None = None
    runtime: str | None = None
    entrypoint: str | None = None
    max_instances: int | None = None
    idle_s: float | None = None
    queue: int | None = None
    concurrency: int | None = None
    memory_mib: int | None = None
    deadline_ms: int | None = None
    max_request_mib: int | None = None
    cpu_ms_per_request: int | None = None
    max_response_mib: int | None = None
    log_kib_per_s: int | None = None
    disk_mib: int | None = None
    health_path: str | None = None
    snapshot: bool | None = None
    warmup: tuple[WarmupRequest, ...] | None = None
    before_snapshot: str | None = None
    after_restore: str | None = None
    isolation: IsolationMode | None = None
    cordon: Cordon | None = None
    allow: tuple[Target, ...] | None = None
    volumes: tuple[VolumeMount, ...] = ()
    jobs: tuple[Job, ...] = ()
    post_deploy: tuple[str, ...] | None = None
    hibernate: bool | None = None
    debug: bool | None = None
    static_root: str | None = None
    static_spa: bool | None = None
    static_paths: Mapping[str, str] = field(default_factory=dict)  # path -> folder, beside an app
    env: Mapping[str, str] = field(default_factory=dict)

    def to_spec(
        self, *, name: AppName, runtime: str, entrypoint: str, env: Mapping[str, str]
    ) -> AppSpec:
        """The specification with the defaults filled in. `env` goes over the manifest's."""
        health = Health() if self.health_path is None else Health(path=self.health_path)
        unsaid = Startup(warmup=(WarmupRequest(health.path),))
        return AppSpec(
            name=name,
            runtime=runtime,
            entrypoint=entrypoint,
            env={**self.env, **env},
            # A volume has one writer.
            scaling=replace(
                Scaling(max_instances=1) if self.volumes else Scaling(), **self._said(Scaling)
            ),
            limits=replace(Limits(), **self._said(Limits)),
            health=health,
            startup=replace(unsaid, **self._said(Startup)),
            isolation=Isolation(self.isolation or "app", self.cordon or "shared"),
            network=NetworkGrant(self.allow or ()),
            volumes=self.volumes,
            jobs=self.jobs,
            post_deploy=self.post_deploy or (),
            hibernate=bool(self.hibernate),
            static=self.static_paths,
            debug=bool(self.debug),
        )

    def _said(self, section: type[Scaling | Limits | Startup]) -> dict[str, Any]:
        said = {f.name: getattr(self, f.name) for f in fields(section)}
        return {name: value for name, value in said.items() if value is not None}
