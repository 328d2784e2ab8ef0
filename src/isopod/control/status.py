"""The node at a glance."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from isopod import __version__
from isopod.control.apps import AppSummary, list_apps
from isopod.control.node import Node
from isopod.control.workers import InstanceStatus
from isopod.model.principal import Principal


@dataclass(frozen=True, slots=True)
class WorkerSummary:
    worker: int
    pid: int
    instances: int
    memory_bytes: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotsSummary:
    """Apps whose snapshot was out of date since control started, in the last round."""

    total: int
    rebuilt: int
    failed: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`instances` counts them; `instance_list` names them."""

    version: str
    host: str
    domain: str
    gateway_port: int
    control_port: int
    data_dir: str
    revision: int
    workers_wanted: int
    workers: list[WorkerSummary]
    apps: list[AppSummary]
    instances: int
    memory_bytes: int
    memory_budget_bytes: int
    instance_list: list[InstanceStatus]
    snapshots: SnapshotsSummary


async def node_status(who: Principal, *, node: Node) -> NodeStatus:
    apps, workers = await asyncio.gather(list_apps(who, node=node), node.workers.status())
    instances = [one for worker in workers for one in worker.instances]
    settings = node.settings
    return NodeStatus(
        version=__version__,
        host=settings.host,
        domain=settings.domain,
        gateway_port=settings.port,
        control_port=settings.control_port,
        data_dir=str(settings.data_dir),
        revision=await asyncio.to_thread(node.state.revision),
        workers_wanted=settings.workers,
        workers=[
            WorkerSummary(w.worker, w.pid, len(w.instances), w.memory_bytes, w.rss_bytes)
            for w in workers
        ],
        apps=apps,
        instances=len(instances),
        memory_bytes=sum(w.memory_bytes for w in workers),
        memory_budget_bytes=settings.memory_budget_mib * 2**20,
        instance_list=instances,
        snapshots=SnapshotsSummary(
            total=node.renewals.total, rebuilt=node.renewals.done, failed=node.renewals.failed
        ),
    )
