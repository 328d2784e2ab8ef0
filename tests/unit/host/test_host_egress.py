"""The egress policy as a table of attacks, and the broker that applies it."""

import asyncio
import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.host.world import allow, made_broker

from isopod.host import addresses
from isopod.host.broker import BrokerLimits
from isopod.host.egress import PrivateGrant, Refused, check_listed, parse_wanted
from isopod.host.outside import OutsideError
from isopod.model.network import NetworkGrant, Target

LIST = allow(
    "api.example.com:443",
    "*.wild.example:443",
    "postgres:5432",
    "8.8.8.8:53",
    "[2001:4860:4860::8888]:53",
    "9.9.9.0/24:53",
    "bücher.example:443",
)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("api.example.com", 443),
        ("API.Example.COM.", 443),
        ("a.wild.example", 443),
        ("a.b.wild.example", 443),
        ("postgres", 5432),
        ("8.8.8.8", 53),
        ("::ffff:8.8.8.8", 53),
        ("2001:4860:4860:0::8888", 53),
        ("9.9.9.77", 53),
        ("xn--bcher-kva.example", 443),
        ("BÜCHER.example", 443),
        ("api\u3002example.com", 443),  # an ideographic full stop is a dot, to IDNA
    ],
)
def test_what_is_listed_may_be_connected_to(host, port):
    check_listed(parse_wanted(host, port), LIST)


REFUSED = [
    ("api.example.com", 80),
    ("example.com", 443),
    ("xapi.example.com", 443),
    ("api.example.com.evil.test", 443),
    ("api.example.com@evil.test", 443),
    ("api.example.com#evil.test", 443),
    ("api.example.com\0.evil.test", 443),
    ("api.example.com\n", 443),
    (" api.example.com", 443),
    ("api.example.com..", 443),
    ("wild.example", 443),
    ("evilwild.example", 443),
    ("*.wild.example", 443),
    (".wild.example", 443),
    ("a..wild.example", 443),
    ("", 443),
    (".", 443),
    ("8.8.8.9", 53),
    ("134744072", 53),  # 8.8.8.8 as a number
    ("0x08080808", 53),
    ("010.8.8.8", 53),
    ("8.8.2056", 53),
    ("8.8.8.8.", 5353),
    ("0x8.8.8.8", 53),
    ("\uff18.8.8.9", 53),
    ("fe80::1%eth0", 53),
    ("[2001:4860:4860::8888]", 53),
    ("2001:4860:4860::8844", 53),
    ("9.9.10.1", 53),
    ("a" * 64 + ".wild.example", 443),
    ("a." * 130 + "wild.example", 443),
    ("api.example.com", 0x1FFFF),
    ("api.example.com", -1),
]


@pytest.mark.parametrize(("host", "port"), REFUSED)
def test_what_is_not_listed_is_refused(host, port):
    with pytest.raises(Refused):
        check_listed(parse_wanted(host, port), LIST)


KINDS = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.1.2.3", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "private"),
    ("169.254.1.1", "link-local"),
    ("169.254.169.254", "cloud metadata"),
    ("100.100.100.200", "cloud metadata"),
    ("224.0.0.1", "multicast"),
    ("255.255.255.255", "reserved"),
    ("240.0.0.1", "reserved"),
    ("192.0.2.1", "reserved"),
    ("198.18.0.1", "private"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::127.0.0.1", "loopback"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "cloud metadata"),
    ("fe80::1", "link-local"),
    ("fec0::1", "private"),
    ("ff02::1", "multicast"),
    ("2001:db8::1", "reserved"),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b::a9fe:a9fe", "cloud metadata"),
    ("64:ff9b:1::808:808", "private"),
    ("2002:7f00:1::", "loopback"),
    ("2002:a00:1::1", "private"),
    ("2002:a9fe:a9fe::1", "cloud metadata"),
    ("2001::1", "reserved"),
    ("::ffff:0:127.0.0.1", "loopback"),
    ("2606:4700::5efe:10.0.0.1", "private"),
    ("2606:4700::200:5efe:10.0.0.1", "private"),
    ("1234::1", "reserved"),
    ("8.8.8.8", ""),
    ("172.32.0.1", ""),
    ("100.128.0.1", ""),
    ("2606:4700::1111", ""),
    ("64:ff9b::808:808", ""),
]


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_the_kind_of_an_address_is_seen_through_its_wrapping(text, kind):
    found = addresses.parse(text)
    assert found is not None
    assert addresses.special(found) == kind
    if found.version == 4:
        assert addresses.special(ipaddress.ip_address(f"::ffff:{text}")) == kind
        assert addresses.parse(f"::ffff:{text}") == found


