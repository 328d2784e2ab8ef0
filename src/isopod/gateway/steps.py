"""How much CPU our own code spends on one request, while others run between its steps.

A coroutine is suspended many times, and the loop's thread does something else meanwhile: only the
steps themselves are counted, each by the thread's clock (2 us a step). What the HTTP server does
on its threads before and after is not in it.
"""

from __future__ import annotations

import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class Steps:
    """`await steps.run()` runs the coroutine; `cpu_ns` is what it took so far."""

    __slots__ = ("_began_ns", "_coroutine", "_spent_ns")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._spent_ns = 0
        self._began_ns = 0  # of the step under way

    @property
    def cpu_ns(self) -> int:
        """Also from inside the coroutine: the step under way is in it as far as it is."""
        if self._began_ns:
            return self._spent_ns + time.thread_time_ns() - self._began_ns
        return self._spent_ns

    def run(self) -> Awaitable[None]:
        return self._run()

    # A generator: an iterator written as a class costs twice as much, at every step.
    @types.coroutine
    def _run(self) -> Generator[Any, Any, None]:
        coroutine, clock = self._coroutine, time.thread_time_ns
        resume: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        while True:
            began_ns = self._began_ns = clock()
            try:
                waits_for = resume(argument)
            except StopIteration:
                return
            finally:
                self._spent_ns += clock() - began_ns
                self._began_ns = 0
            try:
                argument = yield waits_for
                resume = coroutine.send
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # for the coroutine to handle: a cancellation, say
                resume, argument = coroutine.throw, error
