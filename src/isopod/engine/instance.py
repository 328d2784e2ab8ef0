"""One guest: an instance in a store of its own, run as a fiber.

Life: `Instance(...)` makes the store; `start` queues the calls that boot it; then the scheduler
polls it. A poll ends because the guest called the host (`on_call` is told, and answers with
`reply`), sleeps, used up its time slice, ended or trapped (`on_exit` is told).

Everything here runs on the loop's thread. Guest pointers arrive as signed 32-bit numbers; each is
masked and checked against the memory's size before a byte is read or written.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from ctypes import byref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime

from isopod.engine import ffi, traps, wasi
from isopod.engine.ffi import raw
from isopod.engine.files import Files, Granted
from isopod.engine.image import Image, map_over
from isopod.engine.linker import Linkage
from isopod.engine.memory import GuestMemory
from isopod.engine.relay import Relay
from isopod.engine.run_queue import Share
from isopod.engine.sockets import CONNECTED_CALL, FLAGS_CALL, SHUTDOWN_CALL, SocketCalls, Sockets
from isopod.engine.stderr_file import StderrFile
from isopod.engine.streams import (
    MAX_BUFFERS,
    STAT_CALL,
    STDERR,
    STDIN,
    Streams,
    buffers,
    gather,
    scatter,
    stat_of,
)
from isopod.engine.written import WrittenPages, give_back
from isopod.errors import (
    EngineError,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)

MAX_FRAME_BYTES = 8 << 20  # one host call, either way; larger bodies come in pieces
MAX_TABLE_ELEMENTS = 100_000
_RANDOM_SLICE = 1 << 20
# host_alloc is a malloc: a guest whose malloc runs for this many time slices is broken. The loop
# stands still meanwhile.
_MAX_ALLOC_POLLS = 16
_PAGE = 65536
# To give back so much memory takes the kernel too long for the loop: 20 ms for 256 MiB.
_LARGE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Preopen:
    """A host folder that the guest sees as `guest`."""

    host: Path
    guest: str
    writable: bool = False
    limit_bytes: int | None = None  # of what it holds; None: the instance's `disk_bytes`
    lasting: bool = False  # outlives the instance, and no other instance has it now
    used_bytes: int = 0  # that it holds


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Two buffers of `size` bytes in a guest's memory, for guests that say and are told everything
    through them: nothing is allocated for a frame. Each is a u32 length and so many bytes; the
    guest fills the outbox, and who reads it sets its length to 0. `result`: the guest's call gives
    the address of a copy of it, which the guest frees; 0 if it is empty."""

    inbox: int
    outbox: int
    size: int
    result: bytes = b""


# An export's arguments: bytes that it gets as (pointer, length), numbers, or nothing.
Arguments = bytes | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What an instance gets. The order of `preopens` is the order of their descriptors."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    preopens: tuple[Preopen, ...]
    memory_bytes: int
    share: Share = ("", "")  # whose part of the CPU it runs on (see `run_queue`)
    disk_bytes: int | None = None  # in each writable folder; None: no bound
    clock_step_ns: int = 1_000_000  # what its clocks are rounded down to
    # Of `memory_bytes`: what the runtime takes at its start, clears and never uses. An image leaves
    # it out, and nobody's limit counts it.
    reserved_bytes: int = 0
    # Whether the runtime leaves many pages as its image has them when it is done (see `folding`).
    folds: bool = False

    @property
    def limit_mib(self) -> int:
        return (self.memory_bytes - self.reserved_bytes) >> 20


class State(enum.Enum):
    """READY: to be polled. CALLING: waits for `reply`. SLEEPING: until `wake_at`. ENDED: its last
    call returned. CLOSED: store gone."""

    READY = enum.auto()
    CALLING = enum.auto()
    SLEEPING = enum.auto()
    ENDED = enum.auto()
    CLOSED = enum.auto()


