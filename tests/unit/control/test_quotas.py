"""What control tells the workers of today's usage, from a real ledger over a real socket."""

import asyncio
import json
import time
from dataclasses import replace

from isopod.control import quotas
from isopod.control.node import open_node
from isopod.metering.ledger import Batch, Ledger
from isopod.metering.rows import encode
from isopod.model.tenant import Quota, Tenant, TenantName
from isopod.model.usage import UsageRecord
from isopod.settings import NodeSettings

DAY = 86_400
NOON = (int(time.time()) // DAY) * DAY + DAY / 2


def used(tenant: str, at: float, **amounts) -> UsageRecord:
    return UsageRecord(
        kind="request",
        at=at,
        tenant=TenantName(tenant),
        app="a",
        version=1,
        instance="i",
        **amounts,
    )


def test_workers_are_told_todays_usage_of_tenants_with_a_quota_by_the_day(tmp_path):
    settings = NodeSettings(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    node = replace(open_node(settings), clock=lambda: NOON)
    settings.usage_dir.mkdir(exist_ok=True)
    ledger = Ledger(settings.ledger_path, node="n", clock=lambda: NOON)
    asked: list[dict] = []

    async def on_connection(reader, writer):
        asked.append(json.loads(await reader.readline()))
        writer.write(b"{}\n")
        await writer.drain()
        writer.close()

    async def main():
        path = settings.run_dir / "worker-0.sock"
        async with await asyncio.start_unix_server(on_connection, path):
            await quotas.tell_usage(node)

    try:
        for name, quota in (
            ("acme", Quota(cpu_s_per_day=10)),
            ("other", Quota(egress_mib_per_day=5)),
            ("rates", Quota(requests_per_s=5)),
        ):
            node.state.node.tenants.add(Tenant(TenantName(name), created_at=NOON, quota=quota))
        asyncio.run(main())
        day = int(NOON // DAY)
        assert asked == [
            {"op": "usage_today", "day": day, "tenants": {"acme": [0, 0], "other": [0, 0]}}
        ]
        ledger.apply(
            [
                Batch(
                    "0-e1",
                    1,
                    encode(
                        [
                            used("acme", NOON, cpu_ns=5_000, bytes_out=7),
                            used("acme", NOON - 60, cpu_ns=1_000),
                            used("acme", NOON - DAY, cpu_ns=90_000),  # yesterday
                            used("rates", NOON, cpu_ns=1),
                        ]
                    ),
                )
            ]
        )
        asyncio.run(main())
        assert asked[1]["tenants"] == {"acme": [6_000, 7], "other": [0, 0]}
    finally:
        ledger.close()
        node.state.close()


def test_a_node_without_a_ledger_has_nothing_to_tell(tmp_path):
    node = open_node(NodeSettings(data_dir=tmp_path, cache_dir=tmp_path / "cache"))
    asyncio.run(quotas.tell_usage(node))
    node.state.close()
