"""One Python guest on the host's side: what it says beside the requests of one at a time. Those of
an ASGI app, many at once, are in `exchanges`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isopod.engine.instance import Instance, State
from isopod.engine.scheduler import Scheduler
from isopod.errors import IsopodError
from isopod.host import capabilities
from isopod.host.capabilities import Capabilities, World
from isopod.host.connections import Connections
from isopod.runtimes.guest import Exchange, OutputSink, SocketExchange
from isopod.runtimes.python.exchanges import CAPACITY, Exchanges
from isopod.runtimes.python.socket_exchange import PythonSocket
from isopod.runtimes.sequential import Phase, SequentialGuest


class PythonGuest(SequentialGuest):
    """See `isopod.runtimes.guest.Guest`."""

    restored_bytes = 2 << 20  # 1.5 MiB for Flask after three requests

    def __init__(
        self,
        instance: Instance,
        scheduler: Scheduler,
        output: OutputSink,
        config: bytes = b"",
        *,
        world: World,
        app: str,
        tenant: str,
    ) -> None:
        """`config`: JSON that a restored guest asks for (its settings, its hook). `world`: what
        its capabilities are made of, for `app` (its label) of `tenant`."""
        super().__init__(instance, scheduler, output, config)
        self._on_addresses: Callable[[bytes], None] = lambda _addresses: None
        self._world, self._app, self._tenant = world, app, tenant
        self._capabilities: Capabilities | None = None
        self._many: Exchanges | None = None
        self._speaker = 0

    @property
    def idle(self) -> bool:
        return self._phase in (Phase.IDLE, Phase.SERVING)

    @property
    def capacity(self) -> int:
        return 1 if self._many is None else CAPACITY

    @property
    def speaker(self) -> str:
        return "" if self._many is None else self._many.request_id(self._speaker)

    def exchange(self) -> Exchange:
        return self if self._many is None else self._many.new()

    def socket(self) -> SocketExchange | None:
        if self._many is None:  # WSGI has none
            return None
        return PythonSocket(self._many.next_number(), self._many)

    @property
    def blocked(self) -> bool:
        many = self._many
        return many is not None and (many.stuck or (self.waiting and not many.waits))

    @property
    def sent_bytes(self) -> int:
        """By its connections; what it answers its clients is not in it."""
        return 0 if self._capabilities is None else self._capabilities.connections.sent_bytes

    async def prepare_image(
        self, turn: bytes, on_addresses: Callable[[bytes], None]
    ) -> dict[str, Any]:
        """End the requests and run `turn`, after which the memory can be captured. Gives the
        guest's report. `on_addresses` gets the addresses (u32 each) of the guest's objects while
        these are alive: afterwards, an address may be of freed memory."""
        if self._many:
            raise RuntimeError("a guest with open exchanges makes no image")
        self._on_addresses = on_addresses
        return await self.image([("turn", turn)])

    def _end_requests(self) -> None:
        if self._many is None:
            super()._end_requests()
        else:
            self._many.tell(b"z", 0)

    def close(self) -> None:
        super().close()
        if self._capabilities is not None:
            self._capabilities.close()

    def _broken(self, error: IsopodError) -> None:
        super()._broken(error)
        if self._many is not None:
            self._many.fail(error)

    def _take_own(self, operation: bytes, frame: bytes) -> bool:
        phase = self._phase
        if operation == b"W" and phase is Phase.SERVING and self._many is not None:
            self._many.on_wait(frame)
        elif operation == b"W" and phase is Phase.BOOTING:
            self._many = Exchanges(self)
            self._phase = Phase.SERVING
            self._many.on_wait(frame)
            self._settle(None)
        elif operation in capabilities.OPERATIONS and phase is not Phase.IDLE:
            if self._capabilities is None:
                self._capabilities = Capabilities(
                    self._world, app=self._app, tenant=self._tenant, answers=self
                )
            self._capabilities.call(frame)
        elif operation == b"I" and phase is Phase.IMAGING:
            self._on_addresses(frame[1:])
            self._instance.reply(b"")
        else:
            return False
        return True

    def _say(self, frame: bytes) -> None:
        if self._many is not None and frame[1:2] in (b"O", b"E") and len(frame) >= 6:
            self._speaker = int.from_bytes(frame[2:6], "little")
            frame = frame[:1] + frame[1:2].lower() + frame[6:]
        super()._say(frame)
        self._speaker = 0

    # -- of its many exchanges (see `isopod.runtimes.python.exchanges.GuestSide`) ------------

    def connections(self) -> Connections | None:
        return None if self._capabilities is None else self._capabilities.connections

    def end(self, error: IsopodError) -> None:
        self._broken(error)
        self.close()

    # -- of its capabilities (see `isopod.host.capabilities.Answers`) ------------------------

    def answer(self, data: bytes) -> None:
        if self._instance.state is State.CALLING:
            self._instance.reply(data)
            self._scheduler.wake(self._instance)

    def failed(self, error: IsopodError) -> None:
        self._broken(error)

    def charge(self, cpu_ns: int) -> None:
        self._instance.cpu_ns += cpu_ns
