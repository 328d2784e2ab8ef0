"""Members and their tokens: scopes, expiry, revoking, and who guesses."""

import asyncio
import sqlite3
from contextlib import closing

import httpx
import pytest

from isopod.api.app import create_app


async def code(api, method: str, path: str, **request) -> tuple[int, str]:
    response = await api.http.request(method, path, **request)
    return response.status_code, response.json().get("error", {}).get("code", "")


def test_a_token_says_whose_it_is_and_what_it_allows(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme", "read", "usage")
            who = await acme.get("/v1/whoami")
            assert who.pop("token_id")
            assert who == {
                "name": "alice",
                "tenant": "acme",
                "scopes": ["read", "usage"],
                "operator": False,
                "suspended": False,
            }
            mine = await api.get("/v1/whoami")
            assert (mine["name"], mine["tenant"], mine["operator"]) == ("operator", "default", True)
            other = api.with_token("right", **{"x-isopod-tenant": "acme"})
            assert (await other.get("/v1/whoami"))["tenant"] == "acme"
            nobody = {"x-isopod-tenant": "nobody"}
            assert await code(api, "GET", "/v1/whoami", headers=nobody) == (404, "tenant_not_found")

    run(main())


def test_a_token_is_kept_as_a_hash_and_shown_once(opened, run, data_dir):
    async def main():
        async with opened() as api:
            await api.tenant("acme")
            made = await api.token("acme", "read")
            public, secret = made["token"].removeprefix("ip_").split("_", 1)
            assert made["id"] == public
            assert len(secret) == 43  # 256 bits
            headers = {"x-isopod-tenant": "acme"}
            shown = (await api.http.get("/v1/tokens", headers=headers)).text
            audit = (await api.http.get("/v1/audit", headers=headers)).text
            assert public in shown and public in audit
            assert secret not in shown + audit
        with closing(sqlite3.connect(data_dir / "state.db")) as db:
            assert secret not in "".join(db.iterdump())

    run(main())


@pytest.mark.parametrize("end", ["expired", "revoked", "member removed", "tenant deleted"])
def test_a_token_that_ended_is_worth_nothing(opened, run, end):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            made = await api.token("acme", "read", expires_in_s=60)
            caller = api.with_token(made["token"])
            assert (await caller.http.get("/v1/apps")).status_code == 200
            if end == "expired":
                then = api.node.clock() + 61
                object.__setattr__(api.node, "clock", lambda: then)
            elif end == "revoked":
                done = await acme.http.delete(f"/v1/tokens/{made['id']}")
                assert done.json() == {"id": made["id"], "revoked": True}
            elif end == "member removed":
                done = await acme.http.delete("/v1/members/alice")
                assert done.json() == {"name": "alice", "tokens_revoked": 2}
            else:
                await api.http.delete("/v1/tenants/acme")
            assert await code(caller, "GET", "/v1/apps") == (401, "unauthorized")

    run(main())


def test_a_token_cannot_give_what_it_has_not(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme", "admin", "read")
            for scopes, status in ((["read"], 200), (["admin", "read"], 200), (["deploy"], 403)):
                body = {"member": "alice", "scopes": scopes}
                assert (await acme.http.post("/v1/tokens", json=body)).status_code == status
            for body in (
                {"member": "alice", "scopes": []},
                {"member": "alice", "scopes": ["root"]},
                {"member": "alice", "scopes": ["read"], "expires_in_s": 0},
                {"member": "alice", "scopes": ["read"], "expires_in_s": 1e12},
                {"scopes": ["read"]},
            ):
                assert await code(acme, "POST", "/v1/tokens", json=body) == (400, "usage")
            body = {"member": "nobody", "scopes": ["read"]}
            assert await code(acme, "POST", "/v1/tokens", json=body) == (404, "member_not_found")
            assert await code(acme, "DELETE", "/v1/tokens/none") == (404, "token_not_found")

    run(main())


def test_what_a_token_makes_ends_no_later_than_itself(opened, run):
    async def main():
        async with opened() as api:
            await api.tenant("acme")
            brief = await api.token("acme", expires_in_s=3600)
            caller = api.with_token(brief["token"])
            for expires_in_s in (None, 90 * 86_400, 60):
                body = {"member": "alice", "scopes": ["admin"], "expires_in_s": expires_in_s}
                made = (await caller.http.post("/v1/tokens", json=body)).json()
                assert made["expires_at"] <= brief["expires_at"]
                if expires_in_s == 60:
                    assert made["expires_at"] < brief["expires_at"]
            child = api.with_token(made["token"])
            body = {"member": "alice", "scopes": ["admin"]}
            grandchild = (await child.http.post("/v1/tokens", json=body)).json()
            assert grandchild["expires_at"] == made["expires_at"]
            details = (await caller.get("/v1/audit"))["entries"][0]["details"]
            assert details["expires_at"] == made["expires_at"]

    run(main())


def test_members_and_tokens_are_bounded_and_what_ended_is_forgotten(opened, run, monkeypatch):
    monkeypatch.setattr("isopod.control.members._MOST", 3)
    monkeypatch.setattr("isopod.control.tokens._MOST", 4)

    async def main():
        async with opened() as api:
            now = {"at": api.node.clock()}
            object.__setattr__(api.node, "clock", lambda: now["at"])
            acme, _ = await api.tenant("acme"), await api.tenant("globex")
            for name in ("bob", "carol"):
                await api.member("acme", name)
            full = (403, "quota_exceeded")
            assert await code(acme, "POST", "/v1/members", json={"name": "dave"}) == full
            await api.member("globex", "dave")
            made = [await api.token("acme", "read", expires_in_s=60) for _ in range(3)]
            body = {"member": "alice", "scopes": ["read"]}
            assert await code(acme, "POST", "/v1/tokens", json=body) == full
            await api.token("globex", "read", member="dave")

            async def listed() -> int:
                return len((await acme.get("/v1/tokens"))["tokens"])

            await acme.http.delete(f"/v1/tokens/{made[0]['id']}")
            await api.token("acme", "read")  # there is room again
            now["at"] += 61  # two expire
            await api.token("acme", "read")
            assert await listed() == 6
            now["at"] += 89 * 86_400
            for _ in range(9):  # ended ones are bounded as well, the last stay
                gone = await api.token("acme", "read")
                await acme.http.delete(f"/v1/tokens/{gone['id']}")
            assert await listed() == 3 + 5  # one of the five ended since the last was made
            now["at"] += 86_400  # those that expire after 90 days do
            acme = api.with_token((await api.token("acme"))["token"])
            assert await listed() == 1 + 4  # alone of those that serve
            now["at"] += 91 * 86_400
            acme = api.with_token((await api.token("acme"))["token"])
            assert await listed() == 2  # itself, and one that expired a day ago

    run(main())


def test_members_are_listed_with_their_tokens_and_their_names_are_checked(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            assert (await acme.http.post("/v1/members", json={"name": "ci"})).status_code == 200
            found = (await acme.get("/v1/members"))["members"]
            assert [(one["name"], one["tokens"]) for one in found] == [("alice", 1), ("ci", 0)]
            for name, answer in (
                ("ci", (409, "name_taken")),
                ("operator", (422, "name_invalid")),
                ("a/b", (422, "name_invalid")),
                ("", (422, "name_invalid")),
                ("x" * 65, (422, "name_invalid")),
            ):
                assert await code(acme, "POST", "/v1/members", json={"name": name}) == answer
            assert await code(acme, "DELETE", "/v1/members/none") == (404, "member_not_found")

    run(main())


def test_the_last_use_is_noted_once_a_minute(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            now = api.node.clock()
            clock = {"now": now}
            object.__setattr__(api.node, "clock", lambda: clock["now"])

            async def used() -> float:
                return (await acme.get("/v1/tokens"))["tokens"][0]["last_used_at"]

            assert await used() == now
            revision = api.node.state.revision()
            clock["now"] = now + 59
            assert await used() == now
            assert api.node.state.revision() == revision
            clock["now"] = now + 61
            assert await used() == now + 61

    run(main())


def test_wrong_tokens_are_bounded_and_the_right_ones_from_there_still_work(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            made = await api.token("acme", "read")
            fresh = api.with_token(made["token"])  # never used before the flood
            revision = api.node.state.revision()
            answers = []
            for number in range(60):
                guess = f"ip_{number:016x}_{'a' * 43}" if number % 2 else f"guess{number}"
                answers.append(await api.with_token(guess).http.get("/v1/apps"))
            statuses = [answer.status_code for answer in answers]
            assert statuses[:20] == [401] * 20
            assert statuses[-30:] == [429] * 30
            assert answers[-1].json()["error"]["code"] == "too_many_requests"
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
            assert api.node.state.revision() == revision  # none of them was worth a write
            for caller in (api, acme, fresh):
                assert (await caller.http.get("/v1/apps")).status_code == 200
            # One token's secret is guessed no faster by naming the token.
            for letter in "abcdefghijklmnopqrstuvwxyz":
                guess = f"ip_{made['id']}_{letter * 43}"
                last = await api.with_token(guess).http.get("/v1/apps")
            assert last.status_code == 429
            assert await code(fresh, "GET", "/v1/apps") == (429, "too_many_requests")

    run(main())


def test_wrong_tokens_of_one_address_lock_no_other_out(opened, run):
    async def main():
        async with opened() as api:
            app = create_app(api.node, token="right")

            async def ask(address: str) -> int:
                transport = httpx.ASGITransport(app=app, client=(address, 1))
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://localhost"
                ) as http:
                    headers = {"authorization": "Bearer wrong"}
                    return (await http.get("/v1/apps", headers=headers)).status_code

            for number in range(25):  # one IPv6 host has all of these addresses
                last = await ask(f"2001:db8:1:2::{number:x}")
            assert last == 429
            assert await ask("2001:db8:1:3::1") == 401
            assert await ask("10.0.0.7") == 401

    run(main())


def test_a_tenants_requests_are_bounded_and_the_operators_are_not(opened, run, monkeypatch):
    for what, amount in (("CHANGES", 10), ("REQUESTS", 30)):
        monkeypatch.setattr(f"isopod.api.attempts._{what}_BURST", amount)
        monkeypatch.setattr(f"isopod.api.attempts._{what}_PER_S", 0.01)

    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")

            async def ask(caller, times: int) -> list[int]:
                answers = [await caller.http.get("/v1/whoami") for _ in range(times)]
                assert all(one.headers["retry-after"] for one in answers if one.is_error)
                return [one.status_code for one in answers]

            assert (await ask_changes(acme, 12))[-3:] == [404, 429, 429]
            assert set(await ask(acme, 18)) == {200}
            assert await ask(acme, 2) == [429, 429]
            assert await ask(globex, 1) == [200]
            assert set(await ask_changes(api, 40)) == {404}

    async def ask_changes(caller, times: int) -> list[int]:
        return [(await caller.http.post("/v1/apps/none/sleep")).status_code for _ in range(times)]

    run(main())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"origin": "http://hello.localhost"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://localhost", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "http://localhost", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
    ],
)
def test_what_a_page_of_another_origin_sends_is_refused_even_with_a_token(
    opened, run, headers, status
):
    async def main():
        async with opened() as api:
            for path in ("/v1/apps", "/v1/health"):
                assert (await api.http.get(path, headers=headers)).status_code == status
            asked = {**headers, "access-control-request-method": "DELETE"}
            preflight = await api.http.options("/v1/apps/hello", headers=asked)
            assert not any(name.startswith("access-control") for name in preflight.headers)

    run(main())


def test_many_right_requests_at_once_are_no_guesses(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            found = await asyncio.gather(*(acme.http.get("/v1/whoami") for _ in range(60)))
            assert {one.status_code for one in found} == {200}

    run(main())
