"""Raises the engine's epoch every `TICK_S` while a guest runs.

A POSIX timer calls `wasmtime_engine_increment_epoch` on a thread of the C library's, so that a tick
needs no Python and no GIL: guests run with the GIL held (see `ffi.poll`), and a Python thread could
not interrupt them. A tick costs about 50 us of CPU, so the timer runs only during a slice: most
requests end before the first tick.
"""

from __future__ import annotations

import ctypes
import os

import wasmtime

from isopod.engine.ffi import raw
from isopod.errors import EngineError

TICK_S = 0.002

_CLOCK_MONOTONIC = 1
_SIGEV_THREAD = 2
_libc = ctypes.CDLL(None, use_errno=True)
_set_time = ctypes.PyDLL(None).timer_settime
# A tick may be on its way when its timer is deleted: engines are kept for the process's life.
_kept: list[wasmtime.Engine] = []


class _SigEvent(ctypes.Structure):
    """glibc's `struct sigevent`, 64 bytes."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_char * 32),
    ]


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: interval and first expiry, as seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


class Ticker:
    """Starts disarmed. `arm` and `disarm` cost less than 1 us each."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        _kept.append(engine)
        function = ctypes.cast(raw.dll.wasmtime_engine_increment_epoch, ctypes.c_void_p)
        event = _SigEvent(
            value=ctypes.cast(engine.ptr(), ctypes.c_void_p).value,
            notify=_SIGEV_THREAD,
            function=function.value,
        )
        self._timer = ctypes.c_void_p()
        if _libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise EngineError(f"cannot make a timer: {os.strerror(ctypes.get_errno())}")
        self.armed = False
        self._deleted = False
        tick = int(TICK_S * 1e9)
        self._on = ctypes.byref(_TimerSpec(0, tick, 0, tick))
        self._off = ctypes.byref(_TimerSpec(0, 0, 0, 0))

    def arm(self) -> None:
        self.armed = True
        _set_time(self._timer, 0, self._on, None)

    def disarm(self) -> None:
        if not self._deleted:
            self.armed = False
            _set_time(self._timer, 0, self._off, None)

    def close(self) -> None:
        if not self._deleted:
            self.disarm()
            self._deleted = True
            _libc.timer_delete(self._timer)
