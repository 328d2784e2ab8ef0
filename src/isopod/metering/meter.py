"""A worker's meter: takes usage records from its loop, and has them written within a second.

Serving never waits for it and never stops because of it. While records cannot be written (the disk
is full) they are held; beyond `max_held` they are added up by app instead of dropped, so a bill
loses detail and no amount. What was held is lost if the process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from isopod.errors import IsopodError
from isopod.metering.spool import Spool, SpoolBatch
from isopod.model.usage import UsageRecord

_log = logging.getLogger(__name__)
# Where a request's usage goes.
Record = Callable[[UsageRecord], None]
FLUSH_S = 0.25
_MAX_HELD = 20_000  # records; 10 MiB
_RETRY_S = 1.0
_HOUR = 3600


class Meter:
    """Used on one loop. `record` costs an append."""

    def __init__(
        self, spool: Spool, *, flush_s: float = FLUSH_S, max_held: int = _MAX_HELD
    ) -> None:
        self._spool = spool
        self._flush_s = flush_s
        self._max_held = self._room = max_held
        self._held: list[UsageRecord] = []
        self._stuck: SpoolBatch | None = None  # could not be written yet
        self._failing = False
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # One thread: SQLite waits for the disk, and batches are written in their order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meter")

    def record(self, record: UsageRecord) -> None:
        held = self._held
        held.append(record)
        if self._writing is None:
            self._writing = self._loop.create_task(self._write_soon())
        elif len(held) >= self._room:
            self._add_up()

    async def close(self) -> None:
        """Write what is held; if that fails, it is lost, and the log says so."""
        self._closing.set()
        if self._writing is not None:
            await self._writing
        if not await self._write():
            count = sum(record.count for record in self._held)
            count += self._stuck.count if self._stuck is not None else 0
            _log.error("usage of %d invocations and intervals is lost", count)
        await self._loop.run_in_executor(self._thread, self._spool.close)
        self._thread.shutdown(wait=False)

    async def _write_soon(self) -> None:
        """Until nothing is held."""
        delay = self._flush_s
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)
            delay = self._flush_s if await self._write() else _RETRY_S
            if not self._held and self._stuck is None:
                break
        self._writing = None

    async def _write(self) -> bool:
        """Whether everything that was held is written."""
        if self._stuck is not None and not await self._try(self._stuck):
            return False
        self._stuck = None
        if not self._held:
            return True
        taken, self._held = self._held, []
        self._room = self._max_held
        # In the thread too: giving records their sequence encodes them.
        self._stuck = await self._loop.run_in_executor(self._thread, self._spool.batch, taken)
        if not await self._try(self._stuck):
            return False
        self._stuck = None
        return True

    async def _try(self, batch: SpoolBatch) -> bool:
        try:
            await self._loop.run_in_executor(self._thread, self._spool.write, batch)
        except (IsopodError, OSError) as error:
            if not self._failing:
                _log.error("usage cannot be written, and is kept in memory: %s", error)
            self._failing = True
            return False
        if self._failing:
            _log.warning("usage is written again")
        self._failing = False
        return True

    def _add_up(self) -> None:
        before = len(self._held)
        self._held = added_up(self._held)
        # Not again at the next record, if there are that many apps.
        self._room = max(self._max_held, 2 * len(self._held))
        _log.warning("%d usage records in memory are added up to %d", before, len(self._held))


def added_up(records: Iterable[UsageRecord]) -> list[UsageRecord]:
    """One record for each kind, app version, outcome and hour, with the same sums in all."""
    found: dict[tuple[object, ...], UsageRecord] = {}
    for one in records:
        key = (
            *(one.kind, one.tenant, one.app, one.version, one.outcome, one.cold),
            int(one.at) // _HOUR,
        )
        other = found.get(key)
        found[key] = _sum(other, one) if other else replace(one, instance="", request_id="")
    return list(found.values())


def _sum(one: UsageRecord, other: UsageRecord) -> UsageRecord:
    return replace(
        one,
        at=max(one.at, other.at),
        status=one.status if one.status == other.status else 0,
        cpu_ns=one.cpu_ns + other.cpu_ns,
        host_ns=one.host_ns + other.host_ns,
        wall_ns=one.wall_ns + other.wall_ns,
        wait_ns=one.wait_ns + other.wait_ns,
        peak_memory_bytes=max(one.peak_memory_bytes, other.peak_memory_bytes),
        memory_byte_ms=one.memory_byte_ms + other.memory_byte_ms,
        bytes_in=one.bytes_in + other.bytes_in,
        bytes_out=one.bytes_out + other.bytes_out,
        wall_100ms=one.wall_100ms + other.wall_100ms,
        count=one.count + other.count,
    )
