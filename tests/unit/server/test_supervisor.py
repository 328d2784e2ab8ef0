"""Workers that come and go while a supervisor runs. The whole node is for tests/cli and e2e."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from isopod.errors import IsopodError
from isopod.sandbox.features import probe
from isopod.server.data_dir import prepare_data_dir
from isopod.server.sockets import bind_listener
from isopod.server.supervisor import Supervisor
from isopod.settings import NodeSettings

STUBS = Path(__file__).parents[2] / "stubs"


class Said:
    def say(self, text: str) -> None:
        print(text)

    def progress(self, fraction: float, text: str) -> None: ...

    def progress_done(self) -> None: ...


@pytest.fixture
def listener():
    with bind_listener("127.0.0.1", 0, option="--port") as listener:
        yield listener


@pytest.fixture
def settings(tmp_path) -> NodeSettings:
    settings = NodeSettings(data_dir=tmp_path / "node", cache_dir=tmp_path / "cache", drain_s=1)
    prepare_data_dir(settings)
    return settings


def supervisor(settings: NodeSettings, listener: socket.socket, worker: str) -> Supervisor:
    return Supervisor(
        settings,
        gateway=listener,
        control=listener,
        features=probe(),
        report=Said(),
        worker_module=worker,
        control_module="none",
        runtimes=tuple,
    )


def test_a_worker_is_added_and_removed_with_what_it_left(monkeypatch, settings, listener):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(STUBS), os.environ.get("PYTHONPATH", "")])
    )

    async def main():
        one = supervisor(settings, listener, "stub_worker")
        await one.add_worker(7, gateway=listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        pid = int((await reader.read()).split()[-1])
        writer.close()
        assert settings.admin_path(7).exists()
        await one.remove_worker(7)
        assert not Path(f"/proc/{pid}").exists()
        assert not settings.admin_path(7).exists()
        await one.remove_worker(7)  # not there: no error

    asyncio.run(main())


def test_a_worker_that_cannot_start_is_not_kept(settings, listener):
    async def main():
        one = supervisor(settings, listener, "there_is_no_such_module")
        with pytest.raises(IsopodError, match="worker 3 ended with status 1"):
            await one.add_worker(3, gateway=listener)
        await one.remove_worker(3)

    asyncio.run(main())
