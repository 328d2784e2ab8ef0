"""When instances that have nothing to do give back what they wrote for nothing (see `written`).

Not at once: the next request would write most of it again. And one after the other, while no guest
wants to run: each takes up to a millisecond.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from isopod.engine.instance import Instance, State
from isopod.engine.written import WrittenPages

AFTER_S = 5.0
_LOOK_EVERY_S = 0.5


class Folding:
    """`busy`: whether guests want to run."""

    def __init__(self, written: WrittenPages | None, *, busy: Callable[[], bool]) -> None:
        self._written = written
        self._busy = busy
        self._loop = asyncio.get_running_loop()
        self._resting: OrderedDict[Instance, float] = OrderedDict()  # since when; the first longest
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    def rests(self, instance: Instance) -> None:
        """It has run, and waits for nothing of ours."""
        if self._written is None or not (instance.spec.folds and instance.image_bytes):
            return
        self._resting[instance] = self._loop.time()
        self._resting.move_to_end(instance)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_EVERY_S, self._look)

    def close(self) -> None:
        self._resting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._resting:
            return
        instance, since = next(iter(self._resting.items()))
        if self._busy() or since + AFTER_S > self._loop.time():
            self._timer = self._loop.call_later(_LOOK_EVERY_S, self._look)
            return
        del self._resting[instance]
        self._timer = self._loop.call_soon(self._look)
        if instance.state is State.ENDED and self._written is not None:
            instance.give_back(self._written)
