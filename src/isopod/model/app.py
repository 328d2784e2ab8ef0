"""An app's specification, and the immutable version that a deploy makes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from isopod.model.ids import AppName, Digest
from isopod.model.job import Job
from isopod.model.network import NetworkGrant
from isopod.model.snapshot import Snapshot
from isopod.model.tenant import Cordon
from isopod.model.volume import VolumeMount


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many instances a worker runs of an app, and for how long an idle one stays."""

    max_instances: int = 8  # per worker, at once
    idle_s: float = 60.0  # an instance that served nothing for so long ends
    queue: int = 500  # requests that may wait per worker; more get 503
    # Requests at once in one instance; None: as many as the app's kind of interface takes.
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Per instance and invocation."""

    memory_mib: int = 256  # linear memory
    deadline_ms: int = 30_000  # wall clock per request, waits for the client not counted
    max_request_mib: int = 100  # request body
    cpu_ms_per_request: int = 0  # guest CPU; 0: only the deadline bounds it
    max_response_mib: int = 1024  # response body
    log_kib_per_s: int = 256  # sustained; what is more is dropped, and the log says so
    disk_mib: int = 256  # what an instance may write under /tmp


@dataclass(frozen=True, slots=True)
class Health:
    """The request that a new version must answer before it goes live."""

    path: str = "/"


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """A request that the builder sends to the booted app before it takes the snapshot."""

    path: str  # may hold a query
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()  # as written in isopod.toml
    body: str = ""  # sent as UTF-8

    def text(self) -> str:
        """For people: "GET /"."""
        return f"{self.method} {self.path}"

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> WarmupRequest:
        headers = tuple((str(name), str(value)) for name, value in body.get("headers", ()))
        return WarmupRequest(**{**body, "headers": headers})


@dataclass(frozen=True, slots=True)
class Startup:
    """How the app's snapshot is made. Hooks are "pkg.module:function", "" for none."""

    snapshot: bool = True  # false: every start boots the app
    warmup: tuple[WarmupRequest, ...] = (WarmupRequest("/"),)  # else the health path; in order
    before_snapshot: str = ""
    after_restore: str = ""

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Startup:
        warmup = tuple(WarmupRequest.from_json(one) for one in body["warmup"])
        return Startup(**{**body, "warmup": warmup})


def _members(part: Any) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__slots__}


IsolationMode = Literal["app", "request"]


@dataclass(frozen=True, slots=True)
class Isolation:
    """What shares an instance's memory: all requests to the app, or no two requests; and what
    shares its worker process: all tenants, or this one alone."""

    mode: IsolationMode = "app"
    cordon: Cordon = "shared"  # the tenant's own setting can only make it stricter


@dataclass(frozen=True, slots=True)
class AppSpec:
    """What `isopod.toml` and the command line say of an app, defaults filled in."""

    name: AppName
    runtime: str
    entrypoint: str  # "pkg.module:object"
    env: Mapping[str, str] = field(default_factory=dict)
    scaling: Scaling = Scaling()
    limits: Limits = Limits()
    health: Health = Health()
    startup: Startup = Startup()
    isolation: Isolation = Isolation()
    network: NetworkGrant = field(default_factory=NetworkGrant)
    volumes: tuple[VolumeMount, ...] = ()
    jobs: tuple[Job, ...] = ()
    post_deploy: tuple[str, ...] = ()  # commands that a version runs before it goes live
    hibernate: bool = False  # its idle WebSockets stay open while no instance is there
    # Path -> folder of the app whose files the gateway serves there, before the app is asked.
    static: Mapping[str, str] = field(default_factory=dict)
    debug: bool = False  # answers carry X-Isopod-CPU-Ms

    def to_json(self) -> dict[str, Any]:
        # Not `asdict`: it copies everything deeply, and a node that starts writes ten thousand.
        return {
            "name": self.name,
            "runtime": self.runtime,
            "entrypoint": self.entrypoint,
            "env": dict(sorted(self.env.items())),
            "scaling": {k: v for k, v in _members(self.scaling).items() if v is not None},
            "limits": _members(self.limits),
            "health": _members(self.health),
            "startup": {
                **_members(self.startup),
                "warmup": tuple(_members(one) for one in self.startup.warmup),
            },
            "isolation": _members(self.isolation),
            **self._later(),
            "debug": self.debug,
        }

    def _later(self) -> dict[str, Any]:
        """What specifications did not always have is left out when empty: versions of before keep
        their digests."""
        parts: dict[str, Any] = {
            "network": self.network.to_json() if self.network.allow else None,
            "volumes": [one.to_json() for one in self.volumes],
            "jobs": [one.to_json() for one in self.jobs],
            "post_deploy": list(self.post_deploy),
            "hibernate": self.hibernate,
            "static": dict(sorted(self.static.items())),
        }
        return {name: part for name, part in parts.items() if part}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> AppSpec:
        """Of any age: what a specification did not know yet has its default."""
        health = Health(**body["health"])
        unsaid = Startup(warmup=(WarmupRequest(health.path),))
        return AppSpec(
            name=AppName(body["name"]),
            runtime=body["runtime"],
            entrypoint=body["entrypoint"],
            env=dict(body["env"]),
            scaling=Scaling(**body["scaling"]),
            limits=Limits(**body["limits"]),
            health=health,
            startup=Startup.from_json(body["startup"]) if "startup" in body else unsaid,
            isolation=Isolation(**body.get("isolation", {})),
            network=NetworkGrant.from_json(body.get("network", {})),
            volumes=tuple(VolumeMount.from_json(one) for one in body.get("volumes", ())),
            jobs=tuple(Job.from_json(one) for one in body.get("jobs", ())),
            post_deploy=tuple(str(one) for one in body.get("post_deploy", ())),
            hibernate=bool(body.get("hibernate", False)),
            static=dict(body.get("static", {})),
            debug=bool(body.get("debug", False)),
        )


@dataclass(frozen=True, slots=True)
class Build:
    """What a build left: blobs (zstd tars) of the app's own files and of its dependencies,
    compiled for the guest. `key` is the digest of the inputs; equal inputs share one build."""

    key: Digest
    app_tree: Digest
    site_tree: Digest
    dependencies: tuple[tuple[str, str], ...] = ()  # (distribution, version), sorted

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "dependencies": [list(d) for d in self.dependencies]}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Build:
        return Build(
            key=Digest(body["key"]),
            app_tree=Digest(body["app_tree"]),
            site_tree=Digest(body["site_tree"]),
            dependencies=tuple((str(n), str(v)) for n, v in body["dependencies"]),
        )


@dataclass(frozen=True, slots=True)
class AppVersion:
    """An immutable result of a deploy. `number` counts an app's versions from 1."""

    app: AppName
    number: int
    digest: Digest
    package: Digest
    build: Build
    spec: AppSpec
    created_at: float  # seconds since the epoch
    # Not part of the digest: the same version may get a new image. None: none was taken yet.
    snapshot: Snapshot | None = None


def version_digest(*, package: Digest, build_key: Digest, spec: AppSpec) -> Digest:
    """The same package, build inputs and specification give the same digest."""
    body = {"package": package, "build": build_key, "spec": spec.to_json()}
    return Digest(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest())
