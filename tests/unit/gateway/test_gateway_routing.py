"""From a Host header to an app."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.headers import port_of
from isopod.gateway.router import app_name_of, hostname_of, route_of
from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.model.tenant import TenantName


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("shop.localhost", "shop"),
        ("SHOP.LocalHost:8080", "shop"),
        ("shop.localhost.", "shop"),
        ("shop.localhost..", None),
        ("a.localhost", "a"),
        ("localhost", None),
        ("localhost:8080", None),
        (".localhost", None),
        ("deep.shop.localhost", None),
        ("shop.localhost.evil.example", None),
        ("shoplocalhost", None),
        ("shop.other", None),
        ("-shop.localhost", None),
        ("sh_op.localhost", None),
        ("../etc.localhost", None),
        ("shöp.localhost", None),
        ("x" * 64 + ".localhost", None),
        ("127.0.0.1", None),
        ("[::1]:8080", None),
        (":80", None),
        ("", None),
    ],
)
def test_only_a_name_below_the_domain_is_an_app(host, name):
    assert app_name_of(hostname_of(host), "localhost") == name


def test_the_domain_may_have_several_labels():
    assert app_name_of("shop.apps.example.org", "apps.example.org") == "shop"
    assert app_name_of("shop.example.org", "apps.example.org") is None


@given(st.text())
def test_no_host_header_surprises_the_router(host):
    name = app_name_of(hostname_of(host), "localhost")
    assert name is None or name.isascii()
    assert 0 < port_of(host, "http") < 65536


@pytest.mark.parametrize(
    ("host", "scheme", "port"),
    [
        ("a.localhost:8080", "http", 8080),
        ("a.localhost", "http", 80),
        ("a.localhost", "https", 443),
        ("[::1]:9", "http", 9),
        ("[::1]", "http", 80),
        ("a.localhost:²", "http", 80),
        ("a.localhost:" + "9" * 60_000, "http", 80),
        ("a.localhost:0", "http", 80),
        ("a.localhost:65536", "http", 80),
    ],
)
def test_the_port_is_the_hosts_or_the_schemes(host, scheme, port):
    assert port_of(host, scheme) == port


def route(label: str, tenant: str) -> Route:
    spec, some = AppSpec(AppName(label), "python", "app:app"), Digest("a" * 64)
    return Route(spec.name, 1, some, some, some, spec, tenant=TenantName(tenant))


def test_a_tenants_own_address_finds_its_app_and_no_other_tenants():
    routes = {
        label: route(label, tenant)
        for label, tenant in [("shop", "acme"), ("shop--globex", "globex"), ("blog", "default")]
    }
    for label, tenant in (
        ("shop", "acme"),
        ("shop--acme", "acme"),
        ("shop--globex", "globex"),
        ("blog--default", "default"),
    ):
        assert route_of(label, routes.get).tenant == tenant
    for label in (
        *("blog--acme", "shop--default", "shop--nobody", "shop--", "--acme", "--", "nothing"),
        *("shop--acme--acme", "shop---acme", "shop-acme"),
    ):
        assert route_of(label, routes.get) is None
