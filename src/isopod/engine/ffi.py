"""wasmtime's generated bindings, mended where they are wrong, with results checked.

Why not the wheel's public classes: they cost 50-70 us a call, keep host exceptions in one global
slot (with threads some reach the wrong one), and do not offer the async C API that fibers need.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, byref, c_void_p
from typing import Any

import wasmtime._bindings

# Generated and untyped where it matters: ctypes structures and functions.
raw: Any = wasmtime._bindings

# The header declares an error pointer as the result, the library returns nothing: without this
# ctypes would read a garbage pointer.
_yield_on_epoch = raw._wasmtime_context_epoch_deadline_async_yield_and_update
_yield_on_epoch.restype = None

# Guests run, and are asked about, with the GIL held: a slice is short, a fiber's callbacks need the
# GIL anyway, and giving it up means waiting for the HTTP server's threads at every host call.
_held = ctypes.PyDLL(raw.dll._name)


def _holding(name: str) -> Any:
    function, declared = _held[name], getattr(raw.dll, name)
    function.argtypes, function.restype = declared.argtypes, declared.restype
    return function


poll = _holding("wasmtime_call_future_poll")
# For guests that compute: a whole time slice with the GIL held would starve the server's threads.
poll_releasing = raw.wasmtime_call_future_poll
delete_future = _holding("wasmtime_call_future_delete")
call_async = _holding("wasmtime_func_call_async")
memory_data = _holding("wasmtime_memory_data")
memory_data_size = _holding("wasmtime_memory_data_size")

# Kept for the life of the process: wasmtime calls it when it drops a callback's environment.
NO_FINALIZER = CFUNCTYPE(None, c_void_p)(0)

AsyncCallback = raw.wasmtime_func_async_callback_t
Callback = raw.wasmtime_func_callback_t
Continuation = raw.wasmtime_func_async_continuation_callback_t
Val = raw.wasmtime_val_t
Extern = raw.wasmtime_extern_t
InstanceHandle = raw.wasmtime_instance_t

I32, I64 = 0, 1  # wasmtime_val_t.kind
FUNCTION, MEMORY = 0, 3  # wasmtime_extern_t.kind
MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFF_FFFFFFFF


def null_trap() -> Any:
    return POINTER(raw.wasm_trap_t)()


def null_error() -> Any:
    return POINTER(raw.wasmtime_error_t)()


def yield_on_epoch(context: Any, ticks: int) -> None:
    """Suspend the guest's fiber, instead of trapping, each time `ticks` epochs have passed."""
    _yield_on_epoch(context, ticks)


def text(value: str) -> tuple[Any, int]:
    """A name as the C API takes it: bytes without a terminator, and their count."""
    encoded = value.encode()
    return ctypes.create_string_buffer(encoded, len(encoded)), len(encoded)


def error_message(error: Any) -> str:
    """The message of an owned error pointer, which is freed."""
    message = _message(raw.wasmtime_error_message, error)
    raw.wasmtime_error_delete(error)
    return message


def error_exit_status(error: Any) -> int | None:
    """The status a guest gave to `proc_exit`, when that is what the error is."""
    status = ctypes.c_int(0)
    return status.value if raw.wasmtime_error_exit_status(error, byref(status)) else None


def trap_code(trap: Any) -> int | None:
    code = raw.wasmtime_trap_code_t()
    return int(code.value) if raw.wasmtime_trap_code(trap, byref(code)) else None


def trap_message(trap: Any) -> str:
    """The message of an owned trap pointer, which is freed."""
    message = _message(raw.wasm_trap_message, trap)
    raw.wasm_trap_delete(trap)
    return message.rstrip("\0")


def _message(read: Any, pointer: Any) -> str:
    text = raw.wasm_byte_vec_t()
    read(pointer, byref(text))
    message = ctypes.string_at(text.data, text.size).decode("utf-8", "replace")
    raw.wasm_byte_vec_delete(byref(text))
    return message
