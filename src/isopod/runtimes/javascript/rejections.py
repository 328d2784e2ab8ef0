"""Rejected promises that nobody handles, while a turn goes on: told to the guest when it is over.

QuickJS tells of each rejection without a handler, and again when one comes later. It gives handles,
which are the host's to free.
"""

from __future__ import annotations

from collections import deque

from isopod.engine.instance import Arguments, Instance

_MOST = 100  # in one turn; more are not told, nor freed: they count against the guest's memory
_VALUE_BYTES = 8  # a JSValue of a 32-bit QuickJS; equal for the same promise


class Rejections:
    def __init__(self, instance: Instance, turn: int) -> None:
        self._instance = instance
        self._turn = turn
        self._open: dict[bytes, tuple[int, int]] = {}
        self._free: deque[int] = deque()

    def told(self, promise: int, reason: int, is_handled: int) -> None:
        """By QuickJS, in the middle of a turn."""
        if not promise or not reason or len(self._open) + len(self._free) > 3 * _MOST:
            return
        key = bytes(self._instance.memory()[promise : promise + _VALUE_BYTES])
        if is_handled:
            self._free.extend((promise, reason))
            self._free.extend(self._open.pop(key, ()))
        elif key not in self._open and len(self._open) < _MOST:
            self._open[key] = (promise, reason)
        else:
            self._free.extend((promise, reason))

    def next_call(self) -> tuple[str, Arguments] | None:
        """What is to be called when a turn has ended."""
        if self._free:
            return "qjs_free_value", (self._free.popleft(),)
        if not self._open:
            return None
        promise, reason = self._open.pop(next(iter(self._open)))
        self._free.append(promise)
        return "isopod_reject", (self._turn, reason)
