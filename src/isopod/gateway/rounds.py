"""What a worker looks at again and again, for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


async def go_round(
    look: Callable[[], Awaitable[None] | None], *, every_s: Callable[[], float], failed: str
) -> None:
    """Call `look` every so often (`every_s` is asked before each pause) until it is cancelled. A
    round that fails is logged as `failed`, and the next one comes: without it nothing would ever be
    ended again."""
    while True:
        await asyncio.sleep(every_s())
        try:
            looking = look()
            if looking is not None:
                await looking
        except Exception:
            _log.exception("%s; trying again", failed)
