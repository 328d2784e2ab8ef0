"""`isopod up`: owns the data directory and the listening sockets, keeps control and workers.

    lock, token -> sockets -> runtime prepared -> control ready -> egress, workers ready
    -> node.json

It serves no request itself and imports neither the API nor the engine, so it stays small and
has little to fail with. When it dies its children die with it (see control.child).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from isopod import __version__
from isopod.errors import SandboxUnavailable, UsageError
from isopod.host.egress import PrivateGrant
from isopod.host.tls import extra_trust
from isopod.model.tenant import TenantName
from isopod.runtimes import known
from isopod.sandbox.features import Features, probe
from isopod.server.children import (
    CHANNELS_FD,
    EGRESS_FD,
    GATEWAY_FD,
    LINES_FD,
    TENANT,
    Child,
    ChildSpec,
)
from isopod.server.cordons import Cordons
from isopod.server.data_dir import data_dir_lock, ensure_token, prepare_data_dir, sweep
from isopod.server.egress_channels import GivenChannels
from isopod.server.handover import Handover
from isopod.server.node_file import remove_node_file, write_node_file
from isopod.server.preparing import prepare_runtimes
from isopod.server.report import Reporter
from isopod.server.sockets import bind_listener
from isopod.server.switchboard import Switchboard
from isopod.server.worker_folders import forget_own_files
from isopod.settings import NodeSettings, bare_environment, child_environment

_CONTROL = "isopod.server.control_process"
_WORKER = "isopod.server.worker_process"
_EGRESS = "isopod.server.egress_process"
_CONTROL_STOP_S = 5.0
_AFTER_DRAIN_S = 2.0  # a worker ends itself at drain_s; after this we end it
_PATIENCE_S = 1.0  # for the port, after a node that was killed
KILLED_STATUS = 130


def up(
    settings: NodeSettings,
    *,
    report: Reporter,
    worker_module: str = _WORKER,
    control_module: str = _CONTROL,
    runtimes: Callable[[], tuple[str, ...]] = lambda: known().names(),
    ask_kernel: Callable[[], Features] = probe,
) -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit status.

    Raises DataDirUnusable, NodeAlreadyRunning, PortInUse, StateCorrupt, SandboxUnavailable...
    before it serves.
    """
    for grant in settings.egress_private:
        try:
            PrivateGrant.parse(grant)
        except ValueError as bad:
            raise UsageError(f"egress_private {grant!r} {bad}") from None
    try:
        extra_trust(settings.extra_ca)
    except ValueError as bad:
        raise UsageError(f"extra_ca {str(settings.extra_ca)!r} {bad}") from None
    features = ask_kernel()
    _check_sandbox(settings, features, report)
    prepare_data_dir(settings)
    with data_dir_lock(settings), ExitStack() as held:
        patience = _PATIENCE_S if settings.node_path.exists() else 0.0
        remove_node_file(settings.node_path)
        ensure_token(settings.token_path)
        sweep(settings)
        gateway = bind_listener(settings.host, settings.port, option="--port", patience_s=patience)
        held.callback(gateway.close)
        control = bind_listener(
            settings.control_host,
            settings.control_port,
            option="--control-port",
            patience_s=patience,
        )
        held.callback(control.close)
        held.callback(remove_node_file, settings.node_path)
        real = replace(
            settings,
            port=gateway.getsockname()[1],
            control_port=control.getsockname()[1],
        )
        supervisor = Supervisor(
            real,
            gateway=gateway,
            control=control,
            features=features,
            report=report,
            worker_module=worker_module,
            control_module=control_module,
            runtimes=runtimes(),
        )
        return asyncio.run(supervisor.run())


def _check_sandbox(settings: NodeSettings, features: Features, report: Reporter) -> None:
    """Say what is weaker here than it could be, or refuse to start."""
    missing = features.missing()
    if missing and settings.require_sandbox:
        raise SandboxUnavailable(
            f"this kernel ({features.kernel}) lacks {', '.join(one.what for one in missing)}",
            details={"missing": [str(one) for one in missing]},
        )
    for one in missing:
        report.say(f"sandbox: no {one}")


