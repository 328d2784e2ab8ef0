import pytest


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic right", "right"])
def test_without_the_token_nothing_is_told(opened, run, header):
    async def main():
        async with opened() as api:
            for path in ("/v1/status", "/v1/apps", "/v1/openapi.json", "/nothing"):
                response = await api.http.get(path, headers={"authorization": header})
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "unauthorized"
                assert response.headers["www-authenticate"] == "Bearer"

    run(main())


def test_health_needs_no_token(opened, run):
    async def main():
        async with opened() as api:
            response = await api.http.get("/v1/health", headers={"authorization": ""})
            assert response.json()["ok"] is True

    run(main())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8081", 200),
        ("127.0.0.1:8081", 200),
        ("[::1]:8081", 200),
        ("LOCALHOST", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.5", 421),
        ("", 421),
    ],
)
def test_only_its_own_names_are_answered(opened, run, host, status):
    async def main():
        async with opened() as api:
            response = await api.http.get("/v1/health", headers={"host": host})
            assert response.status_code == status

    run(main())


def test_a_configured_name_and_on_every_address_any_address_is_answered(opened, run):
    async def main():
        async with opened(control_host="0.0.0.0", control_names=("node.lan",)) as api:
            for host, status in (("node.lan:1", 200), ("10.0.0.5", 200), ("evil.example", 421)):
                response = await api.http.get("/v1/health", headers={"host": host})
                assert response.status_code == status

    run(main())


def test_each_answer_carries_the_request_id(opened, run):
    async def main():
        async with opened() as api:
            response = await api.http.get("/v1/apps/x", headers={"x-request-id": "abc-1"})
            assert response.headers["x-request-id"] == "abc-1"
            assert response.json()["error"]["request_id"] == "abc-1"
            made = await api.http.get("/v1/apps", headers={"x-request-id": "no\tgood!"})
            assert made.headers["x-request-id"] not in ("", "no\tgood!")

    run(main())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("PATCH", "/v1/apps", 405, "method_not_allowed"),
        ("GET", "/v1/apps/Upper", 422, "name_invalid"),
        ("GET", "/v1/apps/xn", 422, "name_invalid"),
        ("GET", "/v1/apps/none", 404, "app_not_found"),
        ("DELETE", "/v1/apps/none", 404, "app_not_found"),
        ("POST", "/v1/apps/none/sleep", 404, "app_not_found"),
        ("GET", "/v1/apps/none/logs?follow=true", 404, "app_not_found"),
        ("GET", "/v1/apps/none/logs?limit=-1", 400, "usage"),
        ("GET", "/v1/apps/none/logs?since=soon", 400, "usage"),
        ("HEAD", "/v1/packages/short", 400, None),
        ("PUT", "/v1/packages/short", 400, "usage"),
    ],
)
def test_what_is_not_there_or_wrong_is_told_as_json(opened, run, method, path, status, code):
    async def main():
        async with opened() as api:
            response = await api.http.request(method, path)
            assert response.status_code == status
            if code:
                assert response.json()["error"]["code"] == code

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"package": 1}',
        b'{"package": "' + b"a" * 64 + b'", "env": {"SECRET": ["hunter2"]}}',
        b'{"package": "' + b"a" * 64 + b'", "env": {"1X": "hunter2"}}',
        b'{"package": "' + b"a" * 64 + b'", "env": {"A": "hunter2\\u0000"}}',
        b'{"package": "' + b"a" * 64 + b'", "env": {"A": "' + b"hunter2" * 20000 + b'"}}',
        b'{"package": "zz"}',
    ],
)
def test_a_wrong_deploy_is_refused_without_repeating_values(opened, run, body):
    async def main():
        async with opened() as api:
            response = await api.http.post(
                "/v1/deploys", content=body, headers={"content-type": "application/json"}
            )
            assert response.status_code == 400, response.text
            assert response.json()["error"]["code"] in ("usage", "bad_request")
            assert "hunter2" not in response.text

    run(main())


def test_the_openapi_document_names_every_resource(opened, run):
    async def main():
        async with opened() as api:
            paths = (await api.get("/v1/openapi.json"))["paths"]
            assert {path.split("/")[2] for path in paths} == {
                "health",
                "status",
                "apps",
                "deploys",
                "packages",
                "runtimes",
                "tenants",
                "members",
                "tokens",
                "whoami",
                "audit",
                "jobs",
                "usage",
                "volumes",
            }

    run(main())


def test_a_fault_of_ours_is_answered_without_its_traceback(opened, run, monkeypatch, caplog):
    async def main():
        async with opened() as api:

            def broken():
                raise RuntimeError("the inside")

            monkeypatch.setattr(api.node.state, "revision", broken)
            with pytest.raises(RuntimeError):  # the framework logs it further up
                await api.http.get("/v1/status")

    run(main())
    assert "the inside" not in "".join(r.getMessage() for r in caplog.records)
