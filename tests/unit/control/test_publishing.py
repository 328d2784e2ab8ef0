"""Which workers can read which routes."""

from dataclasses import replace
from pathlib import Path

import pytest

from isopod.control.log_files import log_paths
from isopod.control.publishing import PublishedRoutes
from isopod.errors import QuotaExceeded, StateCorrupt
from isopod.model.app import AppSpec, Isolation
from isopod.model.cordon import own_worker
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName
from isopod.model.volume import MountedVolume
from isopod.routes import RouteTable
from isopod.server.data_dir import prepare_data_dir
from isopod.settings import NodeSettings
from isopod.volumes.lease import VolumeFolder
from isopod.volumes.places import Places

ACME, ZOO = TenantName("acme"), TenantName("zoo")
SHARED = {name: Tenant(name) for name in (ACME, ZOO)}
OWN = {name: Tenant(name, cordon="tenant") for name in (ACME, ZOO)}


def route(name: str, tenant: TenantName = ACME, *, version: int = 1, wary: bool = False) -> Route:
    isolation = Isolation(cordon="tenant" if wary else "shared")
    spec = AppSpec(AppName(name), "python", "app:app", {"KEY": "secret"}, isolation=isolation)
    digests = (Digest(letter * 64) for letter in "abc")
    return Route(
        AppName(name), version, *digests, spec, tenant=tenant, secrets={"PASSWORD": "sealed"}
    )


