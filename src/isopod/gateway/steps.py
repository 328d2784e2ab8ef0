"""How much CPU our own code spends on one request, while others run between its steps.

A coroutine is suspended many times, and the loop's thread does something else meanwhile: only the
steps themselves are counted, each by the thread's clock (1.5 us a step). What the HTTP server does
on its threads before and after is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Generator
from typing import Any


class Steps(Generator[Any, Any, None]):
    """`await Steps(coroutine)` runs it; `cpu_ns` is what it took so far."""

    __slots__ = ("_began_ns", "_coroutine", "_spent_ns")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._spent_ns = 0
        self._began_ns = 0  # of the step under way

    def __await__(self) -> Steps:
        return self

    @property
    def cpu_ns(self) -> int:
        """Also from inside the coroutine: the step under way is in it as far as it is."""
        if self._began_ns:
            return self._spent_ns + time.thread_time_ns() - self._began_ns
        return self._spent_ns

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        self._began_ns = time.thread_time_ns()
        try:
            return self._coroutine.send(value)
        finally:
            self._spent_ns += time.thread_time_ns() - self._began_ns
            self._began_ns = 0

    def throw(self, *error: Any) -> Any:
        self._began_ns = time.thread_time_ns()
        try:
            return self._coroutine.throw(*error)
        finally:
            self._spent_ns += time.thread_time_ns() - self._began_ns
            self._began_ns = 0

    def close(self) -> None:
        self._coroutine.close()
