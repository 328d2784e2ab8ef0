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
from isopod.routes import RouteTable
from isopod.settings import NodeSettings

STUBS = Path(__file__).parent.parent / "stubs"
RUNTIME = RuntimeStatus("python", "3.15", "9" * 64, 1000, True, "PSF-2.0")


class Api:
    """What a test of the API talks to."""

    def __init__(self, node, http) -> None:
        self.node, self.http = node, http
        self.routes = RouteTable(node.settings.routes_path)

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
        headers = {"authorization": "Bearer right"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers, timeout=30
        ) as http:
            api = Api(node, http)
            yield api
            api.routes.close()
        node.state.close()

    return open_api


@pytest.fixture
def run():
    """Run an async test body."""
    return asyncio.run
