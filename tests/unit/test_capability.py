"""What one version asks for beyond another, and what an operator's rule covers."""

import ipaddress

import pytest

from isopod.errors import CapabilitiesNew
from isopod.model.app import AppSpec
from isopod.model.capability import check_not_more, compare
from isopod.model.ids import AppName
from isopod.model.network import EgressRule, NetworkGrant, Target
from isopod.model.volume import VolumeMount


def spec(*allow: str, volumes=()) -> AppSpec:
    grant = NetworkGrant(tuple(Target.parse(one) for one in allow))
    return AppSpec(AppName("x"), "python", "app:app", network=grant, volumes=volumes)


@pytest.mark.parametrize(
    ("new", "old", "more"),
    [
        ("a.example.com:443", "*.example.com:443", False),
        ("b.a.example.com:443", "*.example.com:443", False),
        ("*.a.example.com:443", "*.example.com:443", False),
        ("*.example.com:443", "*.example.com:443", False),
        ("example.com:443", "*.example.com:443", True),
        ("*.example.com:443", "*.a.example.com:443", True),
        ("*.badexample.com:443", "*.example.com:443", True),
        ("a.example.com:80", "*.example.com:443", True),
        ("10.1.0.0/16:53", "10.0.0.0/8:53", False),
        ("10.0.0.0/8:53", "10.1.0.0/16:53", True),
        ("[2001:db8::1]:53", "[2001:db8::/32]:53", False),
        ("0.0.0.0/0:53", "[::/0]:53", True),
        ("10.0.0.1:53", "a.example.com:53", True),
    ],
)
def test_what_an_entry_covers_is_no_more(new, old, more):
    assert bool(compare(spec(new), spec(old)).added) is more
    assert EgressRule.parse(old).covers(Target.parse(new)) is not more
    if more:
        with pytest.raises(CapabilitiesNew, match=r"asks for more than its live version"):
            check_not_more(spec(new), spec(old))


def test_the_difference_is_told_both_ways():
    data = VolumeMount("data", "/data")
    diff = compare(spec("a.example.com:443", volumes=(data,)), spec("b.example.com:443"))
    assert diff.added == ["connect to a.example.com:443", "keep files in volume 'data' at /data"]
    assert diff.removed == ["connect to b.example.com:443"]
    assert compare(spec("a.example.com:1"), None).added == ["connect to a.example.com:1"]


@pytest.mark.parametrize(
    ("rule", "held", "refused"),
    [
        ("*:443", ("a.example.com", 443), ("a.example.com", 80)),
        ("*:*", ("10.0.0.1", 5432), None),
        ("db.example.com:*", ("db.example.com", 5432), ("a.example.com", 5432)),
        ("10.0.0.0/8:*", ("10.2.3.4", 1), ("11.0.0.1", 1)),
        ("[2001:db8::/32]:53", ("2001:db8::5", 53), ("2001:db9::5", 53)),
        ("*.example.com:443", ("a.example.com", 443), ("example.com", 443)),
    ],
)
def test_a_rule_holds_what_it_says(rule, held, refused):
    parsed = EgressRule.parse(rule)
    assert str(parsed) == rule and EgressRule.parse(str(parsed)) == parsed
    for wanted, expected in ((held, True), (refused, False)):
        if wanted is None:
            continue
        host, port = wanted
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        assert parsed.holds(host, address, port) is expected
        assert parsed.holds(host, address, 0) in (True, expected)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert parsed.covers(Target.parse(shown)) is expected


@pytest.mark.parametrize(
    "text", ["", "*", "*:", "*:0", "*:70000", "**:443", "a:**", ":443", "*.*:1"]
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(ValueError, match=r"must|is no|has"):
        EgressRule.parse(text)
