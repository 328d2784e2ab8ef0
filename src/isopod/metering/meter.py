"""A worker's meter: takes usage records from its loop, and has them written within a second.

Serving never waits for it and never stops because of it. While records cannot be written (the disk
is full) they are held; beyond `max_held` they are added up by app instead of dropped, so a bill
loses detail and no amount. What was held is lost if the process is killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from isopod.metering.spool import Spool, SpoolBatch
from isopod.model.usage import UsageRecord

_log = logging.getLogger(__name__)
# Where a request's usage goes.
Record = Callable[[UsageRecord], None]
FLUSH_S = 0.4
_MAX_HELD = 20_000  # records; 10 MiB
_RETRY_S = 1.0
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class _Left:
    """What a write could not take, beside the batch that is stuck."""

    records: list[UsageRecord]
    error: Exception | None


class Meter:
    """Used on one loop. `record` costs an append."""

    def __init__(
        self, spool: Spool, *, flush_s: float = FLUSH_S, max_held: int = _MAX_HELD
    ) -> None:
        self._spool = spool
        self._flush_s = flush_s
        self._max_held = self._room = max_held
        self._held: list[UsageRecord] = []
        self._failing = False
        self._loop = asyncio.get_running_loop()
        # One thread: SQLite waits for the disk, and batches are written in their order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meter")
        self._stuck: SpoolBatch | None = None  # the thread's: could not be written yet
        self._timer: asyncio.TimerHandle | None = None  # until nothing is held or stuck
        self._writing: asyncio.Future[_Left] | None = None

    def record(self, record: UsageRecord) -> None:
        held = self._held
        held.append(record)
        if self._timer is None:
            self._timer = self._loop.call_later(self._flush_s, self._flush)
        elif len(held) >= self._room:
            self._add_up()

    async def close(self) -> None:
        """Write what is held; if that fails, it is lost, and the log says so."""
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        if self._timer is not None:
            self._timer.cancel()
        left = await self._loop.run_in_executor(self._thread, self._put, self._held)
        if left.error is not None:
            count = sum(record.count for record in left.records)
            count += self._stuck.count if self._stuck is not None else 0
            _log.error("usage of %d invocations and intervals is lost", count)
        await self._loop.run_in_executor(self._thread, self._spool.close)
        self._thread.shutdown(wait=False)

    def _flush(self) -> None:
        taken, self._held = self._held, []
        self._writing = self._loop.run_in_executor(self._thread, self._put, taken)
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[_Left]) -> None:
        left = writing.result()
        self._writing = None
        delay = self._flush_s
        if left.error is None:
            self._room = self._max_held
            if self._failing:
                _log.warning("usage is written again")
        else:
            delay = _RETRY_S
            self._held = [*left.records, *self._held]
            if not self._failing:
                _log.error("usage cannot be written, and is kept in memory: %s", left.error)
        self._failing = left.error is not None
        again = self._failing or self._held
        self._timer = self._loop.call_later(delay, self._flush) if again else None

    def _put(self, records: list[UsageRecord]) -> _Left:
        """In the thread, giving records their sequence too: that encodes them."""
        try:
            if self._stuck is not None:
                self._spool.write(self._stuck)
                self._stuck = None
            if records:
                self._stuck, records = self._spool.batch(records), []
                self._spool.write(self._stuck)
                self._stuck = None
        except Exception as error:  # nothing that is wrong here may end the metering
            return _Left(records, error)
        return _Left([], None)

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
