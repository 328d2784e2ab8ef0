"""How many wrong tokens an address may send, and how much a tenant may ask for.

All in bounded memory, and nothing is written: what an attacker sends must cost less than that.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable

from isopod.control.buckets import Buckets
from isopod.errors import TooManyRequests
from isopod.model.principal import Principal

_WRONG_BURST, _WRONG_PER_S = 20, 1
_CHANGES_BURST, _CHANGES_PER_S = 100, 10
_REQUESTS_BURST, _REQUESTS_PER_S = 300, 30
_KEYS = 10_000  # a hundred bytes each


class Attempts:
    """`clock`: monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        def buckets(burst: float, per_s: float) -> Buckets:
            return Buckets(burst=burst, per_s=per_s, keys=_KEYS, clock=clock)

        # By token as well: whoever floods an address (a proxy's, say) with wrong tokens does not
        # lock out the right ones behind it, whose ids the flood does not name.
        self._by_token = buckets(_WRONG_BURST, _WRONG_PER_S)
        self._by_address = buckets(_WRONG_BURST, _WRONG_PER_S)
        self._changes = buckets(_CHANGES_BURST, _CHANGES_PER_S)
        self._requests = buckets(_REQUESTS_BURST, _REQUESTS_PER_S)

    def check(self, address: str, token_id: str) -> None:
        """TooManyRequests, before the token is looked at."""
        _refuse_for(self._by_token.wait_s((_network(address), token_id)), "wrong tokens")

    def failed(self, address: str, token_id: str) -> None:
        """The token was wrong. TooManyRequests when there were too many."""
        network = _network(address)
        self._by_token.take((network, token_id))
        _refuse_for(self._by_address.take(network), "wrong tokens")

    def asked(self, who: Principal, *, changes: bool) -> None:
        """Each request may ask every worker, and each change leaves an entry in the audit log: both
        are bounded. The operator's are not."""
        if who.operator:
            return
        _refuse_for(self._requests.take(who.tenant), "requests")
        if changes:
            _refuse_for(self._changes.take(who.tenant), "changes")


def _refuse_for(wait_s: float, what: str) -> None:
    if wait_s > 0:
        seconds = math.ceil(wait_s)
        raise TooManyRequests(f"too many {what}", details={"retry_after_s": seconds})


def _network(address: str) -> str:
    """An IPv6 host may take any address of its /64."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if known.version == 4:
        return address
    return str(ipaddress.ip_network((known, 64), strict=False))
