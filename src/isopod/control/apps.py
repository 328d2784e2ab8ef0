"""Apps, as a caller sees them: state joined with what the workers run now."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from pathlib import Path

from isopod.control.node import Node
from isopod.control.workers import InstanceStatus, WorkerStatus
from isopod.errors import AppNotFound, DeployInProgress
from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.model.snapshot import Snapshot
from isopod.settings import NodeSettings
from isopod.state.apps import App


@dataclass(frozen=True, slots=True)
class AppSummary:
    """One line of a listing."""

    name: str
    url: str
    version: int
    digest: str
    runtime: str
    created_at: float
    deployed_at: float  # when the live version was made
    source: str
    instances: int
    requests: int  # since the workers started
    cold_starts: int
    errors: int
    queued: int


@dataclass(frozen=True, slots=True)
class VersionSummary:
    number: int
    digest: str
    created_at: float
    live: bool


@dataclass(frozen=True, slots=True)
class FindingSummary:
    kind: str
    what: str
    place: str  # "file:line", or ""


@dataclass(frozen=True, slots=True)
class SnapshotSummary:
    """As `isopod.model.snapshot.Snapshot`; sizes in bytes."""

    verdict: str  # "sound", "unwarmed" or "plain"
    image: str  # digest; "" when the verdict is plain
    size: int
    own_bytes: int
    blob_bytes: int
    private: bool
    why: str
    findings: list[FindingSummary]


@dataclass(frozen=True, slots=True)
class StartTimes:
    """Of the last starts that each worker remembers, all together. None: there was no start."""

    count: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class AppDetail:
    """All there is to say of one app, but the values of its environment variables."""

    app: AppSummary
    entrypoint: str
    env_names: list[str]
    scaling: dict[str, int | float]
    limits: dict[str, int]
    health_path: str
    dependencies: list[tuple[str, str]]
    snapshot: SnapshotSummary | None  # None: none was taken of this version yet
    warmup: list[str]  # "GET /"
    isolation: str  # "app" or "request"
    starts: StartTimes
    versions: list[VersionSummary]
    instances: list[InstanceStatus]


async def list_apps(_who: Principal, *, node: Node) -> list[AppSummary]:
    """By name."""

    def read() -> list[tuple[App, AppVersion]]:
        live = {version.app: version for version in node.state.versions.live()}
        return [(app, live[app.name]) for app in node.state.apps.all() if app.name in live]

    pairs, workers = await asyncio.gather(asyncio.to_thread(read), node.workers.status())
    return [summary(app, version, workers, node.settings) for app, version in pairs]


async def get_app(_who: Principal, name: AppName, *, node: Node) -> AppDetail:
    """AppNotFound."""

    def read() -> tuple[App, list[AppVersion]]:
        app = node.state.apps.get(name)
        versions = node.state.versions.of_app(name)
        if app is None or not any(v.number == app.live_version for v in versions):
            raise AppNotFound(f"there is no app {name!r}")
        return app, versions

    (app, versions), workers = await asyncio.gather(asyncio.to_thread(read), node.workers.status())
    live = next(v for v in versions if v.number == app.live_version)
    spec = live.spec
    return AppDetail(
        app=summary(app, live, workers, node.settings),
        entrypoint=spec.entrypoint,
        env_names=sorted(spec.env),
        scaling={
            "max_instances": spec.scaling.max_instances,
            "idle_s": spec.scaling.idle_s,
            "queue": spec.scaling.queue,
        },
        limits={
            "memory_mib": spec.limits.memory_mib,
            "deadline_ms": spec.limits.deadline_ms,
            "max_request_mib": spec.limits.max_request_mib,
        },
        health_path=spec.health.path,
        dependencies=list(live.build.dependencies),
        snapshot=_snapshot(live.snapshot) if live.snapshot else None,
        warmup=[one.text() for one in spec.startup.warmup],
        isolation=spec.isolation.mode,
        starts=start_times(name, workers),
        versions=[
            VersionSummary(v.number, v.digest, v.created_at, v.number == app.live_version)
            for v in versions
        ],
        instances=[i for worker in workers for i in worker.instances if i.app == name],
    )


async def delete_app(_who: Principal, name: AppName, *, node: Node) -> None:
    """The app, its versions and its log. AppNotFound; DeployInProgress while one runs."""

    def forget() -> None:
        with node.state.transaction() as t:
            if t.apps.get(name) is None:
                raise AppNotFound(f"there is no app {name!r}")
            t.apps.delete(name)
        with node.publishing:
            node.routes.remove(name)
        for path in log_paths(node.settings, name):
            path.unlink(missing_ok=True)

    if name in node.deploying:
        raise DeployInProgress(f"a deploy of app {name!r} is under way")
    await asyncio.shield(asyncio.to_thread(forget))
    await node.workers.refresh()
    await node.workers.sleep(name)


async def sleep_app(_who: Principal, name: AppName, *, node: Node) -> int:
    """End the app's idle instances now; returns how many. AppNotFound."""
    if await asyncio.to_thread(node.state.apps.get, name) is None:
        raise AppNotFound(f"there is no app {name!r}")
    return await node.workers.sleep(name)


def summary(
    app: App, live: AppVersion, workers: list[WorkerStatus], settings: NodeSettings
) -> AppSummary:
    counts = [worker.apps[app.name] for worker in workers if app.name in worker.apps]

    def total(what: str) -> int:
        return sum(int(count.get(what, 0)) for count in counts)

    return AppSummary(
        name=app.name,
        url=app_url(app.name, settings),
        version=live.number,
        digest=live.digest,
        runtime=live.spec.runtime,
        created_at=app.created_at,
        deployed_at=live.created_at,
        source=app.source,
        instances=sum(i.app == app.name for worker in workers for i in worker.instances),
        requests=total("requests"),
        cold_starts=total("cold_starts"),
        errors=total("errors"),
        queued=total("queued"),
    )


def start_times(name: AppName, workers: list[WorkerStatus]) -> StartTimes:
    """Percentiles by the nearest rank: each is a start that took place."""
    took = sorted(
        float(ms) for worker in workers for ms in worker.apps.get(name, {}).get("starts_ms", ())
    )
    if not took:
        return StartTimes(0, None, None)
    p50, p99 = (took[math.ceil(part * len(took)) - 1] for part in (0.5, 0.99))
    return StartTimes(len(took), p50, p99)


def _snapshot(taken: Snapshot) -> SnapshotSummary:
    return SnapshotSummary(
        verdict=taken.verdict,
        image=taken.image,
        size=taken.size,
        own_bytes=taken.own_bytes,
        blob_bytes=taken.blob_bytes,
        private=taken.private,
        why=taken.why,
        findings=[FindingSummary(one.kind, one.what, one.place) for one in taken.findings],
    )


def app_url(name: str, settings: NodeSettings) -> str:
    port = "" if settings.port == 80 else f":{settings.port}"
    return f"http://{name}.{settings.domain}{port}/"


def log_paths(settings: NodeSettings, name: AppName) -> tuple[Path, Path]:
    """The rotated log, then the current one."""
    current = settings.logs_dir / f"{name}.jsonl"
    return current.with_name(f"{name}.jsonl.1"), current
