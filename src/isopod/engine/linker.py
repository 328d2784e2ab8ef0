"""What every guest may import: WASI preview 1, and one host call.

Three functions are ours because they must not block the loop: `host.call` (one request and one
reply, both bytes), `poll_oneoff` (sleep) and `random_get`. Each suspends the guest's fiber. The
clock is ours because a restored guest's monotonic time must not go back, and because it is
coarse; and so are the functions that open files or make them grow (see `files`). A runtime whose
module imports more says so (`HostImport`).

The callbacks run on the fiber's stack inside `Instance.poll`. They never raise (an exception
could not cross the engine) and never trust a pointer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import wasmtime

from isopod.engine import ffi, sockets
from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.ffi import raw
from isopod.engine.files import OpenFiles
from isopod.engine.relay import SIGNATURES, WASI, RelayMaker, function_type
from isopod.engine.streams import STAT_CALL, STREAM_CALLS
from isopod.errors import EngineError, GuestProtocolError

# Which of them a descriptor is for decides who answers (`Instance.on_socket`).
_DESCRIPTOR_CALLS = frozenset({STAT_CALL, sockets.FLAGS_CALL, "fd_close"})


@dataclass(frozen=True, slots=True)
class HostImport:
    """A function that a module imports beside WASI, of i32 numbers (one f64 if `is_float`). With
    `waits` it is a call over the guest's mailbox, and gives 0; with `says` too, what the guest says
    is not in its outbox but where its first two numbers say (address, length). Otherwise
    `Instance.on_import` answers at once."""

    module: str
    name: str
    parameters: int
    has_result: bool = True
    waits: bool = False
    says: bool = False
    is_float: bool = False

    @property
    def signature(self) -> str:
        """A letter for each parameter, as `relay` has them."""
        return "d" if self.is_float else "i" * self.parameters


class Imports:
    """What modules of one engine may import, defined once. `current` is the instance being polled:
    everything happens on one thread, so a callback needs no search for its guest."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        more: Sequence[HostImport] = (),
        *,
        streams: bool = False,
    ) -> None:
        """`streams`: instances have standard streams, which may wait (see `engine.streams`), and
        connections (`engine.sockets`), and nothing but preview 1, those and `more` may be imported:
        for modules of others' making."""
        self.engine = engine
        self.streams = streams
        mine = {WASI, sockets.MODULE, *(one.module for one in more)}
        self._allowed = frozenset(mine) if streams else None
        self.current: Any = None
        self._linker = wasmtime.Linker(engine)
        self._linker.define_wasi()
        self._linker.allow_shadowing = True
        # Attributes keep the trampolines alive as long as the linker.
        self._resume = ffi.Continuation(self._on_resume)
        self._trampolines = [
            self._define("host", "call", 4, lambda i, a: i.on_host_call(*a)),
            self._define(WASI, "poll_oneoff", 4, lambda i, a: i.on_poll_oneoff(*a)),
            self._define(WASI, "random_get", 2, lambda i, a: i.on_random_get(*a)),
            self._define_now("clock_time_get", "iIi", lambda i, a: i.on_clock_time_get(a[0], a[2])),
            self._define_now("clock_res_get", "ii", lambda i, a: i.on_clock_res_get(*a)),
            *(
                self._define_file_call(name)
                for name in SIGNATURES
                if name not in _DESCRIPTOR_CALLS and not (streams and name in STREAM_CALLS)
            ),
            *(self._define_streams() if streams else ()),
            *(self._define_sockets() if streams else [self._define_file_call("fd_close")]),
            *(self._define_import(one) for one in more),
        ]
        self.relays = RelayMaker(engine)
        self.open_files = OpenFiles()
        self.aside = ThreadPoolExecutor(1, thread_name_prefix="close-store")

    def provided(self, module: str, name: str) -> tuple[str, str] | None:
        """Parameters and results of a function that may be imported; None: there is none."""
        if self._allowed is not None and module not in self._allowed:
            return None
        with wasmtime.Store(self.engine) as store:
            try:
                found = self._linker.get(store, module, name)
            except wasmtime.WasmtimeError:
                return None
            if not isinstance(found, wasmtime.Func):
                return None
            kind = found.type(store)
            return " ".join(map(str, kind.params)), " ".join(map(str, kind.results))

    def link(self, module: wasmtime.Module) -> wasmtime.InstancePre:
        """Raises EngineError."""
        if self._allowed is not None:
            # Not what is there for our own runtimes, nor another WASI that the engine may get.
            others = sorted({one.module for one in module.imports} - self._allowed)
            if others:
                raise EngineError(f"the module imports from {others[0]!r}, which is not there")
        try:
            return self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise EngineError(f"the module's imports cannot be satisfied: {error}") from error

    def _define(
        self, module: str, name: str, arity: int, begin: Any, *, has_result: bool = True
    ) -> Any:
        def callback(  # the C API's shape; see wasmtime's async.h
            _env: Any,
            _caller: Any,
            args: Any,
            _nargs: Any,
            results: Any,
            _nresults: Any,
            _trap: Any,
            continuation: Any,
        ) -> None:
            # First, before anything that can raise: without a continuation the process aborts.
            then = continuation[0]
            then.callback = self._resume
            then.env = None
            then.finalizer = ffi.NO_FINALIZER
            if has_result:
                result = results[0]
                result.kind = ffi.I32
                result.of.i32 = -1
            instance = self.current
            try:
                if instance.allocating:
                    raise GuestProtocolError("the guest called the host from its allocator")
                instance.result = results if has_result else None
                begin(instance, [args[i].of.i32 & ffi.MASK32 for i in range(arity)])
            except BaseException as error:  # must not cross the engine
                instance.fail(error)

        trampoline = ffi.AsyncCallback(callback)
        kind = function_type("i" * arity, has_result=has_result)
        self._add(raw.wasmtime_linker_define_async_func, module, name, kind, trampoline)
        return trampoline

    def _add(
        self, define: Any, module: str, name: str, kind: wasmtime.FuncType, trampoline: Any
    ) -> None:
        error = define(
            self._linker.ptr(),
            *ffi.text(module),
            *ffi.text(name),
            kind.ptr(),
            trampoline,
            None,
            ffi.NO_FINALIZER,
        )
        if error:
            raise EngineError(f"cannot define {module}.{name}: {ffi.error_message(error)}")

    def _define_file_call(self, name: str) -> Any:
        return self._define_now(name, SIGNATURES[name], lambda i, a: i.files.call(name, a))

    def _define_sockets(self) -> Iterator[Any]:
        for module, names in ((sockets.MODULE, sockets.OURS), (WASI, sockets.WAITING)):
            for name, count in names.items():
                yield self._define(
                    module, name, count, lambda i, a, name=name: i.on_socket_call(name, a)
                )
        for name in ("fd_close", sockets.FLAGS_CALL, sockets.SHUTDOWN_CALL):
            yield self._define_now(
                name, SIGNATURES.get(name, "ii"), lambda i, a, name=name: i.on_socket(name, a)
            )
        name = sockets.CONNECTED_CALL
        yield self._define_now(name, "i", lambda i, a: i.on_socket(name, a), module=sockets.MODULE)

    def _define_streams(self) -> Iterator[Any]:
        for name in STREAM_CALLS:
            yield self._define(WASI, name, 4, lambda i, a, name=name: i.on_stream_call(name, a))
        yield self._define_now(STAT_CALL, "ii", lambda i, a: i.on_stream_stat(*a))

    def _define_import(self, one: HostImport) -> Any:
        if one.waits:
            return self._define(
                one.module,
                one.name,
                one.parameters,
                lambda i, a: i.on_said(*a[:2]) if one.says else i.on_mailbox_call(),
                has_result=one.has_result,
            )
        return self._define_now(
            one.name,
            one.signature,
            lambda i, a: i.on_import(one.name, a),
            module=one.module,
            has_result=one.has_result,
        )

    def _define_now(
        self,
        name: str,
        signature: str,
        answer: Any,
        *,
        module: str = WASI,
        has_result: bool = True,
    ) -> Any:
        """A function that answers at once, and so is an ordinary one: 3 us a call. `answer` gives
        the errno."""
        masks = [ffi.MASK64 if kind == "I" else ffi.MASK32 for kind in signature]

        def callback(
            _env: Any, _caller: Any, args: Any, _nargs: Any, results: Any, _nresults: Any
        ) -> int:
            if has_result:
                results[0].kind = ffi.I32
                results[0].of.i32 = -1
            instance = self.current
            try:
                # The union's i64 covers its i32; the mask drops what is above.
                numbers = [args[at].of.i64 & mask for at, mask in enumerate(masks)]
                number = answer(instance, numbers)
                if has_result:
                    results[0].of.i32 = number
            except BaseException as error:  # must not cross the engine
                instance.fail(error)
            return 0  # no trap

        trampoline = ffi.Callback(callback)
        kind = function_type(signature, has_result=has_result)
        self._add(raw.wasmtime_linker_define_func, module, name, kind, trampoline)
        return trampoline

    def _on_resume(self, _env: Any) -> bool:
        instance = self.current
        try:
            return bool(instance.on_resume())
        except BaseException as error:  # must not cross the engine
            instance.fail(error)
            return False