class Instance:
    def __init__(self, linkage: Linkage, spec: InstanceSpec) -> None:
        """Raises EngineError when the store cannot be made (a preopened folder is missing)."""
        self.linkage = linkage
        self.spec = spec
        self.state = State.READY
        self.on_call: Callable[[bytes], None] = lambda _frame: None
        self.on_exit: Callable[[IsopodError | None], None] = lambda _error: None
        # Answers the module's own imports, by name; it runs on the fiber and must not wait.
        self.on_import: Callable[[str, list[int]], int] = lambda _name, _numbers: 0
        self.mailbox: Mailbox | None = None
        self.streams: Streams | None = None  # of a module that has standard streams
        self._socket_calls: SocketCalls | None = None  # of one that has connections
        self.last_call = ""  # the export
        self.returned = 0  # by it; 0 if it gives nothing
        self.image_bytes = 0  # of the image that it was restored from
        self.given_back_bytes = 0  # of that image's pages; it has not run since
        self.drawn_bytes = 0  # of randomness
        # By the scheduler: thread time inside the guest's slices, file calls included.
        self.cpu_ns = 0
        self.polled_ns = 0  # the same by the wall clock
        self.host_ns = 0  # of its turns, time of ours around those: the scheduler's
        self._cpu_origin_ns = 0
        self._last_bytes = 0  # its memory when it was closed
        self.result: Any = None  # where the pending host call's i32 result goes, if it has one
        self.wake_at: float | None = None  # time.monotonic() of the end of a sleep
        self.computes = False  # used up its last time slice
        self.queued = False  # in the scheduler's run queue
        self.sleep_timer: asyncio.TimerHandle | None = None  # the scheduler's
        self.allocating = False  # in host_alloc: a host call now would replace the one under way
        self._frame: bytes | None = None
        self._reply: bytes | None = None
        self._reply_to: tuple[int, int] | None = None  # None: into the inbox
        self._random: tuple[int, int] | None = None
        self._read_into: Callable[[bytes], None] | None = None  # what a stream's reply is for
        self._fault: BaseException | None = None
        self._calls: list[Callable[[], Any]] = []
        self._future: Any = None
        self._alloc: Any = None
        self._entries: dict[str, tuple[Any, int]] = {}  # that were called
        self._trap = ffi.null_trap()
        self._error = ffi.null_error()
        self._keep: list[Any] = []  # arguments of the call under way
        self._results: Any = None  # of the call under way
        self.files = Files(
            # WASI numbers them from 3, in their order.
            {
                3 + at: Granted(
                    preopen.host,
                    writable=preopen.writable,
                    limit=spec.disk_bytes if preopen.limit_bytes is None else preopen.limit_bytes,
                    lasting=preopen.lasting,
                    used=preopen.used_bytes,
                )
                for at, preopen in enumerate(spec.preopens)
            },
            clock_step_ns=spec.clock_step_ns,
            all_open=linkage.imports.open_files,
            memory=self._known_memory,
            relay=self._get_relay,
        )
        self._relay: Relay | None = None
        # One whose standard error is a stream of ours has no last words elsewhere.
        self._stderr = None if linkage.imports.streams else StderrFile()
        self._store = wasmtime.Store(linkage.engine)
        try:
            self._prepare_store()
        except BaseException:
            self._close_stderr()
            self._store.close()
            raise

    def _prepare_store(self) -> None:
        spec, store = self.spec, self._store
        config = wasmtime.WasiConfig()
        config.argv = spec.argv
        config.env = spec.env
        if self._stderr is not None:
            config.stdout_file = os.devnull  # the runtime sends output through host calls
            self._stderr.attach(config)
        for preopen in spec.preopens:
            try:
                config.preopen_dir(str(preopen.host), preopen.guest, preopen.writable)
            except wasmtime.WasmtimeError as error:
                raise EngineError(f"cannot open {str(preopen.host)!r} for a guest") from error
        # The guest's monotonic clock counts from the making of its WASI context, and not from 0:
        # to Go that is a clock which is broken.
        self._clock_origin_ns = time.monotonic_ns() - max(spec.clock_step_ns, 1)
        store.set_wasi(config)
        store.set_limits(
            memory_size=spec.memory_bytes,
            table_elements=MAX_TABLE_ELEMENTS,
            instances=2,  # the guest, and the relay of its file calls
            tables=4,
            memories=1,
        )
        self._context = store._context()
        store.set_epoch_deadline(1)
        ffi.yield_on_epoch(self._context, 1)
        self._handle = ffi.InstanceHandle()
        self._memory: GuestMemory | None = None

    # -- driving: called by the scheduler ---------------------------------------------------

    def start(
        self,
        calls: Sequence[tuple[str, Arguments]],
        *,
        image: Image | None = None,
        writes: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        """Queue instantiation, the restore of `image` if there is one, `writes` (address, bytes)
        to its memory, and then `calls`: exports by name, with their arguments."""
        self._calls = [self._begin_instantiate]
        if image is not None:
            self._calls.append(functools.partial(self._restore, image))
        if writes:
            self._calls.append(functools.partial(self._poke, writes))
        self.then(calls)

    def then(self, calls: Sequence[tuple[str, Arguments]]) -> None:
        """Queue more calls; a guest that had ended can be polled again."""
        for export, payload in calls:
            self._calls.append(functools.partial(self._begin_call, export, payload))
        if self.state is State.ENDED:
            self.state = State.READY

    def poll(self) -> None:
        """Run one slice: until a host call, a sleep, the end of the time slice, or the end."""
        imports = self.linkage.imports
        imports.current = self
        self.given_back_bytes = 0
        try:
            self._poll()
        except IsopodError as error:
            self._finish(error)
        except Exception as error:
            # Ours, not the guest's; it must not end the loop's turn, nor leave the guest waiting.
            failed = EngineError("a guest's slice failed inside the node")
            failed.__cause__ = error
            self._finish(failed)
        finally:
            imports.current = None

    def _poll(self) -> None:
        if self._future is None:
            if not self._calls:
                self._finish(None)
                return
            self._future = self._calls.pop(0)()
            if self._future is None:  # done at once
                return
        done = ffi.poll_releasing(self._future) if self.computes else ffi.poll(self._future)
        if done:
            ffi.delete_future(self._future)
            self._future = None
            self._raise_trap()
            if self._results is not None:
                is_number = self._results[0].kind == ffi.I32
                self.returned = self._results[0].of.i32 & ffi.MASK32 if is_number else 0
        if self._fault is not None:
            fault, self._fault = self._fault, None
            if isinstance(fault, IsopodError):
                raise fault
            raise EngineError("a host call failed inside the node") from fault

    def _raise_trap(self) -> None:
        if self._error:
            error, self._error = self._error, ffi.null_error()
            raise self.explain(traps.from_error(error))
        if self._trap:
            trap, self._trap = self._trap, ffi.null_trap()
            raise self.explain(traps.from_trap(trap))

    def explain(self, error: IsopodError) -> IsopodError:
        """The error with the guest's last words. A guest that ends with its memory used up ended
        because of that, whatever it says."""
        said = self.read_stderr()
        if isinstance(error, GuestFailed) and (
            "MemoryError" in said or self.memory_bytes + 4 * (1 << 20) > self.spec.memory_bytes
        ):
            error = MemoryLimitExceeded(
                f"the guest reached its memory limit of {self.spec.limit_mib} MiB",
                details=error.details,
            )
        if said:
            error.details["stderr"] = said
        return error

    def _finish(self, error: IsopodError | None) -> None:
        self.state = State.ENDED
        self._frame = None  # of a call that was under way: nobody may answer it
        self.on_exit(error)

    def take_frame(self) -> bytes | None:
        """The frame of the host call that the last poll ended in."""
        frame, self._frame = self._frame, None
        return frame

    # -- the embedder's side ----------------------------------------------------------------

    def give_sockets(self, sockets: Sockets) -> None:
        """Before it starts: what its connections are."""
        self._socket_calls = SocketCalls(
            sockets,
            self._known_memory,
            lambda then: self._wait_for_reply(lambda _data: then()),
            self._answer_call,
        )

    def _answer_call(self, number: int) -> None:
        self.result[0].of.i32 = number

    def reply(self, data: bytes) -> None:
        """Answer the pending host call; the scheduler must be told to run the guest."""
        if self.state is not State.CALLING:
            raise RuntimeError(f"a guest in state {self.state.name} awaits no reply")
        self._reply = data
        self.state = State.READY

    def end_sleep(self) -> None:
        if self.state is State.SLEEPING:
            self.wake_at = None
            self.state = State.READY

    def fail(self, error: BaseException) -> None:
        """A callback's way to end the guest: the poll under way raises it."""
        self._fault = error

    def give_back(self, written: WrittenPages) -> None:
        """Share the pages again that it wrote and that are as in its image. It must have ended its
        last call, and goes on as if nothing had happened."""
        base = self._attach_memory().base(0, self.image_bytes)
        try:
            self.given_back_bytes += give_back(written, base, self.image_bytes)
        except Exception as error:
            # Perhaps in the middle of a page: it must not run again.
            failed = EngineError("a guest's memory could not be given back")
            failed.__cause__ = error
            self._finish(failed)

    def close(self) -> None:
        """End the guest wherever it is. Safe to call twice."""
        if self.state is State.CLOSED:
            return
        self._last_bytes = self.memory_bytes
        self.state = State.CLOSED
        if self._future is not None:
            # Before the store: the reverse aborts the process.
            ffi.delete_future(self._future)
            self._future = None
        if self._last_bytes - self.image_bytes > _LARGE_BYTES:
            self.linkage.close_aside(self._store)
        else:
            self._store.close()
        self._relay = None
        self.files.close()
        self._close_stderr()
        if self.sleep_timer is not None:
            self.sleep_timer.cancel()  # it would keep this instance until a day's sleep is over
            self.sleep_timer = None
        self._calls.clear()
        self._keep.clear()
        self.on_call = lambda _frame: None
        self.on_exit = lambda _error: None
        self.on_import = lambda _name, _numbers: 0

    @property
    def memory_bytes(self) -> int:
        if self._memory is None or self.state is State.CLOSED:
            return 0
        return self._memory.size

    @property
    def peak_memory_bytes(self) -> int:
        """Also after it was closed. Linear memory never shrinks."""
        return self._last_bytes or self.memory_bytes

    def read_stderr(self) -> str:
        """What the guest wrote to descriptor 2 since the last read: the last words of CPython."""
        return "" if self._stderr is None else self._stderr.read_new()

    def _close_stderr(self) -> None:
        if self._stderr is not None:
            self._stderr.close()

    # -- calls into the guest ---------------------------------------------------------------

    def _begin_instantiate(self) -> Any:
        return raw.wasmtime_instance_pre_instantiate_async(
            self.linkage.pre.ptr(),
            self._context,
            byref(self._handle),
            byref(self._trap),
            byref(self._error),
        )

    def _restore(self, image: Image) -> None:
        memory = self._attach_memory()
        if not memory.grow(image.size):
            raise MemoryLimitExceeded(
                f"the snapshot needs {image.size >> 20} MiB, more than the memory limit of "
                f"{self.spec.limit_mib} MiB"
            )
        map_over(image, memory.base(0, image.size))
        self.image_bytes = image.size
        # The guest's monotonic clock goes on from where the image stopped it.
        self._clock_origin_ns = time.monotonic_ns() - image.clock_ns
        # Nor may its CPU time go back: it used at most as much as time went by.
        self._cpu_origin_ns = image.clock_ns

    def _poke(self, writes: Sequence[tuple[int, bytes]]) -> None:
        memory = self._attach_memory()
        for address, data in writes:
            memory.write(address, data)

    def _begin_call(self, export: str, payload: Arguments) -> Any:
        self.last_call = export
        memory = self._attach_memory()
        function, result_count = self._entry(export)
        numbers: tuple[int, ...] = ()
        if isinstance(payload, tuple):
            numbers = payload
        elif payload is not None:
            pointer = self._allocate(len(payload))
            memory.write(pointer, payload)
            numbers = (pointer, len(payload))
        count = len(numbers)
        arguments = (ffi.Val * max(1, count))()
        for argument, number in zip(arguments, numbers, strict=False):
            argument.kind, argument.of.i32 = ffi.I32, number
        self._results = results = (ffi.Val * 1)()
        self._keep = [function, arguments]
        return ffi.call_async(
            self._context,
            byref(function),
            arguments,
            count,
            results,
            result_count,
            byref(self._trap),
            byref(self._error),
        )

    def _entry(self, export: str) -> tuple[Any, int]:
        """A function of the guest's, and how many values it gives. The engine writes as many as it
        has, and it is the guest that says so: there is room for one."""
        known = self._entries.get(export)
        if known is not None:
            return known
        function = self._export(export, ffi.FUNCTION).of.func
        kind = raw.wasmtime_func_type(self._context, byref(function))
        count = int(raw.wasm_functype_results(kind)[0].size)
        raw.wasm_functype_delete(kind)
        if count > 1:
            raise GuestFailed(f"the module's export {export!r} returns {count} values")
        self._entries[export] = function, count
        return function, count

    def _export(self, name: str, kind: int) -> Any:
        found = ffi.Extern()
        there = raw.wasmtime_instance_export_get(
            self._context, byref(self._handle), *ffi.text(name), byref(found)
        )
        # The kind decides which member of a C union holds something.
        if not there or found.kind != kind:
            raise GuestFailed(f"the module exports no {name!r} of the right kind")
        return found

    def _allocate(self, size: int) -> int:
        """Guest memory for `size` bytes, by the guest's own `host_alloc`."""
        if self._alloc is None:
            function = self._export("host_alloc", ffi.FUNCTION).of.func
            self._alloc = (function, (ffi.Val * 1)(), (ffi.Val * 1)())
        function, arguments, results = self._alloc
        arguments[0].kind, arguments[0].of.i32 = ffi.I32, size
        trap, error = ffi.null_trap(), ffi.null_error()
        future = ffi.call_async(
            self._context, byref(function), arguments, 1, results, 1, byref(trap), byref(error)
        )
        polls = 1
        self.allocating = True
        done = ffi.poll(future)
        while not done and self._fault is None and polls < _MAX_ALLOC_POLLS:
            polls += 1
            done = ffi.poll(future)
        ffi.delete_future(future)
        self.allocating = False
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        if error:
            raise traps.from_error(error)
        if trap:
            raise traps.from_trap(trap)
        pointer = int(results[0].of.i32) & ffi.MASK32
        if not done or pointer == 0:
            raise MemoryLimitExceeded(
                f"the guest could not allocate {size} bytes within its memory limit of "
                f"{self.spec.limit_mib} MiB"
            )
        return pointer

    # -- guest memory -----------------------------------------------------------------------

    def put_inbox(self, data: bytes) -> None:
        """Into the mailbox, for the call that comes next."""
        box, memory = self._box(), self._attach_memory()
        if len(data) + 4 > box.size:
            raise ValueError(f"{len(data)} bytes do not go into an inbox of {box.size}")
        memory.write(box.inbox, len(data).to_bytes(4, "little") + data)

    def take_outbox(self) -> bytes:
        """What the guest has said, b"" if nothing; it is empty then."""
        box, memory = self._box(), self._attach_memory()
        size = int.from_bytes(memory.read(box.outbox, 4), "little")
        if not size:
            return b""
        if size + 4 > box.size:
            raise GuestProtocolError(f"the guest sent a frame of {size} bytes")
        memory.write(box.outbox, bytes(4))
        return memory.read(box.outbox + 4, size)

    def _box(self) -> Mailbox:
        if self.mailbox is None:
            raise GuestProtocolError("the guest called the host before it had a mailbox")
        return self.mailbox

    def memory(self) -> memoryview:
        """The linear memory itself, to read or patch between calls. Valid until the next poll."""
        return self._attach_memory().view()

    def _attach_memory(self) -> GuestMemory:
        """Raises GuestFailed when the module exports no memory."""
        if self._memory is None:
            memory = self._export("memory", ffi.MEMORY).of.memory
            self._memory = GuestMemory(self._context, memory)
        return self._memory

    def _known_memory(self) -> GuestMemory:
        """For callbacks: a start function may call the host before there is a memory to name."""
        if self._memory is None:
            raise GuestProtocolError("the guest called the host before it was instantiated")
        return self._memory

    def _get_relay(self) -> Relay:
        if self._relay is None:
            memory = self._known_memory()
            self._relay = self.linkage.imports.relays.make(self._context, memory.handle)
        return self._relay

    @property
    def clock_ns(self) -> int:
        """The guest's monotonic clock, to the nanosecond."""
        return time.monotonic_ns() - self._clock_origin_ns

    # -- callbacks: run on the fiber, inside a poll -----------------------------------------

    def on_host_call(self, pointer: int, size: int, out_pointer: int, out_size: int) -> None:
        memory = self._known_memory()
        if size > MAX_FRAME_BYTES:
            raise GuestProtocolError(f"the guest sent a frame of {size} bytes")
        self._frame = memory.read(pointer, size)
        memory.base(out_pointer, 4)
        memory.base(out_size, 4)
        self._reply_to = (out_pointer, out_size)
        self._reply = None
        self.state = State.CALLING

    def on_mailbox_call(self) -> None:
        self._call_with(self.take_outbox())

    def on_said(self, pointer: int, size: int) -> None:
        """As a call over the mailbox, but what the guest says is there."""
        if size > MAX_FRAME_BYTES:
            raise GuestProtocolError(f"the guest sent a frame of {size} bytes")
        self._call_with(self._known_memory().read(pointer, size))

    def _call_with(self, frame: bytes) -> None:
        self._frame = frame
        self._reply_to = None
        self._reply = None
        self.state = State.CALLING

    def on_stream_call(self, name: str, arguments: list[int]) -> None:
        fd, at, count, done = arguments
        if self._has_socket(fd):
            self.on_socket_call(name, arguments)
            return
        # A descriptor that the guest closed may be a file by now.
        if self.streams is None or fd > STDERR or self.files.is_open(fd):
            self.result[0].of.i32 = self.files.call(name, arguments)
            return
        if count > MAX_BUFFERS or (name == "fd_read") != (fd == STDIN):
            self.result[0].of.i32 = wasi.EBADF if count <= MAX_BUFFERS else wasi.EINVAL
            return
        memory = self._known_memory()
        pieces = buffers(memory, at, count)
        size = sum(size for _, size in pieces)
        memory.base(done, 4)
        self.result[0].of.i32 = 0
        if fd == STDIN:
            self._read_stream(memory, pieces, size, done)
            return
        memory.write(done, size.to_bytes(4, "little"))
        if size and not self.streams.write(fd, gather(memory, pieces)):
            self._wait_for_reply(lambda _data: None)

    def on_stream_stat(self, fd: int, out: int) -> int:
        """The errno."""
        if self._has_socket(fd):
            assert self._socket_calls is not None
            return self._socket_calls.stat(fd, out)
        if self.streams is None or fd > STDERR or self.files.is_open(fd):
            return self._get_relay().call(STAT_CALL, (fd, out))
        self._known_memory().write(out, stat_of(fd))
        return 0

    def _read_stream(
        self, memory: GuestMemory, pieces: list[tuple[int, int]], size: int, done: int
    ) -> None:
        def take(data: bytes) -> None:
            scatter(memory, pieces, data[:size])
            memory.write(done, min(len(data), size).to_bytes(4, "little"))

        assert self.streams is not None
        data = self.streams.read(size) if size else b""
        if data is None:
            self._wait_for_reply(take)
        else:
            take(data)

    def _wait_for_reply(self, take: Callable[[bytes], None]) -> None:
        self._read_into = take
        self._reply = None
        self.state = State.CALLING

    def _has_socket(self, fd: int) -> bool:
        return self._socket_calls is not None and self._socket_calls.sockets.holds(fd)

    def on_socket_call(self, name: str, arguments: list[int]) -> None:
        if self._socket_calls is None:
            self.result[0].of.i32 = -wasi.ENOTSUP if name == "connect" else wasi.ENOTSOCK
            return
        number = self._socket_calls.call(name, arguments)
        if number is not None:
            self.result[0].of.i32 = number

    def on_socket(self, name: str, arguments: list[int]) -> int:
        """The errno of a call that never waits, of a descriptor that may be a file's."""
        calls, fd = self._socket_calls, arguments[0]
        if calls is None or not calls.sockets.holds(fd):
            if name == "fd_close":
                return self.files.call(name, arguments)
            if name == FLAGS_CALL:
                return self._get_relay().call(name, arguments)
            return wasi.EBADF if name == CONNECTED_CALL else wasi.ENOTSOCK
        if name == CONNECTED_CALL:
            return calls.connected(fd)
        if name == SHUTDOWN_CALL:
            return calls.shut_down(*arguments)
        return calls.set_flags(*arguments) if name == FLAGS_CALL else calls.close(fd)

    def on_poll_oneoff(self, inputs: int, outputs: int, count: int, written: int) -> None:
        if count > wasi.MAX_SUBSCRIPTIONS:
            self.result[0].of.i32 = wasi.EINVAL
            return
        memory = self._known_memory()
        memory.base(outputs, count * wasi.EVENT_BYTES)
        memory.base(written, 4)
        subscriptions = memory.read(inputs, count * wasi.SUBSCRIPTION_BYTES)
        plan = self._plan_poll(subscriptions)
        self.result[0].of.i32 = plan.errno
        if plan.errno:
            return

        def tell(events: bytes, count: int) -> None:
            memory.write(outputs, events)
            memory.write(written, count.to_bytes(4, "little"))

        if plan.wait_s <= 0 or not plan.awaited or self._socket_calls is None:
            tell(plan.events, plan.count)
            if plan.wait_s > 0:
                self.wake_at = time.monotonic() + plan.wait_s
                self.state = State.SLEEPING
            return
        calls, over_at = self._socket_calls, time.monotonic() + plan.wait_s

        def wait() -> None:
            left_s = over_at - time.monotonic()
            self._wait_for_reply(take)
            calls.sockets.when_ready(plan.awaited, None if math.isinf(left_s) else max(0, left_s))

        def take(_data: bytes) -> None:
            now = self._plan_poll(subscriptions)
            if not now.awaited:  # one is ready
                tell(now.events, now.count)
            elif time.monotonic() >= over_at:
                tell(plan.events, plan.count)
            else:
                wait()

        wait()

    def _plan_poll(self, subscriptions: bytes) -> wasi.PollPlan:
        calls = self._socket_calls
        more = {} if calls is None else {"polled": calls.polled}
        return wasi.plan_poll(
            subscriptions,
            realtime_ns=time.time_ns(),
            monotonic_ns=self.clock_ns,
            step_ns=self.spec.clock_step_ns,
            **more,
        )

    def on_clock_time_get(self, clock: int, out: int) -> int:
        """The errno. A restored guest's monotonic clock goes on, and no clock is fine enough to
        time what others do."""
        if clock == wasi.REALTIME:
            now = time.time_ns()
        elif clock == wasi.MONOTONIC:
            now = self.clock_ns
        elif clock in (wasi.PROCESS_CPU, wasi.THREAD_CPU):
            now = self._cpu_origin_ns + self.cpu_ns
        else:
            return wasi.EINVAL
        now -= now % self.spec.clock_step_ns
        self._known_memory().write(out, now.to_bytes(8, "little"))
        return 0

    def on_clock_res_get(self, clock: int, out: int) -> int:
        """The errno."""
        if clock not in (wasi.REALTIME, wasi.MONOTONIC, wasi.PROCESS_CPU, wasi.THREAD_CPU):
            return wasi.EINVAL
        self._known_memory().write(out, self.spec.clock_step_ns.to_bytes(8, "little"))
        return 0

    def on_random_get(self, pointer: int, size: int) -> None:
        self._known_memory().base(pointer, size)
        self._random = (pointer, size)
        self.drawn_bytes += size

    def on_resume(self) -> bool:
        """Whether the suspended host call can return now."""
        if self._fault is not None:
            return False  # never back into the guest: the poll raises the fault
        if self._random is not None:
            return self._fill_random()
        if self.state is State.SLEEPING or self.state is State.CALLING:
            return False
        if self._reply is not None:
            self._deliver(self._reply)
            self._reply = None
        return self.state is State.READY  # else it waits once more

    def _fill_random(self) -> bool:
        # In slices, so that a guest which asks for a gigabyte does not hold the loop.
        pointer, size = self._random or (0, 0)
        step = min(size, _RANDOM_SLICE)
        self._known_memory().write(pointer, os.urandom(step))
        self._random = (pointer + step, size - step) if size > step else None
        self.result[0].of.i32 = 0
        return self._random is None

    def _deliver(self, data: bytes) -> None:
        if self._read_into is not None:
            take, self._read_into = self._read_into, None
            take(data)
            return
        if self._reply_to is None:
            self.put_inbox(data)
            if self.result is None:
                return  # the call gives nothing
            given = self._box().result
            pointer = self._allocate(len(given)) if given else 0
            self._known_memory().write(pointer, given)
            self.result[0].of.i32 = pointer
            return
        memory = self._known_memory()
        pointer = self._allocate(len(data)) if data else 0
        if data:
            memory.write(pointer, data)
        out_pointer, out_size = self._reply_to
        memory.write(out_pointer, pointer.to_bytes(4, "little"))
        memory.write(out_size, len(data).to_bytes(4, "little"))
        self.result[0].of.i32 = 0
