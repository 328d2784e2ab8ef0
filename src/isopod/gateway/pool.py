"""Whether another instance starts: a pure function, acted on in `app_pool`."""

from __future__ import annotations

from dataclasses import dataclass

# A queue in which nothing has moved for so long gets another instance, though its guests compute.
PATIENCE_S = 0.1
# Or only after so long, while its guests have hardly had any CPU: they wait for their tenant's
# turn, which comes no sooner with one more to share it, and that one's start comes out of it too.
LONG_PATIENCE_S = 1.0
_COMPUTED_S = 0.05


@dataclass(frozen=True, slots=True)
class PoolView:
    """One app version in one worker. `runnable`: busy guests that are not suspended in a call."""

    waiting: int
    stalled_s: float  # since a request was last given an instance, or began to wait
    starting: int
    live: int  # starting, busy and idle
    runnable: int
    computed_s: float  # CPU of the request that has used most
    max_instances: int


def should_start(view: PoolView) -> bool:
    """Whether to start one more instance now.

    One boots at a time: two share the CPU and are both late. When every guest of the app waits
    for something else, one more serves one more request. While one computes, another would only
    share its core (and cost a boot): then it starts only if the queue does not move at all, and
    later still if what it waits for is the CPU.
    """
    if view.waiting == 0 or view.starting > 0 or view.live >= view.max_instances:
        return False
    patience_s = PATIENCE_S if view.computed_s >= _COMPUTED_S else LONG_PATIENCE_S
    return view.runnable == 0 or view.stalled_s >= patience_s
