"""The control process: the API on the socket that the supervisor bound.

Opens and checks state first; what it finds wrong goes to the supervisor as the error it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
from typing import Any

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server

from isopod.api.app import create_app
from isopod.control.collecting import collect_usage
from isopod.control.job_clock import run_jobs
from isopod.control.log_keeping import keep_logs
from isopod.control.node import Node, open_node
from isopod.control.quotas import watch_quotas
from isopod.control.renewing import Renewing
from isopod.control.sweeping import sweep_regularly
from isopod.control.usage import watch_storage
from isopod.control.volume_places import keep_places
from isopod.errors import IsopodError
from isopod.sandbox.control import give_up_privileges
from isopod.server.children import READY_FD, tell_ready
from isopod.server.handover import Handover
from isopod.settings import NodeSettings, child_value

CONTROL_FD = "ISOPOD_CONTROL_FD"
_LOOK_S = 0.2
# That the server holds at once; the next wait until one ends. What one tenant may keep open
# (followed logs, uploads and deploys that wait) is bounded far below.
_CONNECTIONS = 4096
_STOP_S = 3.0  # streams that follow a log never end by themselves


class _OnSocket(Server):
    """granian's embedded server on a socket that listens already."""

    def __init__(self, fd: int, target: Any) -> None:
        super().__init__(
            target,
            interface=Interfaces.ASGI,
            websockets=False,
            log_enabled=True,
            log_level=LogLevels.error,
            backlog=_CONNECTIONS,
            backpressure=_CONNECTIONS,
        )
        self._listening_fd = fd

    def _init_shared_socket(self) -> None:
        # granian's stubs do not know that a holder takes (fd, is_uds, backlog).
        self._shd: Any = SocketHolder(self._listening_fd, False, _CONNECTIONS)  # type: ignore[call-arg]
        self._sfd: Any = self._listening_fd


async def serve(settings: NodeSettings, *, control_fd: int, ready_fd: int) -> None:
    """Until SIGTERM."""
    node = open_node(settings)
    try:
        token = settings.token_path.read_text().strip()
        server = _OnSocket(control_fd, create_app(node, token=token))
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        serving = asyncio.create_task(server.serve())
        await _answers(settings, serving)
        tell_ready(ready_fd)
        background = [
            asyncio.create_task(_renew_snapshots(node)),
            asyncio.create_task(collect_usage(node)),
            asyncio.create_task(watch_storage(node)),
            asyncio.create_task(watch_quotas(node)),
            asyncio.create_task(sweep_regularly(node)),
            asyncio.create_task(keep_logs(node)),
            asyncio.create_task(_run_jobs(node)),
            asyncio.create_task(keep_places(node)),
        ]
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        node.stopping.set()
        for task in background:
            task.cancel()
        await asyncio.wait(background, timeout=_STOP_S)
        if not serving.done():
            server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait((serving,), timeout=_STOP_S)
    finally:
        node.state.close()


async def _renew_snapshots(node: Node) -> None:
    await _workers_are_ready(node)
    await Renewing(node).run()


async def _run_jobs(node: Node) -> None:
    await _workers_are_ready(node)
    await run_jobs(node)


async def _workers_are_ready(node: Node) -> None:
    """What a start needs goes first."""
    while not node.settings.node_path.exists():  # noqa: ASYNC110  another process writes it
        await asyncio.sleep(_LOOK_S)


async def _answers(settings: NodeSettings, serving: asyncio.Task[None]) -> None:
    """Wait until the API answers its own health request."""
    everywhere = settings.control_host in ("0.0.0.0", "::", "")  # noqa: S104
    host = "localhost" if everywhere else settings.control_host
    while not serving.done():
        reader, writer = await asyncio.open_connection(host, settings.control_port)
        try:
            writer.write(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if b" 200 " in await reader.readline():
                return
        except ConnectionError:
            pass
        finally:
            writer.close()
    raise IsopodError("the control API did not start", hint="its messages are above")


def main() -> int:
    # A connection is a descriptor, and a followed log one more.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="control: %(message)s")
    logging.getLogger("isopod.snapshots").setLevel(logging.INFO)
    ready_fd = int(child_value(READY_FD))
    os.set_inheritable(ready_fd, False)
    try:
        handed = Handover.take()
        give_up_privileges(handed.features)
        asyncio.run(
            serve(handed.settings, control_fd=int(child_value(CONTROL_FD)), ready_fd=ready_fd)
        )
    except IsopodError as bad:
        tell_ready(ready_fd, bad)
        return 1
    return 0


if __name__ == "__main__":
    # No interpreter teardown: a thread in the middle of a commit must not hold the exit up.
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
