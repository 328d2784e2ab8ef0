"""A guest's faults, translated once: every trap code of the engine maps to one of our errors.

Source of the codes: wasmtime's `trap.h`. A completeness test walks the binding's enum.
"""

from __future__ import annotations

from typing import Any

from isopod.engine import ffi
from isopod.engine.ffi import raw
from isopod.errors import GuestFailed, IsopodError, MemoryLimitExceeded, StackLimitExceeded

_CODES = raw.wasmtime_trap_code_enum

# code -> (error class, what happened)
TRAPS: dict[int, tuple[type[IsopodError], str]] = {
    _CODES.WASMTIME_TRAP_CODE_STACK_OVERFLOW.value: (
        StackLimitExceeded,
        "the guest used up its stack",
    ),
    _CODES.WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS.value: (
        GuestFailed,
        "the guest read or wrote outside its memory",
    ),
    _CODES.WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED.value: (
        GuestFailed,
        "the guest aborted",
    ),
}
for _code in _CODES:
    TRAPS.setdefault(
        _code.value,
        (
            GuestFailed,
            "the guest trapped: "
            + _code.name.removeprefix("WASMTIME_TRAP_CODE_").replace("_", " ").lower(),
        ),
    )


def from_trap(trap: Any) -> IsopodError:
    """The error for an owned trap pointer, which is freed."""
    code = ffi.trap_code(trap)
    message = ffi.trap_message(trap)
    if code is None:
        return GuestFailed("the guest trapped", details={"trap": message})
    kind, text = TRAPS.get(code, (GuestFailed, "the guest trapped"))
    return kind(text, details={"trap": message})


def from_error(error: Any) -> IsopodError:
    """The error for an owned error pointer (a call that failed without a wasm trap)."""
    status = ffi.error_exit_status(error)
    message = ffi.error_message(error)
    if status is not None:
        return GuestFailed(
            f"the guest exited with status {status}", details={"exit_status": status}
        )
    if "exceeds memory limits" in message:
        # Before it has begun: the least that the module wants is too much.
        return MemoryLimitExceeded(
            f"the module's memory is larger than its limit: {message}",
            hint="raise limits.memory_mib, or give it a smaller stack (-Wl,-z,stack-size=N)",
        )
    return GuestFailed("the guest's call failed", details={"trap": message})
