"""Tenants as the operator manages them: quota, suspension, end; and the audit log of it all."""

import asyncio
import hashlib
import os
import time

from isopod.model.tenant import DEFAULT_TENANT, TenantName


def error(response) -> str:
    return response.json()["error"]["code"]


def test_tenants_are_made_listed_changed_and_the_workers_told(opened, run):
    async def main():
        async with opened() as api:
            body = {"name": "acme", "quota": {"requests_per_s": 50}, "cordon": "shared"}
            made = (await api.http.post("/v1/tenants", json=body)).json()
            assert (made["quota"]["requests_per_s"], made["cordon"]) == (50, "shared")
            told = api.routes.tenants()[TenantName("acme")]
            assert (told.quota.requests_per_s, told.cordon) == (50, "shared")
            change = {"quota": {"apps": 3}}
            await api.http.patch("/v1/tenants/acme", json=change)
            told = api.routes.tenants()[TenantName("acme")]
            assert (told.quota.requests_per_s, told.quota.apps) == (50, 3)  # the rest stays
            listed = (await api.get("/v1/tenants"))["tenants"]
            assert [one["name"] for one in listed] == ["acme", "default"]
            assert (await api.get("/v1/tenants/acme"))["apps"] == 0
        async with opened() as api:  # written again at each start
            assert api.routes.tenants()[TenantName("acme")] == told
            assert DEFAULT_TENANT in api.routes.tenants()

    run(main())


def test_wrong_tenants_are_told_what_is_wrong(opened, run):
    async def main():
        async with opened() as api:
            await api.tenant("acme")
            for body, status, code in (
                ({"name": "acme"}, 409, "name_taken"),
                ({"name": "Not Good"}, 422, "name_invalid"),
                ({"name": "a--b"}, 422, "name_invalid"),
                ({"name": "x" * 33}, 422, "name_invalid"),
                ({"name": "b", "quota": {"cats": 1}}, 400, "usage"),
                ({"name": "b", "quota": {"apps": -1}}, 400, "usage"),
                ({"name": "b", "quota": {"apps": "many"}}, 400, "usage"),
                ({"name": "b", "cordon": "moat"}, 400, "usage"),
                ({}, 400, "usage"),
            ):
                response = await api.http.post("/v1/tenants", json=body)
                assert (response.status_code, error(response)) == (status, code), body
            for method, path in (
                ("GET", "/v1/tenants/none"),
                ("PATCH", "/v1/tenants/none"),
                ("DELETE", "/v1/tenants/none"),
            ):
                body = {"suspended": True} if method == "PATCH" else None
                response = await api.http.request(method, path, json=body)
                assert (response.status_code, error(response)) == (404, "tenant_not_found")
            response = await api.http.delete("/v1/tenants/default")
            assert error(response) == "usage"

    run(main())


def test_a_node_gives_so_many_tenants_a_worker_of_their_own_and_no_more(opened, run):
    async def main():
        async with opened(cordons=1) as api:
            for name in ("acme", "zoo"):
                await api.tenant(name)
            put = {"cordon": "tenant"}
            for _ in range(2):  # it has one already
                response = await api.http.patch("/v1/tenants/acme", json=put)
                assert (response.status_code, response.json()["cordon"]) == (200, "tenant")
            for response in (
                await api.http.patch("/v1/tenants/zoo", json=put),
                await api.http.post("/v1/tenants", json={"name": "fox", **put}),
            ):
                assert (response.status_code, error(response)) == (403, "quota_exceeded")
                assert "acme" not in response.text
            assert (await api.http.get("/v1/tenants/fox")).status_code == 404
            await api.http.patch("/v1/tenants/acme", json={"cordon": "shared"})
            assert (await api.http.patch("/v1/tenants/zoo", json=put)).status_code == 200

    run(main())


