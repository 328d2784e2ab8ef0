"""Apps, as a caller sees them: state joined with what the workers run now."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from isopod.control.audit import audited, entry
from isopod.control.log_files import log_paths
from isopod.control.node import Node
from isopod.control.renewals import is_outdated
from isopod.control.workers import InstanceStatus, WorkerStatus
from isopod.errors import AppNotFound, DeployInProgress, DiskFull
from isopod.host.broker import BrokerLimits
from isopod.host.connections import ConnectionLimits
from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.network import EgressPolicy, policy_to_json
from isopod.model.principal import Principal
from isopod.model.snapshot import Snapshot
from isopod.model.tenant import DEFAULT_TENANT, TenantName, app_label
from isopod.settings import NodeSettings
from isopod.state.apps import App


@dataclass(frozen=True, slots=True)
class AppSummary:
    """One line of a listing."""

    name: str
    tenant: str
    url: str
    version: int
    digest: str
    runtime: str
    created_at: float
    deployed_at: float  # when the live version was made
    source: str
    needs_instances: bool  # false: the gateway answers its requests itself
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

    verdict: str  # "sound", "unwarmed", "plain" or "unneeded"
    image: str  # digest; "" when the verdict is plain or unneeded
    size: int
    own_bytes: int
    blob_bytes: int
    private: bool
    why: str
    findings: list[FindingSummary]
    outdated: bool  # of another engine: the app boots plainly until there is a new one


@dataclass(frozen=True, slots=True)
class StartTimes:
    """Of the last starts that each worker remembers, all together. None: there was no start."""

    count: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class AppDetail:
    """All there is to say of one app, but the values of its environment variables and secrets."""

    app: AppSummary
    entrypoint: str
    env_names: list[str]
    secrets: list[str]  # their names
    scaling: dict[str, int | float]
    limits: dict[str, int]
    health_path: str
    static: dict[str, str]  # path -> folder whose files the gateway serves there
    network: list[str]  # where it may connect to
    egress: list[str] | None  # what its tenant's apps may list; None: all that is public
    network_limits: dict[str, float]
    dependencies: list[tuple[str, str]]
    snapshot: SnapshotSummary | None  # None: none was taken of this version yet
    warmup: list[str]  # "GET /"
    isolation: str  # "app" or "request"
    starts: StartTimes
    versions: list[VersionSummary]
    instances: list[InstanceStatus]


async def list_apps(who: Principal, *, node: Node) -> list[AppSummary]:
    """The tenant's, by name."""
    who.need("read")
    pairs, workers = await asyncio.gather(
        asyncio.to_thread(live_apps, who.tenant, node=node), node.workers.status()
    )
    return [summary(app, version, who.tenant, workers, node.settings) for app, version in pairs]


def live_apps(tenant: TenantName, *, node: Node) -> list[tuple[App, AppVersion]]:
    """A tenant's apps with their live versions, by name. Blocks."""
    mine = node.state.of(tenant)
    live = {version.app: version for version in mine.versions.live()}
    return [(app, live[app.label]) for app in mine.apps.all() if app.label in live]


async def find_app(who: Principal, name: AppName, *, node: Node) -> App:
    """AppNotFound, also when it is another tenant's: the two are told alike."""
    app = await asyncio.to_thread(node.state.of(who.tenant).apps.get, name)
    if app is None:
        raise AppNotFound(f"there is no app {name!r}")
    return app


async def get_app(who: Principal, name: AppName, *, node: Node) -> AppDetail:
    """AppNotFound."""
    who.need("read")
    mine = node.state.of(who.tenant)

    def read() -> tuple[App, list[AppVersion], list[str], EgressPolicy]:
        app = mine.apps.get(name)
        versions = mine.versions.of_app(app.label) if app else []
        if app is None or not any(v.number == app.live_version for v in versions):
            raise AppNotFound(f"there is no app {name!r}")
        tenant = node.state.node.tenants.get(who.tenant)
        bound = tenant.egress if tenant else None
        return app, versions, sorted(mine.secrets.sealed(name)), bound

    (app, versions, secrets, bound), workers = await asyncio.gather(
        asyncio.to_thread(read), node.workers.status()
    )
    live = next(v for v in versions if v.number == app.live_version)
    spec = live.spec
    return AppDetail(
        app=summary(app, live, who.tenant, workers, node.settings),
        entrypoint=spec.entrypoint,
        env_names=sorted(spec.env),
        secrets=secrets,
        scaling={
            "max_instances": spec.scaling.max_instances,
            "idle_s": spec.scaling.idle_s,
            "queue": spec.scaling.queue,
        },
        limits={**asdict(spec.limits), "max_instances": spec.scaling.max_instances},
        health_path=spec.health.path,
        static=dict(spec.static),
        network=[str(one) for one in spec.network.allow],
        egress=policy_to_json(bound),
        network_limits=_network_limits(),
        dependencies=list(live.build.dependencies),
        snapshot=_snapshot(live, live.snapshot, node) if live.snapshot else None,
        warmup=[one.text() for one in spec.startup.warmup],
        isolation=spec.isolation.mode,
        starts=start_times(app.label, workers),
        versions=[
            VersionSummary(v.number, v.digest, v.created_at, v.number == app.live_version)
            for v in versions
        ],
        instances=[
            replace(i, app=app.name)
            for worker in workers
            for i in worker.instances
            if i.app == app.label
        ],
    )


