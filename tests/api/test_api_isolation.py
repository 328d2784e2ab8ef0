"""Every route of the OpenAPI document, asked by somebody who may not: no answer tells whether a
thing is there that is another tenant's."""

import hashlib
import json
import re

import pytest

from isopod.model.principal import SCOPES

PACKAGE = b"acme's package"
DIGEST = hashlib.sha256(PACKAGE).hexdigest()
METHODS = ("get", "head", "post", "put", "patch", "delete")
# Of what a route must be sent beside its path, to get past the reading of its body.
BODIES = {
    ("POST", "/v1/apps/{name}/rollback"): {"version": None},
    ("PATCH", "/v1/apps/{name}/secrets"): {"unset": ["NOTHING"]},
    ("POST", "/v1/apps/{name}/learning"): {"for_s": 1},
    ("POST", "/v1/deploys"): {"package": "a" * 64, "name": "x"},
    ("POST", "/v1/tenants"): {"name": "somebody"},
    ("POST", "/v1/volumes"): {"name": "data"},
    ("PATCH", "/v1/volumes/{name}"): {"size_mib": 2},
    ("PATCH", "/v1/tenants/{name}"): {"suspended": True},
    ("POST", "/v1/members"): {"name": "bob"},
    ("POST", "/v1/tokens"): {"member": "nobody", "scopes": ["admin"]},
}
QUERIES = {"/v1/usage/statement": {"month": "2026-11"}}


class Route:
    """One method of one path of the document."""

    def __init__(self, method: str, path: str, about: dict) -> None:
        self.method, self.path = method.upper(), path
        self.scope = about.get("x-isopod-scope")

    def value(self, text: str) -> str:
        """What stands for `text` in the path: where a digest belongs, there is one."""
        is_digest = "{digest}" not in self.path or len(text) == 64
        return text if is_digest else hashlib.sha256(text.encode()).hexdigest()

    async def ask(self, api, value: str = "nowhere", **headers: str):
        """With `value` in place of whatever the path names."""
        value = self.value(value)
        body = BODIES.get((self.method, self.path))
        return await api.http.request(
            self.method,
            re.sub(r"\{\w+\}", value, self.path),
            json=body,
            params=QUERIES.get(self.path),
            content=None if body is not None or self.method != "PUT" else b"other bytes",
            headers={"x-request-id": "same", **headers},
        )

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"


async def every_route(api) -> list[Route]:
    paths = (await api.get("/v1/openapi.json"))["paths"]
    found = [
        Route(method, path, about)
        for path, methods in paths.items()
        for method, about in methods.items()
        if method in METHODS
    ]
    assert len(found) > 25
    return found


async def alike(route: Route, api, name: str, **headers: str) -> tuple:
    """All of an answer but the name that was asked for."""
    response = await route.ask(api, name, **headers)
    value = route.value(name)
    hidden = response.text.replace(value, "NAME").replace(value[:12], "NAME")
    headers = {k: v for k, v in response.headers.items() if k != "content-length"}
    return response.status_code, headers, hidden


def test_without_a_token_and_with_a_wrong_one_every_route_answers_the_same(
    opened, run, monkeypatch
):
    monkeypatch.setattr("isopod.api.attempts._WRONG_BURST", 10**6)

    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            await acme.deployed(PACKAGE, name="shop")
            strangers = [
                api.with_token(token)
                for token in ("", "wrong", f"ip_{'0' * 16}_{'a' * 43}", f"ip_{'0' * 16}_")
            ]
            for route in await every_route(api):
                if route.scope == "open":
                    continue
                for stranger in strangers:
                    there = await alike(route, stranger, "shop")
                    assert there[0] == 401, route
                    assert there == await alike(route, stranger, "none"), route

    run(main())