class Supervisor:
    """Keeps control and the workers. Workers may be added and removed while it runs."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        gateway: socket.socket,
        control: socket.socket,
        features: Features,
        report: Reporter,
        worker_module: str,
        control_module: str,
        runtimes: tuple[str, ...],
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._report = report
        self._runtimes = runtimes
        self._worker_module = worker_module
        self._handed = Handover(settings, features).to_bytes()
        self._control = Child(
            ChildSpec(
                "control",
                control_module,
                child_environment(ISOPOD_CONTROL_FD=str(control.fileno())),
                fds=(control.fileno(),),
                handed=self._handed,
            ),
            report=report.say,
        )
        # For each worker its end, and the broker's (see host.channel). Held here: a process that
        # follows another one takes its place.
        self._channels: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._given: GivenChannels | None = None  # to the broker, whose end is held too
        self._broker_end: socket.socket | None = None
        self._numbers: dict[int, int] = {}  # of the workers' channels there
        self._lines: dict[int, socket.socket] = {}  # each worker's end
        self._switchboard = Switchboard()
        self._workers: dict[int, Child] = {}
        self._egress: Child | None = None
        self._following: asyncio.Task[None] | None = None
        self._cordoned: dict[TenantName, int] = {}  # each one's own worker
        self._cordons = Cordons(
            settings.cordons_dir,
            most=settings.cordons,
            start=self._start_own,
            end=self._end_own,
            report=report.say,
        )

    async def add_worker(
        self,
        index: int,
        *,
        gateway: socket.socket | None,
        tenant: TenantName | None = None,
        **values: str,
    ) -> None:
        """Returns when it is ready. `gateway` is what it accepts connections on; `tenant` the one
        whose own it is; `values` are put into its environment, which it forgets before it runs a
        guest: no secrets."""
        worker = self._workers[index] = self._worker(
            index, gateway=gateway, tenant=tenant, **values
        )
        try:
            await worker.start()
        except BaseException:
            self._workers.pop(index, None)
            self._close_channels(index)
            raise

    async def remove_worker(self, index: int) -> None:
        """Drained as at a stop. No error when there is none."""
        if worker := self._workers.pop(index, None):
            await self._end_worker(index, worker)
            self._close_channels(index)

    async def _start_own(self, tenant: TenantName) -> None:
        index = self._settings.workers
        while index in self._workers:
            index += 1
        await self.add_worker(index, gateway=None, tenant=tenant)
        self._cordoned[tenant] = index
        self._report.say(f"worker {index} is {tenant}'s own (pid {self._workers[index].pid})")

    async def _end_own(self, tenant: TenantName) -> None:
        index = self._cordoned.pop(tenant)
        await self.remove_worker(index)
        await asyncio.to_thread(forget_own_files, self._settings, tenant)
        self._report.say(f"worker {index} of {tenant} has ended")

    def _worker(
        self,
        index: int,
        *,
        gateway: socket.socket | None,
        tenant: TenantName | None = None,
        **values: str,
    ) -> Child:
        if index not in self._channels:
            self._channels[index] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if self._given is not None:
                end = self._channels[index][1]
                self._numbers[index] = self._given.add(end, tenant=tenant or "")
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._lines[index] = theirs
            self._switchboard.add(index, ours, tenant=tenant)
        channel, lines = self._channels[index][0].fileno(), self._lines[index].fileno()
        fds = [channel, lines]
        if gateway is not None:
            fds.append(gateway.fileno())
            values[GATEWAY_FD] = str(gateway.fileno())
        if tenant is not None:
            values[TENANT] = tenant
        spec = ChildSpec(
            f"worker {index}",
            self._worker_module,
            bare_environment(
                ISOPOD_WORKER_INDEX=str(index),
                **{EGRESS_FD: str(channel), LINES_FD: str(lines)},
                **values,
            ),
            fds=tuple(fds),
            handed=self._handed,
            stall_s=self._settings.stall_s,
        )
        return Child(spec, report=self._report.say)

    def _close_channels(self, index: int) -> None:
        if self._given is not None and (number := self._numbers.pop(index, None)) is not None:
            self._given.remove(number)
        for end in self._channels.pop(index, ()):
            end.close()
        self._switchboard.remove(index)
        if (line := self._lines.pop(index, None)) is not None:
            line.close()

    def _broker(self) -> Child:
        """The process that connects for the workers."""
        ours, self._broker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._given = GivenChannels(ours)
        fd = self._broker_end.fileno()
        env = bare_environment(**{CHANNELS_FD: str(fd)})
        return Child(
            ChildSpec("egress", _EGRESS, env, fds=(fd,), handed=self._handed),
            report=self._report.say,
        )

    async def run(self) -> int:
        stop, stop_now = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            (stop_now if stop.is_set() else stop).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup: the terminal may go
            loop.add_signal_handler(number, on_signal)
        starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))
            else:
                await starting  # raises what kept the node from starting
                await stopped
        except BaseException:
            await self._stop(stop_now, quiet=True)
            raise
        return await self._stop(stop_now)

    async def _start(self) -> None:
        if self._runtimes:
            await prepare_runtimes(*self._runtimes, settings=self._settings, report=self._report)
        await self._control.start()
        self._egress = self._broker()
        for index in range(self._settings.workers):
            self._workers[index] = self._worker(index, gateway=self._gateway)
        await self._egress.start()
        await asyncio.gather(*(worker.start() for worker in self._workers.values()))
        await self._cordons.follow()
        write_node_file(self._settings)
        self._say_where()
        self._following = asyncio.create_task(self._cordons.run(), name="cordons")

    async def _stop(self, stop_now: asyncio.Event, *, quiet: bool = False) -> int:
        """Workers first: they answer what is in flight, and may ask control nothing."""
        remove_node_file(self._settings.node_path)
        if not quiet:
            drain_s = self._settings.drain_s
            self._report.say(
                f"Stopping: requests in flight have {drain_s:g} s; Ctrl-C again ends them now"
            )
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        self._gateway.close()  # the workers' copies are what is left of it
        in_order = asyncio.create_task(self._stop_in_order())
        at_once = asyncio.create_task(stop_now.wait())
        await asyncio.wait((in_order, at_once), return_when=asyncio.FIRST_COMPLETED)
        if in_order.done():
            at_once.cancel()
            await in_order
            if not quiet:
                self._report.say("Stopped.")
            return 0
        for child in (*self._workers.values(), self._egress, self._control):
            if child is not None:
                child.kill()
        await in_order
        self._report.say("Stopped at once.")
        return KILLED_STATUS

    async def _stop_in_order(self) -> None:
        await asyncio.gather(*(self._end_worker(*one) for one in self._workers.items()))
        if self._egress is not None:
            await self._egress.stop(_CONTROL_STOP_S)
        await self._control.stop(_CONTROL_STOP_S)
        for index in list(self._channels):
            self._close_channels(index)
        if self._given is not None and self._broker_end is not None:
            self._given.close()
            self._broker_end.close()

    async def _end_worker(self, index: int, worker: Child) -> None:
        await worker.stop(self._settings.drain_s + _AFTER_DRAIN_S)
        # It is shut in, and cannot remove them itself.
        self._settings.admin_path(index).unlink(missing_ok=True)
        shutil.rmtree(self._settings.worker_tmp(index), ignore_errors=True)

    def _say_where(self) -> None:
        settings = self._settings
        port = "" if settings.port == 80 else f":{settings.port}"
        pids = ", ".join(str(worker.pid) for worker in self._workers.values())
        for line in (
            f"isopod {__version__} is up (pid {os.getpid()})",
            f"  apps     http://NAME.{settings.domain}{port}/  on {settings.host}:{settings.port}",
            f"  control  http://{settings.control_host}:{settings.control_port}/",
            f"  data     {settings.data_dir}",
            f"  workers  {settings.workers} (pids {pids})",
            "Deploy with `isopod deploy`; Ctrl-C stops the node.",
        ):
            self._report.say(line)
