"""What was refused and is not entered in the audit log, counted: whoever may change nothing must
not be able to fill the disk with attempts.

Each token leaves some entries at once, then one a minute; its next entry tells what was left out.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

from isopod.control.buckets import Buckets
from isopod.model.principal import Principal
from isopod.model.tenant import TenantName

_AT_ONCE, _PER_S = 20, 1 / 60
_KEYS = 10_000  # tokens that are remembered

Counts = Mapping[str, int]  # "app.delete forbidden" -> times
_Key = tuple[TenantName, str]


class Refusals:
    """Of one node. `clock`: monotonic seconds. Of one thread only."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = Buckets(burst=_AT_ONCE, per_s=_PER_S, keys=_KEYS, clock=clock)
        self._left_out: OrderedDict[_Key, tuple[Principal, Counter[str]]] = OrderedDict()

    def refused(self, who: Principal, action: str, outcome: str) -> Counts | None:
        """None: it is not entered. Otherwise what was not, since the token's last entry."""
        key = (who.tenant, who.token_id)
        if self._buckets.take(key) == 0:
            _, counts = self._left_out.pop(key, (who, Counter()))
            return counts
        _, counts = self._left_out.setdefault(key, (who, Counter()))
        counts[f"{action} {outcome}"] += 1
        if len(self._left_out) > _KEYS:
            self._left_out.popitem(last=False)
        return None

    def due(self, tenant: TenantName | None) -> list[tuple[Principal, Counts]]:
        """What was left out and may be entered now, of one tenant or of all; told once."""
        found: list[tuple[Principal, Counts]] = []
        for key in list(self._left_out):
            if tenant in (None, key[0]) and self._buckets.take(key) == 0:
                found.append(self._left_out.pop(key))
        return found
