"""Bills and statements over the API, from a real ledger."""

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from isopod.control.usage import look_at_storage
from isopod.metering.ledger import Batch, Ledger
from isopod.metering.rows import encode
from isopod.metering.statement import canonical, check
from isopod.model.ids import Digest
from isopod.model.snapshot import plain
from isopod.model.tenant import TenantName
from isopod.model.usage import UsageRecord
from isopod.settings_file import Prices

MONTH = "2026-10"
FIRST = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
DAY = 86_400
PERIOD = "from=2026-10-01&to=2026-10-31"
MS = 1_000_000


def answered(tenant="default", app="hello", at=FIRST + 3600.5, **amounts) -> UsageRecord:
    """A request that slept for two seconds and used three milliseconds."""
    values = {
        "cpu_ns": 3 * MS,
        "wall_ns": 2003 * MS,
        "wait_ns": 2000 * MS,
        "wall_100ms": 21,
        "bytes_out": 1000,
    }
    return UsageRecord(
        "request", at, TenantName(tenant), app, 1, "i", status=200, **(values | amounts)
    )


def used(node, *records: UsageRecord, epoch="0-a") -> None:
    settings = node.settings
    settings.usage_dir.mkdir(mode=0o700, exist_ok=True)
    with contextlib.closing(Ledger(settings.ledger_path, node="n")) as ledger:
        applied = ledger.apply([Batch(epoch, 1, encode(records))])
    assert applied.records == len(records) and not applied.refused


async def token_of(api, tenant: str, *scopes: str) -> dict[str, str]:
    """The headers of a new tenant's (or the default tenant's) token."""
    here = {"x-isopod-tenant": tenant}
    if tenant != "default":
        await api.http.post("/v1/tenants", json={"name": tenant})
    await api.http.post("/v1/members", json={"name": "ada"}, headers=here)
    body = {"member": "ada", "scopes": list(scopes)}
    made = await api.http.post("/v1/tokens", json=body, headers=here)
    assert made.status_code == 200, made.text
    return {"authorization": f"Bearer {made.json()['token']}"}


def test_a_bill_has_a_line_for_each_app_beside_its_wall_clock_bill(opened, run):
    async def body():
        async with opened() as api:
            used(
                api.node,
                answered(),
                answered(at=FIRST + 2 * DAY),
                answered(app="other", outcome="app_failed", cold=True),
                answered(at=FIRST - 1),  # the month before
            )
            found = await api.get(f"/v1/usage?{PERIOD}")
            assert (found["from"], found["to"]) == ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")
            assert [line["app"] for line in found["lines"]] == ["hello", "other"]
            hello, other = found["lines"]
            assert hello["usage"]["requests"] == 2 and hello["usage"]["cpu_ns"] == str(6 * MS)
            assert other["usage"]["errors"] == 1 and other["usage"]["cold_starts"] == 1
            cost = {name: Decimal(text) for name, text in hello["cost"].items()}
            assert cost["cpu"] == 6 * Decimal("0.00000002")
            assert cost["requests"] == 2 * Decimal("0.0000002")
            assert cost["wall_clock"] > 10 * cost["total"]  # waiting is free
            assert found["total"]["usage"]["requests"] == 3
            total = sum(Decimal(line["cost"]["total"]) for line in found["lines"])
            assert Decimal(found["total"]["cost"]["total"]) == total
            days = await api.get(f"/v1/usage?{PERIOD}&by=day&app=hello")
            assert [line["start"][:10] for line in days["lines"]] == ["2026-10-01", "2026-10-03"]
            hours = await api.get("/v1/usage?from=2026-10-01&to=2026-10-01&by=hour")
            assert [line["start"] for line in hours["lines"]] == ["2026-10-01T01:00:00Z"]

    run(body())


