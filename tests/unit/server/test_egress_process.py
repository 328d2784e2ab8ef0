"""What the broker of connections reads of the routes."""

import asyncio
from dataclasses import replace

import pytest
from tests.unit.host.world import allow, echo, here, made_broker, server

from isopod.errors import StateBusy
from isopod.host.broker import AppGrant
from isopod.host.outside import OutsideError
from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.network import policy_from_json
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName
from isopod.routes import RouteTable, RouteWriter
from isopod.server.egress_process import Grants, OfOneTenant

ACME = Tenant(TenantName("acme"))


def test_a_policy_that_could_not_be_read_is_read_at_the_next_look(tmp_path, monkeypatch):
    path = tmp_path / "routes.db"
    writer = RouteWriter(path)
    spec = AppSpec(AppName("a"), "python", "app:app", {})
    digests = (Digest(letter * 64) for letter in "abc")
    writer.put(Route(AppName("a"), 1, *digests, spec, tenant=ACME.name))
    writer.put_tenant(ACME)
    grants = Grants(path)
    before = grants("a")
    assert before is not None
    assert before.bound is None

    def busy(_table: RouteTable) -> dict[TenantName, Tenant]:
        raise StateBusy("routes.db is locked")

    writer.put_tenant(replace(ACME, egress=policy_from_json([])))
    with monkeypatch.context() as patched:
        patched.setattr(RouteTable, "tenants", busy)
        assert grants("a") is None
    after = grants("a")
    assert after is not None
    assert after.bound == ()
    writer.close()


def test_a_tenants_own_worker_connects_as_no_other_tenants_app():
    async def main():
        async with server(echo) as port:
            listed = allow(f"127.0.0.1:{port}")
            apps = {"a": ("acme", listed), "z": ("zoo", listed)}
            broker = made_broker(apps, here(port))
            own = OfOneTenant(broker, lambda app: AppGrant(*apps[app]), "acme")
            (await own.connect("a", ["127.0.0.1"], "", port)).close()
            assert await own.resolve("a", "127.0.0.1", port) == ["127.0.0.1"]
            for asked in (
                own.connect("z", ["127.0.0.1"], "", port),
                own.connect("z", ["127.0.0.1"], "", port, datagrams=True),
                own.resolve("z", "127.0.0.1", port),
            ):
                with pytest.raises(OutsideError, match="EACCES"):
                    await asked
            broker.close()

    asyncio.run(main())
