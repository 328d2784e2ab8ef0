"""Which apps a worker finds, and which are for it."""

import pytest

from isopod.gateway.volumes import HeldVolumes
from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName
from isopod.routes import RouteTable, RouteWriter
from isopod.server import worker_routes
from isopod.server.worker_routes import WorkerRoutes

ACME = TenantName("acme")
ZOO = TenantName("zoo")


def route(name: str, tenant: TenantName, version: int = 1) -> Route:
    digest, spec = Digest("a" * 64), AppSpec(AppName(name), "python", "app:app")
    return Route(AppName(name), version, digest, digest, digest, spec, tenant=tenant)


@pytest.fixture
def writer(tmp_path):
    made = RouteWriter(tmp_path / "routes.db")
    made.replace_all(
        [route("shop", ACME), route("gate", ZOO)], [Tenant(ACME, cordon="tenant"), Tenant(ZOO)]
    )
    yield made
    made.close()


@pytest.fixture
def of(tmp_path, writer):
    """The routes of a shared worker, or of a tenant's own."""
    tables = []

    def make(tenant=None):
        table = RouteTable(tmp_path / "routes.db")
        tables.append(table)
        volumes = HeldVolumes(tmp_path / "volumes", worker=0)
        made = WorkerRoutes(table, tenant=tenant, volumes=volumes)
        made.read_tenants()
        return made

    yield make
    for table in tables:
        table.close()


def test_what_was_found_is_known_until_the_table_has_changed(of, writer):
    routes = of()
    assert routes.find("gate").version == 1 and routes.find("new") is None
    writer.put(route("gate", ZOO, 2), route("new", ZOO))
    assert routes.find("gate").version == 1 and routes.find("new") is None
    routes.forget()
    assert routes.find("gate").version == 2 and routes.find("new") is not None


def test_names_that_strangers_make_up_are_not_all_kept(of, monkeypatch):
    monkeypatch.setattr(worker_routes, "_MAX_KNOWN", 3)
    routes = of()
    for number in range(20):
        assert routes.find(f"nobody-{number}") is None
        assert len(routes._known) <= 3


def test_an_app_behind_a_cordon_is_for_its_tenants_own_worker_alone(of):
    shared, own = of(), of(ACME)
    shop, gate = shared.find("shop"), shared.find("gate")
    assert (shared.mine("shop"), shared.elsewhere(shop)) == (None, ACME)
    assert (own.mine("shop"), own.elsewhere(shop)) == (shop, None)
    assert (shared.mine("gate"), shared.elsewhere(gate)) == (gate, None)
    assert (own.mine("gate"), own.elsewhere(gate)) == (None, 0)
    assert shared.mine("nobody") is None
