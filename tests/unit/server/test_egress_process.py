"""What the broker of connections reads of the routes."""

from dataclasses import replace

from isopod.errors import StateBusy
from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.network import policy_from_json
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName
from isopod.routes import RouteTable, RouteWriter
from isopod.server.egress_process import Grants

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
