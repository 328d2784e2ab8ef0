"""The node, or a tenant's part of it, at a glance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from isopod import __version__
from isopod.control.apps import AppSummary, live_apps, summary
from isopod.control.node import Node
from isopod.control.workers import InstanceStatus
from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.model.tenant import TenantName
from isopod.state.apps import App


@dataclass(frozen=True, slots=True)
class WorkerSummary:
    worker: int
    pid: int
    instances: int
    memory_bytes: int
    rss_bytes: int
    sandbox: Mapping[str, list[str]]  # "on": the layers that hold; "missing": what is weaker
    tenant: str  # whose own it is; "": all share it


@dataclass(frozen=True, slots=True)
class SnapshotsSummary:
    """Apps whose snapshot was out of date since control started, in the last round."""

    total: int
    rebuilt: int
    failed: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`instances` counts them; `instance_list` names them.

    The operator sees the node with every tenant's apps. Anybody else sees the tenant's own
    figures; what is about the node is None or empty then. `memory_bytes` is private memory.
    """

    version: str
    tenant: str
    host: str | None
    domain: str
    gateway_port: int
    control_port: int | None
    data_dir: str | None
    revision: int | None
    workers_wanted: int
    workers: list[WorkerSummary]
    apps: list[AppSummary]
    instances: int
    memory_bytes: int
    memory_budget_bytes: int | None
    instance_list: list[InstanceStatus]
    snapshots: SnapshotsSummary | None


async def node_status(who: Principal, *, node: Node) -> NodeStatus:
    who.need("read")

    def read() -> tuple[list[tuple[TenantName, App, AppVersion]], int]:
        tenants = [who.tenant]
        if who.operator:
            tenants = [tenant.name for tenant in node.state.node.tenants.all()]
        apps = [(t, *pair) for t in tenants for pair in live_apps(t, node=node)]
        return apps, node.state.revision()

    (apps, revision), workers = await asyncio.gather(asyncio.to_thread(read), node.workers.status())
    names = {app.label: app.name for _, app, _ in apps}
    instances = [
        one if who.operator else replace(one, app=names[AppName(one.app)])
        for worker in workers
        for one in worker.instances
        if who.operator or one.app in names
    ]
    settings = node.settings
    mine = NodeStatus(
        version=__version__,
        tenant=who.tenant,
        host=None,
        domain=settings.domain,
        gateway_port=settings.port,
        control_port=None,
        data_dir=None,
        revision=None,
        workers_wanted=0,
        workers=[],
        apps=[summary(app, live, tenant, workers, settings) for tenant, app, live in apps],
        instances=len(instances),
        memory_bytes=sum(one.private_bytes for one in instances),
        memory_budget_bytes=None,
        instance_list=instances,
        snapshots=None,
    )
    if not who.operator:
        return mine
    return replace(
        mine,
        host=settings.host,
        control_port=settings.control_port,
        data_dir=str(settings.data_dir),
        revision=revision,
        workers_wanted=settings.workers,
        workers=[
            WorkerSummary(
                worker=w.worker,
                pid=w.pid,
                instances=len(w.instances),
                memory_bytes=w.memory_bytes,
                rss_bytes=w.rss_bytes,
                sandbox=w.sandbox,
                tenant=w.tenant,
            )
            for w in workers
        ],
        memory_bytes=sum(w.memory_bytes for w in workers),
        memory_budget_bytes=settings.memory_budget_mib * 2**20,
        snapshots=SnapshotsSummary(
            total=node.renewals.total, rebuilt=node.renewals.done, failed=node.renewals.failed
        ),
    )