class Published:
    """What control wrote, as workers read it."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.routes = PublishedRoutes(settings)

    def shared(self, name: str) -> Route | None:
        return self._read(self.settings.routes_path, name)

    def own(self, tenant: TenantName, name: str) -> Route | None:
        return self._read(self._path(tenant), name)

    def wanted(self) -> set[str]:
        """Who has a worker, as the supervisor sees it."""
        return {path.parts[-3] for path in self.settings.cordons_dir.glob("*/routes/routes.db")}

    def _path(self, tenant: TenantName) -> Path:
        return self.settings.cordons_dir / tenant / "routes" / "routes.db"

    def _read(self, path: Path, name: str) -> Route | None:
        table = RouteTable(path)
        try:
            return table.get(name)
        finally:
            table.close()

    def tenant(self, tenant: Tenant, *routes: Route) -> None:
        self.routes.put_tenant(tenant, lambda: routes)


@pytest.fixture
def node(tmp_path):
    settings = NodeSettings(data_dir=tmp_path / "node", cache_dir=tmp_path / "cache", cordons=1)
    prepare_data_dir(settings)
    published = Published(settings)
    published.routes.replace_all((), SHARED.values())
    yield published
    published.routes.close()


def test_an_app_or_its_tenant_asks_for_a_cordon():
    assert own_worker(route("a"), None) is None
    assert own_worker(route("a"), SHARED[ACME]) is None
    assert own_worker(route("a"), OWN[ACME]) == ACME
    assert own_worker(route("a", wary=True), SHARED[ACME]) == ACME
    assert own_worker(route("a", wary=True), None) == ACME


def test_shared_workers_read_of_a_cordoned_app_what_hands_it_over_and_no_settings(node):
    node.routes.put(route("open"), route("wary", wary=True))
    assert node.shared("open") == route("open")
    assert node.own(ACME, "open") is None
    assert node.own(ACME, "wary") == route("wary", wary=True)
    stub = node.shared("wary")
    assert stub is not None
    assert (stub.spec.env, stub.secrets, stub.snapshot) == ({}, {}, None)
    assert (stub.tenant, own_worker(stub, None)) == (ACME, ACME)


def test_a_tenant_reads_nothing_of_anothers(node):
    node.routes.put(route("a", ACME, wary=True), route("z", ZOO, wary=True))
    assert node.own(ACME, "a")
    assert node.own(ZOO, "z")
    assert node.own(ACME, "z") is node.own(ZOO, "a") is None
    table = RouteTable(node.settings.cordons_dir / "acme" / "routes" / "routes.db")
    assert list(table.tenants()) == [ACME]
    table.close()


def test_a_worker_is_wanted_from_the_first_cordoned_app_to_the_last(node):
    assert node.wanted() == set()
    node.routes.put(route("a", wary=True))
    node.routes.put(route("b", wary=True))
    node.routes.put(route("a", version=2))
    assert (node.wanted(), node.own(ACME, "a")) == ({"acme"}, None)
    assert node.shared("a") == route("a", version=2)
    node.routes.remove("b")
    assert node.wanted() == set()
    assert node.shared("b") is None


def test_all_apps_of_a_tenant_move_with_its_setting(node):
    apps = route("a"), route("b")
    node.routes.put(*apps, route("z", ZOO))
    files = node.settings.routes_path.parent
    assert any(b'"KEY": "secret"' in path.read_bytes() for path in files.iterdir())
    node.routes.remove("z")
    node.tenant(OWN[ACME], *apps)
    assert not any(b'"KEY": "secret"' in path.read_bytes() for path in files.iterdir())
    node.routes.put(route("z", ZOO))
    assert [node.own(ACME, name) for name in "ab"] == list(apps)
    assert node.shared("a").spec.env == {}
    assert node.shared("z") == route("z", ZOO)
    node.tenant(replace(OWN[ACME], suspended=True))  # which moves nothing
    assert node.own(ACME, "a") == apps[0]
    node.tenant(SHARED[ACME], *apps)
    assert [node.shared(name) for name in "ab"] == list(apps)
    assert node.wanted() == set()


def test_an_apps_log_goes_along(node):
    log = node.settings.logs_dir / "a.jsonl"
    log.write_text("1\n")
    log.with_name("a.jsonl.1").write_text("0\n")
    node.routes.put(route("a", wary=True))
    older, current = log_paths(node.settings, ACME, AppName("a"))
    assert (older.read_text(), current.read_text()) == ("0\n", "1\n")
    assert "acme" in current.parts
    assert not log.exists()
    node.routes.put(route("a"))
    assert log_paths(node.settings, ACME, AppName("a")) == (log.with_name("a.jsonl.1"), log)
    assert log.read_text() == "1\n"


def test_control_that_begins_again_makes_the_files_hold_what_state_holds(node):
    node.routes.put(route("a", wary=True), route("z", ZOO, wary=True))
    node.routes.close()
    again = Published(node.settings)
    again.routes.replace_all([route("z", ZOO, wary=True), route("a")], SHARED.values())
    assert again.wanted() == {"zoo"}
    assert again.own(ZOO, "z") == route("z", ZOO, wary=True)
    assert again.shared("a") == route("a")
    again.routes.close()


def test_a_version_whose_route_cannot_be_written_leaves_the_one_before(node):
    node.routes.put(route("a", wary=True))
    shared = node.settings.routes_path
    whole = shared.read_bytes()
    shared.write_bytes(b"damaged" * 1000)
    with pytest.raises(StateCorrupt):
        node.routes.put(route("a", version=2, wary=True))
    assert node.own(ACME, "a").version == 1
    shared.write_bytes(whole)


def test_so_many_tenants_have_a_worker_and_no_more(node):
    node.routes.room_for(ACME)
    node.routes.put(route("a", wary=True))
    node.routes.room_for(ACME)
    with pytest.raises(QuotaExceeded) as caught:
        node.routes.room_for(ZOO)
    assert "acme" not in f"{caught.value.message} {caught.value.hint} {caught.value.details}"


def with_volume(one: Route) -> Route:
    return replace(one, volumes=(MountedVolume("data", "/data", 1),))


def test_volumes_are_awaited_where_their_app_goes_and_the_mover_is_told(tmp_path):
    settings = NodeSettings.load(data_dir=tmp_path / "data")
    prepare_data_dir(settings)
    places = Places(settings.volumes_dir, settings.apart_volumes_dir)
    places.make(ACME, "data", apart=False)
    there = VolumeFolder.of(settings.apart_volumes_dir, ACME, "data")
    routes = PublishedRoutes(settings)
    routes.replace_all([with_volume(route("shop"))], SHARED.values())
    routes.to_move.clear()
    assert (routes.keeps_apart("shop"), there.coming.exists()) == (False, False)
    routes.put_tenant(OWN[ACME], lambda: [with_volume(route("shop"))])
    assert (routes.keeps_apart("shop"), there.coming.exists()) == (True, True)
    assert routes.to_move == {ACME}
    # A version that is tried decides for as long as it is.
    routes.put_tenant(SHARED[ACME], lambda: [with_volume(route("shop"))])
    assert not routes.keeps_apart("shop")
    own = routes.stage(with_volume(route("shop", version=2, wary=True)), "shop~next")
    assert (own, routes.keeps_apart("shop")) == (ACME, True)
    routes.unstage("shop~next", own, follows=False)
    assert not routes.keeps_apart("shop")
    routes.close()