def test_a_tenant_sees_its_own_usage_and_never_that_another_exists(opened, run):
    async def body():
        async with opened() as api:
            acme = await token_of(api, "acme", "usage")
            used(
                api.node,
                answered(app="shop"),
                answered("acme", "shop--acme", cpu_ns=7 * MS),
                answered("acme", "blog"),
            )
            mine = (await api.http.get(f"/v1/usage?{PERIOD}", headers=acme)).json()
            shown = [(line["tenant"], line["app"]) for line in mine["lines"]]
            assert shown == [("acme", "blog"), ("acme", "shop")]  # their names, not their labels
            shop = (await api.http.get(f"/v1/usage?{PERIOD}&app=shop", headers=acme)).json()
            assert shop["total"]["usage"]["cpu_ns"] == str(7 * MS)
            bodies = []
            for query in ("tenant=default", "tenant=nobody"):
                for path in (f"/v1/usage?{PERIOD}", f"/v1/usage/statement?month={MONTH}"):
                    response = await api.http.get(f"{path}&{query}", headers=acme)
                    assert response.status_code == 404
                    said = response.json()["error"]
                    del said["request_id"]
                    bodies.append(json.dumps(said).replace(query[7:], "T"))
            assert len(set(bodies)) == 1
            everyone = await api.http.get(f"/v1/usage?{PERIOD}&tenant=*", headers=acme)
            assert everyone.json()["error"]["code"] == "forbidden"

            all_of_it = await api.get(f"/v1/usage?{PERIOD}&tenant=*")
            assert [line["tenant"] for line in all_of_it["lines"]] == ["acme", "acme", "default"]
            theirs = await api.get(f"/v1/usage?{PERIOD}&tenant=acme")
            assert theirs["lines"] == mine["lines"]
            gone = await api.http.delete("/v1/tenants/acme")
            assert gone.status_code == 200, gone.text
            assert (await api.get(f"/v1/usage?{PERIOD}&tenant=acme"))["lines"] == mine["lines"]
            assert await api.get(f"/v1/usage?{PERIOD}&tenant=*") == all_of_it
            missing = await api.http.get(f"/v1/usage?{PERIOD}&tenant=nobody")
            assert missing.json()["error"]["code"] == "tenant_not_found"

    run(body())


@pytest.mark.parametrize(
    "path", ["/v1/usage", f"/v1/usage/statement?month={MONTH}", "/v1/usage/key"]
)
def test_usage_is_denied_without_its_scope(opened, run, path):
    async def body():
        async with opened() as api:
            reader = await token_of(api, "default", "read", "deploy", "admin")
            response = await api.http.get(path, headers=reader)
            assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
            assert (await api.http.get(path, headers={"authorization": ""})).status_code == 401
            assert not api.node.settings.signing_key_path.exists()

    run(body())


def test_a_deleted_apps_usage_stays_and_an_unknown_app_is_told(opened, run):
    async def body():
        async with opened() as api:
            await api.deployed(name="hello")
            unused = await api.get(f"/v1/usage?{PERIOD}&app=hello")
            assert unused["lines"] == [] and unused["total"]["usage"]["requests"] == 0
            used(api.node, answered())
            await api.http.delete("/v1/apps/hello")
            kept = await api.get(f"/v1/usage?{PERIOD}&app=hello")
            assert kept["total"]["usage"]["requests"] == 1
            missing = await api.http.get(f"/v1/usage?{PERIOD}&app=other")
            assert missing.json()["error"]["code"] == "app_not_found"

    run(body())


def test_a_node_that_never_ran_an_app_has_an_empty_bill(opened, run):
    async def body():
        async with opened() as api:
            found = await api.get("/v1/usage")
            assert found["lines"] == [] and found["total"]["cost"]["total"] == "0.000000000000"

    run(body())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("from=yesterday", "neither a date nor a moment"),
        ("from=2026-11-31", "day"),
        ("from=2026-10-02&to=2026-10-01", "is not before"),
        ("from=2020-01-01&by=hour", "hours"),
        ("by=week", "'query.by'"),
        ("app=NO", "is not a DNS label"),
        ("tenant=A--B", "tenant name"),
    ],
)
def test_a_wrong_question_gets_a_clear_error(opened, run, query, said):
    async def body():
        async with opened() as api:
            response = await api.http.get(f"/v1/usage?{query}")
            assert response.status_code in (400, 422)
            assert said in response.json()["error"]["message"]

    run(body())


def test_a_statement_is_checked_with_the_nodes_public_key(opened, run):
    async def body():
        async with opened() as api:
            used(api.node, answered(), answered(at=FIRST + 30 * DAY), answered(at=FIRST + 31 * DAY))
            signed = await api.http.get(f"/v1/usage/statement?month={MONTH}")
            key = (await api.get("/v1/usage/key"))["public_key"]
            found = check(signed.content, key).statement
            assert found["tenant"] == "default" and found["period"]["over"] is True
            assert [line["usage"]["requests"] for line in found["lines"]] == [2]
            assert found["ledger"]["days"] == 2
            bill = await api.get(f"/v1/usage?{PERIOD}")
            assert found["total"]["cost"]["total"] == bill["total"]["cost"]["total"]
            private = api.node.settings.signing_key_path.read_text().strip()
            assert private not in signed.text and key not in private
            again = (await api.get(f"/v1/usage/statement?month={MONTH}"))["statement"]
            assert again | {"made_at": ""} == {**found, "made_at": ""}

    run(body())


