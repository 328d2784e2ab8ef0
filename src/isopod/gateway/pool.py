"""Whether another instance starts: a pure function, acted on in `app_pool`."""

from __future__ import annotations

from dataclasses import dataclass

# A queue in which nothing has moved for so long gets another instance, whatever its guests do.
PATIENCE_S = 0.1


@dataclass(frozen=True, slots=True)
class PoolView:
    """One app version in one worker. `runnable`: busy guests that are not suspended in a call."""

    waiting: int
    stalled_s: float  # since a request was last given an instance, or began to wait
    starting: int
    live: int  # starting, busy and idle
    runnable: int
    max_instances: int


def should_start(view: PoolView) -> bool:
    """Whether to start one more instance now.

    One boots at a time: two share the CPU and are both late. When every guest of the app waits
    for something else, one more serves one more request. While one computes, another would only
    share its core (and cost a boot): then it starts only if the queue does not move at all.
    """
    if view.waiting == 0 or view.starting > 0 or view.live >= view.max_instances:
        return False
    return view.runnable == 0 or view.stalled_s >= PATIENCE_S