def _network_limits() -> dict[str, float]:
    open_now, broker = ConnectionLimits(), BrokerLimits()
    return {
        "connections_per_instance": open_now.per_instance,
        "connections_per_worker": open_now.per_app,
        "connections_being_made": broker.connects_at_once,
        "connect_s": broker.connect_s,
        "lookups_per_s": broker.lookups_per_s,
        "lookup_s": broker.lookup_s,
    }


async def delete_app(who: Principal, name: AppName, *, node: Node) -> None:
    """The app, its versions, secrets and log. AppNotFound; DeployInProgress while one runs."""

    def forget() -> App:
        with node.state.transaction() as t:
            mine = t.of(who.tenant)
            app = mine.apps.get(name)
            if app is None:
                raise AppNotFound(f"there is no app {name!r}")
            mine.apps.delete(name, now=node.clock())
            mine.secrets.delete_all(name)
            mine.audit.add(entry(who, "app.delete", name, node.clock()))
        with node.publishing:
            node.routes.remove(app.label)
        return app

    async with audited(who, "app.delete", name, node=node):
        who.need("deploy")
        if f"{who.tenant} {name}" in node.deploying:
            raise DeployInProgress(f"a deploy of app {name!r} is under way")
        app = await asyncio.shield(asyncio.to_thread(forget))
    await end_app(app, who.tenant, node=node)


async def end_app(app: App, tenant: TenantName, *, node: Node) -> None:
    """After its route is gone: its instances, and then what they wrote."""
    node.jobs.cancel(app.label)
    node.learning.pop(app.label, None)  # the next app of that label asks for itself
    await node.workers.refresh()
    await node.workers.sleep(app.label)
    for path in log_paths(node.settings, tenant, app.label):
        path.unlink(missing_ok=True)


async def sleep_app(who: Principal, name: AppName, *, node: Node) -> int:
    """End the app's idle instances now; returns how many. AppNotFound."""
    async with audited(who, "app.sleep", name, node=node):
        who.need("deploy")
        app = await find_app(who, name, node=node)
        done = entry(who, "app.sleep", name, node.clock())
        # State does not change, and it gives room back: a full disk is no reason against it.
        with suppress(DiskFull):
            await asyncio.to_thread(node.state.of(who.tenant).audit.add, done)
    return await node.workers.sleep(app.label)


def summary(
    app: App,
    live: AppVersion,
    tenant: TenantName,
    workers: list[WorkerStatus],
    settings: NodeSettings,
) -> AppSummary:
    counts = [worker.apps[app.label] for worker in workers if app.label in worker.apps]

    def total(what: str) -> int:
        return sum(int(count.get(what, 0)) for count in counts)

    return AppSummary(
        name=app.name,
        tenant=tenant,
        url=app_url(app, tenant, settings),
        version=live.number,
        digest=live.digest,
        runtime=live.spec.runtime,
        created_at=app.created_at,
        deployed_at=live.created_at,
        source=app.source,
        needs_instances=live.snapshot is None or live.snapshot.verdict != "unneeded",
        instances=sum(i.app == app.label for worker in workers for i in worker.instances),
        requests=total("requests"),
        cold_starts=total("cold_starts"),
        errors=total("errors"),
        queued=total("queued"),
    )


def start_times(label: AppName, workers: list[WorkerStatus]) -> StartTimes:
    """Percentiles by the nearest rank: each is a start that took place."""
    took = sorted(
        float(ms) for worker in workers for ms in worker.apps.get(label, {}).get("starts_ms", ())
    )
    if not took:
        return StartTimes(0, None, None)
    p50, p99 = (took[math.ceil(part * len(took)) - 1] for part in (0.5, 0.99))
    return StartTimes(len(took), p50, p99)


def _snapshot(version: AppVersion, taken: Snapshot, node: Node) -> SnapshotSummary:
    return SnapshotSummary(
        verdict=taken.verdict,
        image=taken.image,
        size=taken.size,
        own_bytes=taken.own_bytes,
        blob_bytes=taken.blob_bytes,
        private=taken.private,
        why=taken.why,
        findings=[FindingSummary(one.kind, one.what, one.place) for one in taken.findings],
        outdated=is_outdated(version, node.renewals.current, ()),
    )


def app_url(app: App, tenant: TenantName, settings: NodeSettings) -> str:
    """The address that is the tenant's own: it does not tell whether another tenant has an app of
    that name. (The label's answers too.)"""
    port = "" if settings.port == 80 else f":{settings.port}"
    own = app.label if tenant == DEFAULT_TENANT else app_label(app.name, tenant, plain=False)
    return f"http://{own}.{settings.domain}{port}/"