def test_every_route_says_what_scope_it_wants_and_refuses_every_other(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            await acme.deployed(PACKAGE, name="shop")
            routes = await every_route(api)
            for route in routes:
                assert route.scope in (*SCOPES, "operator", "any", "open"), route
                if route.scope in ("any", "open"):
                    continue
                for scopes in (set(SCOPES) - {route.scope}, {route.scope} & set(SCOPES)):
                    if not scopes:
                        continue
                    made = await api.token("acme", *sorted(scopes))
                    response = await route.ask(api.with_token(made["token"]), "shop")
                    refused = response.status_code == 403
                    if route.method != "HEAD" and refused:
                        error = json.loads(response.text.splitlines()[-1])["error"]
                        assert error["code"] == "forbidden", (route, error)
                    assert refused == (route.scope not in scopes), (route, scopes, response.text)

    run(main())


async def things_of(api, acme) -> dict[str, str]:
    """What acme has, by the parameter of a path that could name it."""
    await acme.deployed(PACKAGE, name="shop")
    token = (await acme.get("/v1/tokens"))["tokens"][0]["id"]
    return {"shop": "nothing", DIGEST: "1" * 64, token: "0" * 16, "alice2": "alice3"}


def test_another_tenants_things_are_told_like_things_that_are_nowhere(opened, run, monkeypatch):
    for burst in ("_CHANGES_BURST", "_REQUESTS_BURST"):  # all routes are more than a tenant may ask
        monkeypatch.setattr(f"isopod.api.attempts.{burst}", 10**6)

    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            await api.member("acme", "alice2")
            things = await things_of(api, acme)
            before = await state_of(acme)
            asked = 0
            for route in await every_route(api):
                if "{" not in route.path or route.scope == "operator":
                    continue
                for thing, nothing in things.items():
                    there = await alike(route, globex, thing)
                    assert there[0] >= 400, (route, thing, there)
                    assert there == await alike(route, globex, nothing), (route, thing)
                    asked += 1
            assert asked > 30
            assert await state_of(acme) == before

    run(main())


async def state_of(acme) -> list:
    """All that a tenant sees of itself, but when its token was used."""
    shown = [await acme.get(path) for path in ("/v1/apps", "/v1/apps/shop", "/v1/members")]
    tokens = (await acme.get("/v1/tokens"))["tokens"]
    return [*shown, [{**token, "last_used_at": None} for token in tokens]]


def test_naming_another_tenants_things_in_a_query_or_a_body_finds_nothing(opened, run):
    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            await acme.deployed(PACKAGE, name="shop")
            await api.member("acme", "bob")

            async def same(method: str, path: str, there: dict, nowhere: dict, body: bool) -> int:
                answers = []
                for asked in (there, nowhere):
                    how = {"json": asked} if body else {"params": asked}
                    response = await globex.http.request(
                        method, path, headers={"x-request-id": "same"}, **how
                    )
                    text = response.text
                    for value in asked.values():
                        text = text.replace(str(value)[:12], "VALUE")
                    answers.append((response.status_code, text))
                assert answers[0] == answers[1], path
                return answers[0][0]

            for path in ("/v1/usage", "/v1/usage/statement"):
                month = {"month": "2026-11"} if path.endswith("statement") else {}
                there, nowhere = {"tenant": "acme"} | month, {"tenant": "none"} | month
                assert await same("GET", path, there, nowhere, body=False) >= 400
            await same("GET", "/v1/usage", {"app": "shop"}, {"app": "none"}, body=False)
            token = {"scopes": ["read"]}
            there, nowhere = {"member": "bob"} | token, {"member": "eve"} | token
            assert await same("POST", "/v1/tokens", there, nowhere, body=True) == 404
            there, nowhere = {"package": DIGEST}, {"package": "1" * 64}
            assert await same("POST", "/v1/deploys", there, nowhere, body=True) == 404
            response = await globex.http.get("/v1/audit", params={"all_tenants": True})
            assert response.json()["error"]["code"] == "forbidden"

    run(main())


def test_the_operators_routes_tell_a_tenant_nothing(opened, run):
    async def main():
        async with opened() as api:
            await api.tenant("acme")
            globex = await api.tenant("globex")
            for route in await every_route(api):
                if route.scope != "operator":
                    continue
                there = await alike(route, globex, "acme")
                assert there[0] == 403, route
                assert there == await alike(route, globex, "none"), route

    run(main())


def test_no_header_lets_a_tenants_token_act_for_another(opened, run):
    async def main():
        async with opened() as api:
            await api.tenant("acme")
            globex = await api.tenant("globex")
            for route in await every_route(api):
                if route.scope == "open":
                    continue
                answers = []
                for tenant in ("acme", "default", "nobody", "Not a name!"):
                    headers = {"x-isopod-tenant": tenant}
                    status, shown, text = await alike(route, globex, "shop", **headers)
                    assert status == 404, (route, tenant)
                    answers.append((shown, text.replace(tenant, "TENANT")))
                assert answers == answers[:1] * 4, route
            own = {"x-isopod-tenant": "globex"}
            assert (await globex.http.get("/v1/apps", headers=own)).status_code == 200

    run(main())


def test_listings_logs_and_status_hold_nothing_of_another_tenant(opened, run):
    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            for caller in (acme, globex):
                await caller.deployed(PACKAGE, name="shop", env={"WHO": "x"})
            await acme.deployed(PACKAGE, name="secret-plan")
            logs = api.node.settings.logs_dir
            for label, text in (("shop", "acme said"), ("shop--globex", "globex said")):
                line = {"at": api.node.clock(), "app": label, "stream": "stdout", "message": text}
                (logs / f"{label}.jsonl").write_text(json.dumps(line) + "\n")
            for route in await every_route(api):
                if route.method != "GET" or route.scope in ("open", "operator"):
                    continue
                response = await route.ask(globex, "shop")
                for other in ("acme", "secret-plan", str(api.node.settings.data_dir)):
                    assert other not in response.text, (route, response.text)
            line = json.loads((await globex.http.get("/v1/apps/shop/logs")).text)
            assert (line["app"], line["message"]) == ("shop", "globex said")
            status = await globex.get("/v1/status")
            assert [app["name"] for app in status["apps"]] == ["shop"]
            assert status["workers"] == []
            for of_node in ("data_dir", "revision", "memory_budget_bytes", "host", "snapshots"):
                assert status[of_node] is None
            whole = await api.get("/v1/status")
            assert {(one["tenant"], one["name"]) for one in whole["apps"]} == {
                ("acme", "shop"),
                ("acme", "secret-plan"),
                ("globex", "shop"),
            }

    run(main())


def test_a_package_that_another_uploaded_is_not_there(opened, run):
    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            await acme.put(PACKAGE)
            assert (await globex.http.head(f"/v1/packages/{DIGEST}")).status_code == 404
            body = {"package": DIGEST, "name": "mine"}
            there = await globex.http.post("/v1/deploys", json=body)
            nowhere = await globex.http.post("/v1/deploys", json={**body, "package": "1" * 64})
            assert there.status_code == nowhere.status_code == 404
            assert there.json()["error"]["code"] == "not_found"
            await globex.put(PACKAGE)  # it has the bytes itself
            assert (await globex.http.head(f"/v1/packages/{DIGEST}")).status_code == 204
            assert (await globex.deployed(PACKAGE, name="mine"))["version"] == 1
            blobs = [path for path in api.node.blobs.root.rglob(DIGEST) if path.is_file()]
            assert len(blobs) == 1

    run(main())


@pytest.mark.parametrize("private", [True, False])
def test_no_build_and_no_image_of_another_tenant_is_taken_over(opened, run, tmp_path, private):
    """Else the time that a deploy takes would tell what others deploy, and with which secrets."""
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            image = hashlib.sha256(b"image").hexdigest()
            await api.put(b"image")
            snapshot = {"verdict": "sound", "image": image, "private": private}
            env = {"BUILDS": str(builds), "SNAPSHOT": json.dumps(full(snapshot)), "KEY": "guess"}
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            for number, caller in enumerate((acme, globex, api), start=1):
                result = await caller.deployed(PACKAGE, name="shop", env=env)
                assert result["built"], number
                assert len(builds.read_text().splitlines()) == number
            jobs = [json.loads(line) for line in builds.read_text().splitlines()]
            assert [job["reuse"] for job in jobs] == [None] * 3
            again = await acme.deployed(PACKAGE, name="twin", env=env)
            assert not again["built"]  # one's own are

    run(main())


def full(snapshot: dict) -> dict:
    from dataclasses import replace

    from isopod.model.snapshot import plain

    return replace(plain(""), **snapshot).to_json()


def test_names_are_each_tenants_own_and_so_are_their_addresses(opened, run):
    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            shown = []
            for caller in (acme, globex, api):
                result = await caller.deployed(PACKAGE, name="shop")
                assert (result["app"], result["version"]) == ("shop", 1)
                assert (await caller.get("/v1/apps"))["apps"][0]["url"] == result["url"]
                shown.append(result["url"])
            assert shown == [
                "http://shop--acme.localhost:8080/",
                "http://shop--globex.localhost:8080/",
                "http://shop--default.localhost:8080/",
            ]
            labels = {"shop": "acme", "shop--globex": "globex", "shop--default": "default"}
            for label, tenant in labels.items():
                assert api.routes.get(label).tenant == tenant
            rolled = await globex.http.post("/v1/apps/shop/rollback", json={"version": 1})
            assert rolled.json()["url"] == shown[1]
            assert (await acme.http.delete("/v1/apps/shop")).status_code == 200
            assert api.routes.get("shop") is None
            assert api.routes.get("shop--globex").tenant == "globex"
            # Kept for its tenant for a day: a visitor of the old one must not meet a stranger.
            late = await api.tenant("late")
            await late.deployed(PACKAGE, name="shop")
            assert api.routes.get("shop--late").tenant == "late"

    run(main())


def test_a_name_is_taken_within_the_tenant_only(opened, run):
    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            await acme.deployed(source="m:/a/hello")
            assert (await globex.deployed(source="m:/b/hello"))["app"] == "hello"
            error = (await globex.deploy(source="m:/c/hello"))[-1]["error"]
            assert error["code"] == "name_taken"
            assert "'/b/hello'" in error["message"]

    run(main())
