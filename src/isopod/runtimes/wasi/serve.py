"""A program as the gateway sees it: a guest that has one request at a time, and an instance only
while it has one.

What stays from one request to the next is the linked module, which costs next to nothing; so a
request is not a start of the pool's, and takes tens of microseconds beside its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from isopod.engine.instance import Instance, InstanceSpec, Preopen, State
from isopod.engine.linker import Linkage
from isopod.engine.scheduler import Scheduler
from isopod.errors import GuestFailed
from isopod.host.capabilities import World
from isopod.host.sockets import GuestSockets
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import OutputSink, SocketExchange
from isopod.runtimes.mounts import preopened
from isopod.runtimes.own_modules import OwnModules
from isopod.runtimes.wasi.exchange import ProgramExchange

# What an instance has beside its linear memory: its stack's pages, its store, its files.
_BESIDE_BYTES = 40 << 10
_TMP_FD, _FIRST_VOLUME_FD = 4, 5
_PROGRAMS_OWN = 2  # folders: its package, and /tmp
# Who does not ask which folders there are has no use for any: the engine opens them before a
# program begins, and closes them in a thread of its own, which is a tenth of a short request.
_ASKS_FOR_FOLDERS = "fd_prestat_get"


@dataclass(frozen=True, slots=True)
class Program:
    """What every request's instance gets. `world`: what it may reach as `app`, its label; None: no
    network."""

    file: Path
    app_tree: Path
    tmp: Path
    env: Mapping[str, str]
    memory_bytes: int
    disk_bytes: int
    share: tuple[str, str]
    clock_step_ns: int
    volumes: tuple[LentVolume, ...] = ()
    world: World | None = None
    app: str = ""


class ProgramGuest:
    """See `isopod.runtimes.guest.Guest`."""

    capacity = 1
    speaker = ""  # there is one request at most
    blocked = False

    def __init__(
        self,
        program: Program,
        *,
        modules: OwnModules,
        scheduler: Scheduler,
        output: OutputSink,
    ) -> None:
        self._program = program
        self._modules = modules
        self._scheduler = scheduler
        self._output = output
        self._linkage: Linkage | None = None
        self._gone = False
        self._exchange: ProgramExchange | None = None
        self._instance: Instance | None = None  # of the request that is under way, or was last
        self._earlier_cpu_ns = self._earlier_host_ns = 0
        self._sockets = GuestSockets(
            program.world, app=program.app, answer=self._reply, say=self._say
        )
        self._spec = InstanceSpec(
            argv=(program.file.name,),
            env=(),
            preopens=(
                Preopen(program.app_tree, "/"),
                Preopen(program.tmp, "/tmp", writable=True),  # noqa: S108  the guest's own
                *preopened(program.volumes),
            ),
            memory_bytes=program.memory_bytes,
            share=program.share,
            disk_bytes=program.disk_bytes,
            clock_step_ns=program.clock_step_ns,
        )

    @property
    def idle(self) -> bool:
        return self._linkage is not None and not self._gone and self._exchange is None

    @property
    def waiting(self) -> bool:
        return self._exchange is None or self._state is not State.READY

    @property
    def _state(self) -> State:
        return State.ENDED if self._instance is None else self._instance.state

    @property
    def cpu_ns(self) -> int:
        return self._earlier_cpu_ns + (0 if self._instance is None else self._instance.cpu_ns)

    @property
    def host_ns(self) -> int:
        return self._earlier_host_ns + (0 if self._instance is None else self._instance.host_ns)

    @property
    def memory_bytes(self) -> int:
        return 0 if self._instance is None else self._instance.memory_bytes

    @property
    def peak_memory_bytes(self) -> int:
        """Of the request that is under way, or was last."""
        return 0 if self._instance is None else self._instance.peak_memory_bytes

    @property
    def sent_bytes(self) -> int:
        return self._sockets.sent_bytes

    @property
    def private_bytes(self) -> int:
        return self.private_of(self.memory_bytes)

    def private_of(self, memory_bytes: int) -> int:
        return memory_bytes + _BESIDE_BYTES

    async def start(self) -> None:
        """Raises ModuleInvalid and its kin."""
        tenant, _ = self._program.share
        self._linkage = await self._modules.linkage(self._program.file, tenant)
        if not self._linkage.uses(_ASKS_FOR_FOLDERS):
            self._spec = replace(self._spec, preopens=())

    def exchange(self) -> ProgramExchange:
        made = self._exchange = ProgramExchange(
            make=self._make,
            scheduler=self._scheduler,
            output=self._output,
            env=self._program.env,
            over=self._over,
        )
        if self._linkage is None or self._gone:
            made.stop()
        return made

    def socket(self) -> SocketExchange | None:
        return None

    def close(self) -> None:
        self._gone = True
        if self._exchange is not None:
            self._exchange.stop()

    def _make(self, env: Mapping[str, str]) -> Instance:
        if self._linkage is None:
            raise GuestFailed("the guest was ended")
        before = self._instance
        if before is not None:
            self._earlier_cpu_ns += before.cpu_ns
            self._earlier_host_ns += before.host_ns
        spec = replace(self._spec, env=tuple(env.items()))
        made = self._instance = Instance(self._linkage, spec)
        made.give_sockets(self._sockets)
        return made

    def _reply(self) -> None:
        instance = self._instance
        if instance is not None and instance.state is State.CALLING:
            instance.reply(b"")
            self._scheduler.wake(instance)

    def _say(self, text: str) -> None:
        self._output("isopod", f"{text}\n".encode())

    def _over(self) -> None:
        """Its instance has ended. What a program leaves in /tmp is not there for the next."""
        self._exchange = None
        self._sockets.close()
        instance = self._instance
        if instance is None:
            return
        files = instance.files
        if files.used_bytes(_TMP_FD):
            self._gone = True
        if len(known := self._spec.preopens) > _PROGRAMS_OWN:
            # What the volumes hold by now: the next instance counts on from there.
            volumes = tuple(
                replace(one, used_bytes=files.used_bytes(_FIRST_VOLUME_FD + at))
                for at, one in enumerate(known[_PROGRAMS_OWN:])
            )
            self._spec = replace(self._spec, preopens=(*known[:_PROGRAMS_OWN], *volumes))