def test_a_closed_months_statement_stays_the_same_when_prices_change(opened, run):
    async def body():
        async with opened() as api:
            node = api.node
            used(node, answered(), answered(at=FIRST - DAY))
            dear = replace(node.settings.prices, request=Decimal(1))

            def hold(prices, at):
                path = node.settings.ledger_path
                with contextlib.closing(Ledger(path, node="n", clock=lambda: at)) as ledger:
                    ledger.hold_prices(prices)

            hold(node.settings.prices, FIRST - DAY)
            hold(dear, FIRST + 10 * DAY - 5)
            path = f"/v1/usage/statement?month={MONTH}"
            first = (await api.get(path))["statement"]
            hold(replace(dear, request=Decimal(7)), FIRST + 40 * DAY)
            again = (await api.get(path))["statement"]
            assert canonical(again | {"made_at": ""}) == canonical(first | {"made_at": ""})
            assert [one["from"][:10] for one in first["price_sheets"]] == [
                "2026-10-01",
                "2026-10-11",
            ]
            bill = await api.get(f"/v1/usage?{PERIOD}")
            assert bill["total"]["cost"] == first["total"]["cost"]
            assert Decimal(bill["total"]["cost"]["requests"]) == Decimal("0.0000002")
            assert first["records"] == {"clock_corrected": 0, "missing": 0, "refused": 0}

    run(body())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("month=2026", "is not a month"),
        ("month=2126-01", "has not begun"),
        ("month=2026-10&tenant=*", "one tenant's"),
        ("", "'query.month'"),
    ],
)
def test_a_statement_of_no_month_is_refused(opened, run, query, said):
    async def body():
        async with opened() as api:
            response = await api.http.get(f"/v1/usage/statement?{query}")
            assert response.status_code == 400
            assert said in response.json()["error"]["message"]

    run(body())


def test_stored_snapshots_are_billed_by_the_hour_to_who_stores_them(opened, run):
    async def body():
        async with opened() as api:
            node = api.node
            size = 12_345_678
            taken = replace(
                plain(""), verdict="sound", image=Digest(await api.put(b"image")), blob_bytes=size
            )
            await api.deployed(name="hello", env={"SNAPSHOT": json.dumps(taken.to_json())})
            await api.deployed(b"other", name="bare")  # has none
            now = node.clock() // 3600 * 3600 + 60
            for later in (0, 300, 600):
                object.__setattr__(node, "clock", lambda later=later: now + later)
                look_at_storage(node)
            found = await api.get("/v1/usage")
            assert [line["app"] for line in found["lines"]] == ["hello"]
            assert found["total"]["usage"]["snapshot_byte_s"] == str(600 * size)
            assert Decimal(found["total"]["cost"]["snapshots"]) > 0

    run(body())


def test_volumes_are_billed_to_the_app_that_mounts_them_by_what_they_may_hold(opened, run):
    async def body():
        async with opened() as api:
            node = api.node
            for name, size in (("data", 10), ("more", 20), ("unused", 5)):
                made = await api.http.post("/v1/volumes", json={"name": name, "size_mib": size})
                assert made.status_code == 200, made.text
            mounts = [{"name": name, "mount": f"/{name}"} for name in ("data", "more")]
            await api.deployed(name="hello", env={"VOLUMES": json.dumps(mounts)})
            now = node.clock() // 3600 * 3600 + 60
            for later in (0, 300, 600):
                object.__setattr__(node, "clock", lambda later=later: now + later)
                look_at_storage(node)
            found = await api.get("/v1/usage")
            shown = [(line["app"], line["usage"]["volume_byte_s"]) for line in found["lines"]]
            assert shown == [("", str(600 * 5 << 20)), ("hello", str(600 * 30 << 20))]
            assert Decimal(found["total"]["cost"]["volumes"]) > 0
            month = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
            said = await api.get(f"/v1/usage/statement?month={month}")
            assert said["statement"]["total"]["usage"]["volume_byte_s"] == str(600 * 35 << 20)

    run(body())


def test_time_before_volumes_had_a_price_stays_free_of_it():
    sheet = Prices().to_json()
    del sheet["volume_gib_month"]
    assert Prices.from_json(sheet).volume_gib_month == 0
