"""Which instances end so that another fits: a pure function, acted on in `fleet`.

The room (memory, open files) is parted fairly: a tenant's part is the whole over the number of
tenants that have instances. Who has more than its part gives way first, so that nobody can push
another's instances out by taking more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# An instance that has been idle for so long may go, whoever needs the room.
LONG_IDLE_S = 5.0


def may_take(of_tenant: int, in_all: int, most: int) -> bool:
    """One more of `most` places: a tenant may have eight times the room that is left, alone eight
    ninths of all, and so much is always free for the next (dynamic thresholds: Choudhury and Hahne
    1998)."""
    return in_all < most and of_tenant < 8 * (most - in_all)


@dataclass(frozen=True, slots=True)
class Held:
    """An instance. `idle_s` seconds have passed since its last request; None: it serves one.
    `size` is in bytes or in instances, as is the room."""

    id: str
    tenant: str
    idle_s: float | None
    size: int


@dataclass(frozen=True, slots=True)
class Need:
    """What is to fit in: of `tenant`; or, with a size of 0 and no tenant, nothing new."""

    tenant: str = ""
    size: int = 0


def to_end(
    held: Sequence[Held], need: Need, *, used: int, room: int, may_end_busy: bool
) -> list[str] | None:
    """Instances to end, in this order, so that `need` fits beside the rest of `used`:

    - idle ones of those above their part and of the one in need, least recently used first;
    - other idle ones: who stays within its part may end any, others those idle for long;
    - if `may_end_busy`, busy ones of those above their part, the largest first, for one who stays
      within its own.

    None when all that would not be enough.
    """
    excess = used + need.size - room
    if excess <= 0:
        return []
    plan = _Plan(held, need, room, excess)
    plan.end(plan.idle_above())
    plan.end(plan.idle_others())
    if may_end_busy:
        plan.end(plan.busy_above())
    return plan.chosen if plan.excess <= 0 else None


class _Plan:
    def __init__(self, held: Sequence[Held], need: Need, room: int, excess: int) -> None:
        self.chosen: list[str] = []
        self.excess = excess
        self._need = need
        self._has: Counter[str] = Counter()
        for one in held:
            self._has[one.tenant] += one.size
        tenants = set(self._has) | ({need.tenant} if need.tenant else set())
        self._part = room / max(1, len(tenants))
        modest = self._has[need.tenant] + need.size <= self._part
        self._modest = modest or not need.tenant
        idle = [one for one in held if one.idle_s is not None]
        self._idle = sorted(idle, key=lambda one: -(one.idle_s or 0.0))
        self._busy = sorted((one for one in held if one.idle_s is None), key=lambda one: -one.size)

    def idle_above(self) -> Iterator[Held]:
        return (one for one in self._idle if one.tenant == self._need.tenant or self._above(one))

    def idle_others(self) -> Iterator[Held]:
        chosen = set(self.chosen)
        return (
            one
            for one in self._idle
            if one.id not in chosen and (self._modest or (one.idle_s or 0.0) >= LONG_IDLE_S)
        )

    def busy_above(self) -> Iterator[Held]:
        if not self._modest:
            return iter(())
        return (one for one in self._busy if self._above(one))

    def _above(self, one: Held) -> bool:
        """As it is now: what was chosen is gone."""
        return self._has[one.tenant] > self._part

    def end(self, candidates: Iterator[Held]) -> None:
        for one in candidates:
            if self.excess <= 0:
                return
            self.chosen.append(one.id)
            self.excess -= one.size
            self._has[one.tenant] -= one.size
