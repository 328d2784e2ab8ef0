"""What is noted of an app's connections is bounded, whatever the app asks for."""

import asyncio

from isopod.control.learning import propose
from isopod.host.outside import OutsideError
from isopod.host.reached import Noting, Reached
from isopod.model.network import Target


class Outside:
    async def resolve(self, _app, host, _port):
        raise OutsideError("EACCES", f"isopod: not {host}")

    async def connect(self, _app, hosts, _address, _port, *, datagrams):
        name = {"closed": "ECONNREFUSED", "private": "EACCES"}[hosts[0]]
        raise OutsideError(name, "why")


def test_what_was_tried_and_let_is_told_apart_from_what_was_refused():
    reached = Reached()
    noting = Noting(Outside(), reached)

    async def main():
        for call in (
            noting.connect("app", ["closed", "10.0.0.1"], "10.0.0.1", 5432),
            noting.connect("app", ["private"], "", 1),
            noting.resolve("app", "Unlisted.Example.com", 443),
        ):
            try:
                await call
            except OutsideError:
                continue
            raise AssertionError

    asyncio.run(main())
    seen = reached.seen("app")
    assert list(seen.connected) == ["closed:5432"]
    assert seen.refused == {
        "private:1": "why",
        "unlisted.example.com:443": "isopod: not Unlisted.Example.com",
    }


def test_an_app_that_asks_for_anything_fills_no_memory():
    reached = Reached()
    for number in range(2000):
        reached.note("app", f"host-{number}.example.com", 443)
        reached.note(f"app-{number}", "example.com", 443)
    for nonsense in ("", "a b", "x" * 70_000, "\n", "a..b", "\udc80"):
        reached.note("other", nonsense, 443)
        reached.note("other", "example.com", 70_000)
    assert len(reached.seen("app-1999").connected) == 1
    assert reached.seen("app-0").connected == {} and reached.seen("other").connected == {}
    assert len(reached.seen("app").connected) <= 100
    reached.forget("app")
    assert reached.seen("app").connected == {}


def test_the_proposed_list_is_what_was_used_and_no_wider():
    listed = [Target.parse(one) for one in ("*.example.com:443", "a.example.org:1")]
    used = ["b.example.com:443", "a.example.com:443", "[2001:db8::1]:53", "10.0.0.1:1", "looked.up"]
    allow, unused = propose(used, listed)
    assert allow == ["10.0.0.1:1", "[2001:db8::1]:53", "a.example.com:443", "b.example.com:443"]
    assert unused == ["a.example.org:1"]
