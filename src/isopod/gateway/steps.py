"""How much time our own code spends on one request, while others run between its steps.

A coroutine is suspended many times, and the loop's thread does something else meanwhile: only the
steps themselves are counted. By the wall clock, because nothing in a step waits, and the thread's
own clock costs a system call: 1 us, against 0.05, at both ends of every step. So a step in which
the kernel gives the core to another process counts too long. What the HTTP server does on its
threads before and after is not in it.
"""

from __future__ import annotations

import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class Steps:
    """`await steps.run()` runs the coroutine; `spent_ns` is what its steps have taken so far."""

    __slots__ = ("_coroutine", "spent_ns")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self.spent_ns = 0

    def run(self) -> Awaitable[None]:
        return self._run()

    # A generator: an iterator written as a class costs twice as much, at every step.
    @types.coroutine
    def _run(self) -> Generator[Any, Any, None]:
        coroutine, clock = self._coroutine, time.monotonic_ns
        resume: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        while True:
            began_ns = clock()
            try:
                waits_for = resume(argument)
            except StopIteration:
                return
            finally:
                self.spent_ns += clock() - began_ns
            try:
                argument = yield waits_for
                resume = coroutine.send
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # for the coroutine to handle: a cancellation, say
                resume, argument = coroutine.throw, error
