"""/v1/usage: what a tenant used and owes, and its signed statements."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from isopod.api.context import TheNode, Who, needs
from isopod.control.usage import read_statement, read_usage, signing_key
from isopod.metering.signing import ALGORITHM

router = APIRouter(prefix="/v1/usage", tags=["usage"])


class UsageAmounts(BaseModel):
    """Amounts as decimal text: a month's are more than JSON readers keep exact."""

    requests: int
    cold_starts: int = Field(description="requests that waited for a start")
    starts: int
    errors: int
    cpu_ns: str = Field(description="of guests, in requests and starts")
    host_ns: str = Field(description="the node's own work for them; not billed")
    wall_ns: str
    wait_ns: str
    wall_100ms: str = Field(description="units of 100 ms, each request rounded up")
    memory_byte_ms: str = Field(description="private memory of live instances times time")
    bytes_in: str
    bytes_out: str
    peak_memory_bytes: str
    snapshot_byte_s: str = Field(description="stored snapshots times time")
    volume_byte_s: str = Field(description="what volumes may hold times time")


class CostAmounts(BaseModel):
    """Decimal text in the currency of the price sheet, 12 places."""

    cpu: str
    memory: str
    requests: str
    egress: str
    snapshots: str
    volumes: str
    wall_clock: str = Field(description="what the same traffic costs billed by wall-clock time")
    total: str
    saved: str = Field(description="wall_clock - total")


class BillLine(BaseModel):
    tenant: str
    app: str = Field(
        description='"" for all of the tenant\'s; by app, for volumes that none mounts'
    )
    start: str | None = Field(description="of the day or hour, UTC")
    usage: UsageAmounts
    cost: CostAmounts


class BillTotal(BaseModel):
    usage: UsageAmounts
    cost: CostAmounts


class PriceSheet(BaseModel):
    since: str = Field(alias="from")
    prices: dict[str, str | int]


class UsageBill(BaseModel):
    since: str = Field(alias="from")
    to: str
    by: str
    prices: dict[str, str | int] = Field(description="the latest of price_sheets")
    price_sheets: list[PriceSheet]
    lines: list[BillLine]
    total: BillTotal


class PublicKey(BaseModel):
    algorithm: str
    key_id: str
    public_key: str = Field(description="64 hexadecimal digits")


Tenant = Annotated[
    str, Query(max_length=64, description='none: the token\'s; the operator: any, or "*" for all')
]


@router.get("", openapi_extra=needs("usage"))
async def usage(
    *,
    who: Who,
    node: TheNode,
    tenant: Tenant = "",
    app: Annotated[str, Query(max_length=100, description="none: all of the tenant's")] = "",
    since: Annotated[
        str,
        Query(alias="from", max_length=40, description="date or moment, UTC; none: this month's"),
    ] = "",
    to: Annotated[
        str, Query(max_length=40, description="a date includes that day; none: now")
    ] = "",
    by: Literal["app", "day", "hour"] = "app",
) -> UsageBill:
    """The bill of a period, beside what the same traffic would cost billed by wall-clock time."""
    bill = await read_usage(who, tenant=tenant, app=app, since=since, until=to, by=by, node=node)
    return UsageBill.model_validate(bill.to_json())


@router.get("/statement", openapi_extra=needs("usage"))
async def statement(
    who: Who,
    node: TheNode,
    month: Annotated[str, Query(max_length=40, description="2026-11")],
    tenant: Tenant = "",
) -> dict[str, Any]:
    """A tenant's month, signed with the node's key over its canonical JSON (RFC 8785)."""
    return await read_statement(who, tenant=tenant, month=month, node=node)


@router.get("/key", openapi_extra=needs("usage"))
async def key(who: Who, node: TheNode) -> PublicKey:
    """The public key that checks this node's statements."""
    found = await signing_key(who, node=node)
    return PublicKey(algorithm=ALGORITHM, key_id=found.key_id, public_key=found.public_key)
