"""A real node behind the real API in this process; only the builder is a stub."""

import asyncio
import hashlib
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from isopod.api.app import create_app
from isopod.control.builds import Builder
from isopod.control.child import child_argv
from isopod.control.node import open_node
from isopod.control.runtimes import Catalog, RuntimeStatus
from isopod.model.principal import SCOPES
from isopod.routes import RouteTable
from isopod.settings import NodeSettings

STUBS = Path(__file__).parent.parent / "stubs"
RUNTIME = RuntimeStatus("python", "3.15", "9" * 64, 1000, True, "PSF-2.0")


class Clients:
    """HTTP clients of one API, closed together."""

    def __init__(self, transport) -> None:
        self._transport = transport
        self._open: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *_) -> None:
        for client in self._open:
            await client.aclose()

    def open(self, token: str, **headers: str) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            transport=self._transport,
            base_url="http://localhost",
            headers={"authorization": f"Bearer {token}", **headers},
            timeout=60,
        )
        self._open.append(client)
        return client


class Api:
    """What a test of the API talks to."""

    def __init__(self, node, http, clients) -> None:
        self.node, self.http, self._clients = node, http, clients
        self.routes = RouteTable(node.settings.routes_path)

    def with_token(self, token: str, **headers: str) -> "Api":
        """The same API, asked by another; closed with it."""
        return Api(self.node, self._clients.open(token, **headers), self._clients)

    async def tenant(self, name: str, *scopes: str, **quota: int) -> "Api":
        """A new tenant, asked by its member alice."""
        response = await self.http.post("/v1/tenants", json={"name": name, "quota": quota})
        assert response.status_code == 200, response.text
        await self.member(name, "alice")
        return self.with_token((await self.token(name, *scopes))["token"])

    async def member(self, tenant: str, name: str) -> None:
        headers = {"x-isopod-tenant": tenant}
        response = await self.http.post("/v1/members", json={"name": name}, headers=headers)
        assert response.status_code == 200, response.text

    async def token(self, tenant: str, *scopes: str, member: str = "alice", **body) -> dict:
        """All scopes, unless some are named."""
        asked = {"member": member, "scopes": scopes or SCOPES, **body}
        headers = {"x-isopod-tenant": tenant}
        response = await self.http.post("/v1/tokens", json=asked, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    async def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        response = await self.http.put(f"/v1/packages/{digest}", content=content)
        assert response.status_code == 200, response.text
        return digest

    async def deploy(self, content: bytes = b"package", **body) -> list[dict]:
        """The lines of the answer; a refusal is one line as well."""
        package = await self.put(content)
        body = {"folder_name": "hello", "source": "m:/hello", **body}
        response = await self.http.post("/v1/deploys", json={"package": package, **body})
        return [json.loads(line) for line in response.text.splitlines()]

    async def deployed(self, content: bytes = b"package", **body) -> dict:
        last = (await self.deploy(content, **body))[-1]
        assert "result" in last, last
        return last["result"]

    async def get(self, path: str) -> dict:
        response = await self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "node"


@pytest.fixture
def opened(data_dir, monkeypatch):
    """`async with opened() as api`; may be opened again after it was closed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STUBS), *filter(None, sys.path)]))

    @asynccontextmanager
    async def open_api(runtime: RuntimeStatus = RUNTIME, **settings):
        data_dir.mkdir(exist_ok=True)
        node = open_node(NodeSettings.load(data_dir=data_dir, port=8080, **settings))
        object.__setattr__(node, "catalog", Catalog(data_dir, lambda _: [runtime]))
        object.__setattr__(
            node, "builder", Builder(node.settings, argv=lambda: child_argv("stub_builder"))
        )
        transport = httpx.ASGITransport(app=create_app(node, token="right"))
        async with Clients(transport) as clients:
            api = Api(node, clients.open("right"), clients)
            yield api
            api.routes.close()
        node.state.close()

    return open_api


@pytest.fixture
def run():
    """Run an async test body."""
    return asyncio.run