def test_a_suspended_tenant_may_look_and_change_nothing(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            await acme.deployed(name="shop")
            await api.http.patch("/v1/tenants/acme", json={"suspended": True})
            assert api.routes.tenants()[TenantName("acme")].suspended
            assert (await acme.get("/v1/apps"))["apps"][0]["name"] == "shop"
            for method, path in (
                ("DELETE", "/v1/apps/shop"),
                ("POST", "/v1/apps/shop/sleep"),
                ("POST", "/v1/tokens"),
                ("POST", "/v1/members"),
                ("PUT", f"/v1/packages/{'a' * 64}"),
            ):
                body = {"name": "bob"} if path == "/v1/members" else None
                if path == "/v1/tokens":
                    body = {"member": "alice", "scopes": ["read"]}
                response = await acme.http.request(method, path, json=body)
                assert (response.status_code, error(response)) == (403, "tenant_suspended")
            operator = api.with_token("right", **{"x-isopod-tenant": "acme"})
            assert (await operator.deployed(b"new", name="shop"))["version"] == 2
            await api.http.patch("/v1/tenants/acme", json={"suspended": False})
            assert (await acme.http.post("/v1/apps/shop/sleep")).status_code == 200

    run(main())


def test_the_admin_of_a_suspended_tenant_may_still_take_rights_away(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            await api.member("acme", "mallory")
            stolen = await api.token("acme", "deploy", member="alice")
            await api.token("acme", "deploy", member="mallory")
            await api.http.patch("/v1/tenants/acme", json={"suspended": True})
            assert {one["name"] for one in (await acme.get("/v1/members"))["members"]} == {
                "alice",
                "mallory",
            }
            assert stolen["id"] in {one["id"] for one in (await acme.get("/v1/tokens"))["tokens"]}
            assert (await acme.http.delete(f"/v1/tokens/{stolen['id']}")).status_code == 200
            removed = (await acme.http.delete("/v1/members/mallory")).json()
            assert removed["tokens_revoked"] == 1
            done = [one["action"] for one in (await acme.get("/v1/audit"))["entries"]]
            assert done[:2] == ["member.remove", "token.revoke"]
            reader = api.with_token((await api.token("acme", "read"))["token"])
            for path in ("/v1/tokens", "/v1/members", "/v1/audit"):  # it is still the admin's
                assert error(await reader.http.get(path)) == "forbidden"

    run(main())


def test_a_token_that_may_change_nothing_cannot_fill_the_audit_log(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            reader = api.with_token((await api.token("acme", "read"))["token"])
            for _ in range(60):
                assert (await reader.http.delete("/v1/apps/shop")).status_code == 403
            entries = (await acme.get("/v1/audit?limit=1000"))["entries"]
            assert sum(one["outcome"] == "forbidden" for one in entries) == 20
            then = time.monotonic() + 61
            api.node.refusals._buckets._clock = lambda: then
            last = (await acme.get("/v1/audit"))["entries"][0]
            assert (last["actor"], last["action"], last["outcome"]) == (
                "alice",
                "audit.left_out",
                "refused",
            )
            assert last["details"] == {"left_out": {"app.delete forbidden": 40}}

    run(main())


def test_a_suspension_that_comes_while_a_deploy_builds_ends_it(opened, run, tmp_path):
    gate, builds = tmp_path / "gate", tmp_path / "builds"
    os.mkfifo(gate)

    async def main():
        async with opened() as api:
            for name, change, code in (
                ("acme", {"suspended": True}, "tenant_suspended"),
                ("globex", None, "tenant_not_found"),
            ):
                caller = await api.tenant(name)
                env = {"MODE": "gate", "GATE": str(gate), "BUILDS": str(builds)}
                deploy = asyncio.create_task(caller.deploy(name="shop", env=env))
                while not builds.exists():
                    await asyncio.sleep(0.01)
                if change:
                    await api.http.patch(f"/v1/tenants/{name}", json=change)
                else:
                    await api.http.delete(f"/v1/tenants/{name}")
                await asyncio.to_thread(gate.write_bytes, b"")
                assert (await deploy)[-1]["error"]["code"] == code
                assert api.node.state.of(TenantName(name)).apps.all() == []
                builds.unlink()

    run(main())


def test_deleting_a_tenant_wants_force_when_it_has_apps_and_frees_no_name(opened, run):
    async def main():
        async with opened() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            for caller in (acme, globex):
                await caller.deployed(name="shop")
            log = api.node.settings.logs_dir / "shop.jsonl"
            log.write_text("{}\n")
            response = await api.http.delete("/v1/tenants/acme")
            assert (response.status_code, error(response)) == (409, "tenant_in_use")
            assert (await acme.http.get("/v1/apps")).status_code == 200
            response = await api.http.delete("/v1/tenants/acme", params={"force": True})
            assert response.json() == {"name": "acme", "deleted": True}
            assert api.routes.get("shop") is None
            assert TenantName("acme") not in api.routes.tenants()
            assert not log.exists()
            assert (await acme.http.get("/v1/apps")).status_code == 401
            assert (await globex.get("/v1/apps"))["apps"][0]["name"] == "shop"
            response = await api.http.post("/v1/tenants", json={"name": "acme"})
            assert error(response) == "name_taken"
            entries = (await api.get("/v1/audit?all_tenants=true"))["entries"]
            assert any(e["tenant"] == "acme" and e["action"] == "app.deploy" for e in entries)

    run(main())


def test_more_apps_than_the_quota_are_refused_and_a_new_version_is_none(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme", apps=2)
            for name in ("one", "two"):
                await acme.deployed(name=name)
            refused = (await acme.deploy(name="three"))[-1]["error"]
            assert refused["code"] == "quota_exceeded"
            assert refused["details"] == {"quota": "apps", "limit": 2, "used": 2}
            assert api.routes.get("three") is None
            assert (await acme.deployed(b"other", name="two"))["version"] == 2
            await acme.http.delete("/v1/apps/one")
            await acme.deployed(name="three")

    run(main())


def test_more_storage_than_the_quota_is_refused_and_the_old_version_serves_on(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme", storage_mib=3)
            await acme.deployed(b"a" * (2 << 20), name="one")
            # The same blobs again cost nothing; others do.
            await acme.deployed(b"a" * (2 << 20), name="two")
            refused = (await acme.deploy(b"b" * (2 << 20), name="three"))[-1]["error"]
            assert refused["code"] == "quota_exceeded"
            assert refused["details"] == {"quota": "storage_mib", "limit": 3, "used": 4}
            assert (await acme.http.get("/v1/apps/three")).status_code == 404
            await acme.http.delete("/v1/apps/two")
            live = await acme.deployed(b"b" * (3 << 20), name="one")
            response = await acme.http.post("/v1/apps/one/rollback", json={"version": None})
            assert response.json()["version"] == 1
            await api.http.patch("/v1/tenants/acme", json={"quota": {"storage_mib": 2}})
            response = await acme.http.post("/v1/apps/one/rollback", json={"version": 2})
            assert error(response) == "quota_exceeded"
            assert api.routes.get("one").digest != live["digest"]

    run(main())


def test_uploads_that_are_not_deployed_are_bounded_by_the_storage_too(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme", storage_mib=1)
            for letter in b"abcd":
                await acme.put(bytes([letter]) * (1 << 20))
            more = b"e" * (1 << 20)
            digest = hashlib.sha256(more).hexdigest()
            response = await acme.http.put(f"/v1/packages/{digest}", content=more)
            assert (response.status_code, error(response)) == (403, "quota_exceeded")
            assert not api.node.blobs.has(digest)
            assert list(api.node.settings.uploads_dir.iterdir()) == []
            await acme.deployed(b"a" * (1 << 20), name="one")  # in use now
            await acme.put(more)

    run(main())


def test_a_tenants_builds_leave_a_turn_to_others(opened, run, tmp_path):
    gate, builds = tmp_path / "gate", tmp_path / "builds"
    os.mkfifo(gate)

    async def main():
        async with opened(workers=1) as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            env = {"MODE": "gate", "GATE": str(gate), "BUILDS": str(builds)}
            packages = [await acme.put(b"%d" % number) for number in range(3)]
            waiting = [
                asyncio.create_task(
                    acme.http.post("/v1/deploys", json={"package": p, "name": f"a{n}", "env": env})
                )
                for n, p in enumerate(packages)
            ]
            while not builds.exists():
                await asyncio.sleep(0.01)
            assert (await globex.deployed(name="shop"))["version"] == 1
            assert len(builds.read_text().splitlines()) == 1  # of acme's three
            while waiting:
                await asyncio.to_thread(gate.write_bytes, b"")
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    assert '"result"' in task.result().text.splitlines()[-1]

    run(main())


def test_every_change_leaves_an_entry_with_who_what_when_and_from_where(opened, run):
    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            made = await api.token("acme", "read")
            await acme.deployed(b"one", name="shop")
            await acme.deployed(b"two", name="shop")
            await acme.http.post("/v1/apps/shop/rollback", json={"version": 1})
            await acme.http.post("/v1/apps/shop/sleep")
            await acme.deploy(b"one", name="bad", env={"MODE": "fail"})
            await acme.http.delete("/v1/apps/none")
            await acme.http.delete("/v1/apps/shop")
            await acme.http.post("/v1/members", json={"name": "bob"})
            await acme.http.delete("/v1/members/bob")
            await acme.http.delete(f"/v1/tokens/{made['id']}")
            await acme.http.get("/v1/tenants")  # a look: no entry
            await api.http.patch("/v1/tenants/acme", json={"quota": {"apps": 9}})
            reader = api.with_token((await api.token("acme", "read"))["token"])
            await reader.http.delete("/v1/apps/shop")
            entries = (await acme.get("/v1/audit"))["entries"][::-1]
            assert [(e["actor"], e["action"], e["target"], e["outcome"]) for e in entries] == [
                ("operator", "tenant.create", "acme", "ok"),
                ("operator", "member.add", "alice", "ok"),
                ("operator", "token.create", entries[2]["target"], "ok"),
                ("operator", "token.create", made["id"], "ok"),
                ("alice", "package.put", entries[4]["target"], "ok"),
                ("alice", "app.deploy", "shop", "ok"),
                ("alice", "package.put", entries[6]["target"], "ok"),
                ("alice", "app.deploy", "shop", "ok"),
                ("alice", "app.rollback", "shop", "ok"),
                ("alice", "app.sleep", "shop", "ok"),
                ("alice", "package.put", entries[4]["target"], "ok"),
                ("alice", "app.deploy", "bad", "app_syntax_error"),
                ("alice", "app.delete", "none", "app_not_found"),
                ("alice", "app.delete", "shop", "ok"),
                ("alice", "member.add", "bob", "ok"),
                ("alice", "member.remove", "bob", "ok"),
                ("alice", "token.revoke", made["id"], "ok"),
                ("operator", "tenant.change", "acme", "ok"),
                ("operator", "token.create", entries[18]["target"], "ok"),
                ("alice", "app.delete", "shop", "forbidden"),
            ]
            assert [e["id"] for e in entries] == sorted(e["id"] for e in entries)
            assert {e["address"] for e in entries} == {"127.0.0.1"}
            assert {bool(e["token_id"]) for e in entries if e["actor"] == "alice"} == {True}
            assert entries[7]["details"] == {"version": 2}
            assert entries[17]["details"]["quota"] == {"apps": 9}
            some = (await acme.get(f"/v1/audit?since={entries[8]['at']}&limit=3"))["entries"]
            assert [e["id"] for e in some] == [e["id"] for e in entries[-3:][::-1]]

    run(main())


def test_an_entry_is_there_exactly_when_its_change_is(opened, run, monkeypatch):
    """One transaction: where the entry cannot be written, nothing is done."""
    from isopod.errors import DiskFull
    from isopod.state.audit import Audit

    async def main():
        async with opened() as api:
            acme = await api.tenant("acme")
            await acme.deployed(b"one", name="shop")
            body = {"package": await acme.put(b"two"), "name": "shop"}

            def full(*_):
                raise DiskFull("the disk is full")

            with monkeypatch.context() as patch:
                patch.setattr(Audit, "add", full)
                response = await acme.http.post("/v1/deploys", json=body)
                assert '"disk_full"' in response.text.splitlines()[-1]
                for method, path in (
                    ("DELETE", "/v1/apps/shop"),
                    ("DELETE", "/v1/members/alice"),
                ):
                    assert (await acme.http.request(method, path)).status_code == 507, path
            assert (await acme.get("/v1/apps/shop"))["app"]["version"] == 1
            assert (await acme.get("/v1/members"))["members"][0]["tokens"] == 1

    run(main())