class Linkage:
    """A module with its imports resolved."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        module: wasmtime.Module,
        imports: Sequence[HostImport] | Imports = (),
    ) -> None:
        """`imports`: what it has beside everybody's, or those that modules of its kind share."""
        self.imports = imports if isinstance(imports, Imports) else Imports(engine, imports)
        self.engine = engine
        self.module = module
        self.pre = self.imports.link(module)
        self._names = frozenset(one.name for one in module.imports)

    def uses(self, name: str) -> bool:
        """Whether the module imports a function of that name."""
        return name in self._names

    def close_aside(self, store: wasmtime.Store) -> None:
        """Close a store that nothing uses any more, in a thread of ours. Until then this is not
        gone: the store runs in the module's code."""

        def close() -> None:
            store.close()
            _ = self

        self.imports.aside.submit(close)

    @classmethod
    def load(
        cls,
        compiled: Path,
        settings: EngineSettings,
        engine: wasmtime.Engine | None = None,
        imports: Sequence[HostImport] = (),
    ) -> Self:
        """Map a module of our own cache (10 ms for CPython's 290 MB). Never a tenant's file:
        this runs whatever machine code it holds. `engine`: one of those settings, that other
        modules are in too."""
        engine = engine or make_engine(settings)
        try:
            return cls(engine, wasmtime.Module.deserialize_file(engine, str(compiled)), imports)
        except wasmtime.WasmtimeError as error:
            raise EngineError(
                f"the compiled module {str(compiled)!r} cannot be loaded",
                hint="run `isopod runtimes prepare NAME`",
            ) from error