@given(st.ip_addresses())
def test_whatever_python_calls_private_is_not_public_here(address):
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        embedded = getattr(address, "ipv4_mapped", None)
        assert addresses.special(embedded or address) or address in ipaddress.ip_network(
            "64:ff9b::/96" if address.version == 6 else "255.255.255.255/32"
        )


ENTRIES = [
    "api.example.com", "api.example.com:0", "api.example.com:65536", "api.example.com:https",
    "*:443", "*.com:443", "a.*.com:443", ":443", "http://api.example.com:443",
    "api.example.com:443/path", "1.2.3:80", "2130706433:80", "0x7f.1:80", "::1:80",
    "[fe80::1%eth0]:80", "10.0.0.1/8:80", "[::ffff:10.0.0.1]:80", "a b:80", "10.0.0.0/33:80",
]  # fmt: skip


@pytest.mark.parametrize("text", ENTRIES)
def test_an_entry_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match=r"must|has"):
        Target.parse(text)


def test_entries_are_written_as_they_are_read():
    texts = [
        "api.example.com:443", "*.wild.example:443", "8.8.8.8:53", "[2001:4860::1]:53",
        "10.0.0.0/8:5432", "[fd00::/8]:5432",
    ]  # fmt: skip
    grant = NetworkGrant(allow(*texts))
    assert grant.to_json() == {"allow": texts}
    assert NetworkGrant.from_json(grant.to_json()) == grant


def test_an_operators_grant_is_a_tenants():
    assert PrivateGrant.parse("postgres:5432").is_for("default")
    assert not PrivateGrant.parse("postgres:5432").is_for("acme")
    assert PrivateGrant.parse("acme/postgres:5432").is_for("acme")
    assert not PrivateGrant.parse("acme/postgres:5432").is_for("default")
    assert PrivateGrant.parse("*/cache:6379").is_for("acme")
    assert PrivateGrant.parse("10.0.0.0/8:5432").tenant == "default"
    assert PrivateGrant.parse("acme/10.0.0.0/8:5432").target.addresses


# -- the broker -----------------------------------------------------------------------------


def ask(use, *, listed=LIST, private=(), names=None, tenant="default", limits=None):
    """What `use(broker)` gives, with `names` as the world's DNS."""

    def look_up(name):
        found = (names or {}).get(name)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found() if callable(found) else found

    async def main():
        broker = made_broker(
            {"app": (tenant, listed), "other": ("other", ())},
            [PrivateGrant.parse(one) for one in private],
            look_up,
            limits,
        )
        try:
            return await use(broker)
        finally:
            broker.close()

    return asyncio.run(main())


def refusal(use, **how) -> OutsideError:
    with pytest.raises(OutsideError) as caught:
        ask(use, **how)
    return caught.value


def test_nothing_is_allowed_by_default_and_the_refusal_says_what_to_write():
    error = refusal(lambda broker: broker.resolve("app", "api.openai.com", 443), listed=())
    assert error.name == "EACCES"
    assert 'allow = ["api.openai.com:443"]' in error.text
    error = refusal(lambda broker: broker.connect("app", ["1.1.1.1"], "", 80), listed=())
    assert '"1.1.1.1:80"' in error.text


def test_an_app_that_is_not_there_may_nothing():
    error = refusal(lambda broker: broker.connect("gone", ["8.8.8.8"], "", 53))
    assert error.name == "EACCES"


def test_a_name_that_is_not_listed_is_not_looked_up():
    asked = []

    def spy():
        asked.append(1)
        return ["8.8.8.8"]

    refusal(lambda b: b.resolve("app", "secret.evil.test", 0), names={"secret.evil.test": spy})
    refusal(lambda b: b.connect("app", ["secret.evil.test"], "", 443))
    assert not asked


PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "169.254.169.254"),
    *("::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "fd00::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_listed_name_with_a_private_address_is_refused(address):
    names = {"api.example.com": [address]}
    for use in (
        lambda broker: broker.resolve("app", "api.example.com", 443),
        lambda broker: broker.connect("app", ["api.example.com"], "", 443),
        lambda broker: broker.connect("app", ["api.example.com"], address, 443),
    ):
        error = refusal(use, names=names)
        assert error.name == "EACCES"
        assert "operator" in error.text


def test_a_listed_address_that_is_private_is_refused_until_the_operator_grants_it():
    listed = allow("127.0.0.1:9", "10.0.0.5:5432")
    error = refusal(lambda broker: broker.connect("app", ["127.0.0.1"], "", 9), listed=listed)
    assert "loopback" in error.text


def test_a_name_that_changes_between_check_and_use_gains_nothing():
    answers = [["93.184.215.14"], ["127.0.0.1"], ["127.0.0.1"]]
    names = {"api.example.com": lambda: answers.pop(0)}

    async def use(broker):
        assert await broker.resolve("app", "api.example.com", 443) == ["93.184.215.14"]
        return await broker.connect("app", ["api.example.com"], "127.0.0.1", 443)

    assert refusal(use, names=names).name == "EACCES"


def test_an_address_that_is_none_of_the_names_is_refused():
    names = {"api.example.com": ["93.184.215.14"]}
    error = refusal(
        lambda broker: broker.connect("app", ["api.example.com"], "1.1.1.1", 443), names=names
    )
    assert "no address of" in error.text


def test_a_name_with_a_public_and_a_private_address_gives_the_public_one_only():
    names = {"api.example.com": ["10.0.0.1", "93.184.215.14"]}
    found = ask(lambda broker: broker.resolve("app", "api.example.com", 443), names=names)
    assert found == ["93.184.215.14"]
    refusal(lambda broker: broker.connect("app", ["api.example.com"], "10.0.0.1", 443), names=names)


def test_the_operators_grant_of_a_name_holds_for_its_tenant_and_port_only():
    names = {"postgres": ["10.0.0.5"]}
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        names["db"] = ["127.0.0.1"]
        listed = allow(f"db:{port}", "db:1")

        async def connect(broker):
            return await broker.connect("app", ["db"], "127.0.0.1", port)

        ask(connect, listed=listed, names=names, private=[f"db:{port}"]).close()
        ask(connect, listed=listed, names=names, private=[f"127.0.0.1:{port}"]).close()
        ask(connect, listed=listed, names=names, private=[f"127.0.0.0/8:{port}"]).close()
        for private, tenant in (
            ([f"db:{port}"], "acme"),
            ([f"other:{port}"], "default"),
            (["db:1"], "default"),
            ([f"acme/db:{port}"], "default"),
        ):
            error = refusal(connect, listed=listed, names=names, private=private, tenant=tenant)
            assert error.name == "EACCES"


def test_the_grant_of_a_name_is_none_of_the_metadata_service():
    names = {"postgres": ["169.254.169.254"]}
    use = lambda broker: broker.connect("app", ["postgres"], "", 5432)  # noqa: E731
    assert "metadata" in refusal(use, names=names, private=["postgres:5432"]).text


def test_one_app_has_nothing_of_what_another_is_allowed():
    names = {"api.example.com": ["93.184.215.14"]}

    async def use(broker):
        await broker.resolve("app", "api.example.com", 443)
        await broker.connect("other", ["api.example.com"], "93.184.215.14", 443)

    assert "may not connect" in refusal(use, names=names).text


def test_look_ups_are_bounded_and_fail_like_the_systems():
    names = {"api.example.com": ["93.184.215.14"]}
    assert refusal(lambda b: b.resolve("app", "a.wild.example", 443)).name == "EAI_NONAME"
    limits = BrokerLimits(lookups_per_s=1)

    async def many(broker):
        for _ in range(20):
            await broker.resolve("app", "api.example.com", 443)

    error = refusal(many, names=names, limits=limits)
    assert error.name == "EAI_AGAIN"


def test_a_peer_that_answers_nothing_is_given_up():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        port = where[1]
        listed, private = allow(f"127.0.0.1:{port}"), [f"127.0.0.1:{port}"]
        held = []
        try:
            for _ in range(4):  # its backlog is full: what follows gets no answer
                held.append(socket.socket())
                held[-1].setblocking(False)
                held[-1].connect_ex(where)
            error = refusal(
                lambda broker: broker.connect("app", ["127.0.0.1"], "", port),
                listed=listed,
                private=private,
                limits=BrokerLimits(connect_s=0.3),
            )
            assert error.name == "ETIMEDOUT"
        finally:
            for one in held:
                one.close()


def shown(text):
    """As the document writes it."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= 48 else f"{plain[:45]}..."


def test_the_document_holds_every_attack_of_these_tables():
    text = (Path(__file__).parents[3] / "docs" / "egress.md").read_text()
    attacks = [
        *(f"{shown(host)} {port}" for host, port in REFUSED),
        *(f"{shown(address)}` | {kind}" for address, kind in KINDS if kind),
        *(shown(entry) for entry in ENTRIES),
        *PRIVATE,
    ]
    assert not [one for one in attacks if f"`{one}" not in text]
