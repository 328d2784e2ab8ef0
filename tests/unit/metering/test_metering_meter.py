import asyncio
import os
import signal
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from tests.lateness import Lateness

from isopod.metering.collector import Collector
from isopod.metering.meter import Meter, added_up
from isopod.metering.spool import Spool
from isopod.model.usage import UsageRecord

AMOUNTS = UsageRecord.__slots__[UsageRecord.__slots__.index("cpu_ns") :]


def collect(books) -> int:
    return Collector(books.spools, ledger=books.ledger).collect()


def meter_of(books, *, limit_bytes: int = 1 << 30, **options) -> Meter:
    return Meter(Spool(books.spools / "0" / "spool.db", limit_bytes=limit_bytes), **options)


async def until(look) -> None:
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.005)


def test_records_are_written_soon_and_in_batches(books, record):
    async def main() -> None:
        meter = meter_of(books, flush_s=0.01)
        for number in range(100):
            meter.record(record(number))
        await until(lambda: collect(books))
        meter.record(record(100))
        await until(lambda: collect(books))
        await meter.close()

    asyncio.run(main())
    assert books.request_ids() == [f"r{n}" for n in range(101)]


def test_what_is_held_is_written_when_the_worker_stops(books, record):
    async def main() -> None:
        meter = meter_of(books, flush_s=100)
        meter.record(record(1))
        async with asyncio.timeout(60):
            await meter.close()

    asyncio.run(main())
    assert collect(books) == 1


def test_a_meter_that_met_nothing_writes_nothing(books):
    async def main() -> None:
        await meter_of(books).close()

    asyncio.run(main())
    assert not books.spools.exists()


def test_nothing_is_dropped_while_the_disk_is_full(books, record, caplog):
    """The sums are those of all records; only who made them is told less exactly."""

    async def main() -> None:
        meter = meter_of(books, flush_s=0.001, max_held=50, limit_bytes=40 << 10)
        sent = 0
        while not ("kept in memory" in caplog.text and "added up" in caplog.text):
            for _ in range(30):
                meter.record(record(sent, cold=sent % 3 == 0, app=f"app{sent % 2}"))
                sent += 1
            await asyncio.sleep(0.002)
        assert len(meter._held) < 100
        while books.requests() != sent:
            collect(books)
            await asyncio.sleep(0.01)
        await meter.close()
        found = books.reader.totals("default", by="app", since=record().at, until=record().at + 1)
        assert [total.app for total in found] == ["app0", "app1"]
        assert sum(total.sums.cpu_ns for total in found) == sent * record().cpu_ns
        assert sum(total.sums.wall_100ms for total in found) == sent
        assert sum(total.sums.cold_starts for total in found) == len(range(0, sent, 3))

    asyncio.run(asyncio.wait_for(main(), 60))
    assert "written again" in caplog.text
    assert books.reader.lost() == 0


def test_a_worker_that_stops_with_a_full_disk_says_what_is_lost(books, record, caplog):
    async def main() -> None:
        meter = meter_of(books, flush_s=100, limit_bytes=12 << 10)
        for number in range(1000):
            meter.record(record(number))
        await meter.close()

    asyncio.run(main())
    assert "usage of 1000 invocations and intervals is lost" in caplog.text


def test_a_spool_that_cannot_be_made_keeps_nobody_from_being_served(books, record, caplog):
    books.spools.write_text("a file where a folder should be")

    async def main() -> None:
        meter = meter_of(books, flush_s=0.001)
        meter.record(record(1))
        await until(lambda: "kept in memory" in caplog.text)
        books.spools.unlink()
        await until(lambda: collect(books))
        await meter.close()

    asyncio.run(main())


@given(
    st.lists(
        st.builds(
            UsageRecord,
            kind=st.sampled_from(["request", "start", "live"]),
            at=st.floats(1.7e9, 1.7e9 + 9000),
            tenant=st.just("default"),
            app=st.sampled_from(["a", "b"]),
            version=st.integers(1, 2),
            instance=st.just("i"),
            outcome=st.sampled_from(["ok", "guest_failed"]),
            status=st.sampled_from([200, 500]),
            cold=st.booleans(),
            **{name: st.integers(0, 10**15) for name in AMOUNTS},
        )
    )
)
def test_records_that_are_added_up_have_the_same_sums(records):
    found = added_up(records)
    assert len(found) <= 3 * 2 * 2 * 2 * 2 * 4
    for name in AMOUNTS:
        if name == "peak_memory_bytes":
            continue
        for kind in ("request", "start", "live"):
            before = sum(getattr(one, name) for one in records if one.kind == kind)
            assert before == sum(getattr(one, name) for one in found if one.kind == kind), name
    assert max((one.peak_memory_bytes for one in records), default=0) == max(
        (one.peak_memory_bytes for one in found), default=0
    )


# Meters a record every millisecond and prints its number and when that was.
_METERING = """
import asyncio, sys, time
from pathlib import Path
from isopod.metering.meter import Meter
from isopod.metering.spool import Spool
from isopod.model.usage import UsageRecord

async def main():
    meter = Meter(Spool(Path(sys.argv[1])))
    number = 0
    while True:
        now = time.time()
        meter.record(UsageRecord(kind="request", at=now, tenant="default", app="hello", version=1,
                                 instance="i", request_id=f"r{number}"))
        print(number, time.monotonic(), flush=True)
        number += 1
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


def test_a_killed_worker_loses_what_it_met_in_its_last_second_at_most(books, record):
    books.now = 2e9  # the records are of now
    path = books.spools / "0" / "spool.db"
    process = subprocess.Popen(
        [sys.executable, "-c", _METERING, str(path)], stdout=subprocess.PIPE, text=True
    )
    lines = []
    with Lateness() as lateness:
        for line in process.stdout:
            lines.append(line.split())
            if len(lines) == 1500:
                os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()
    collect(books)
    kept = books.request_ids()
    assert kept == [f"r{n}" for n in range(len(kept))]
    times = [float(at) for _, at in lines[:1500]]  # a last line may be half a line
    lost_s = times[-1] - times[min(len(kept), 1499)]
    print(f"SEEN {len(lines) - len(kept)} records lost, of the last {lost_s * 1e3:.0f} ms")
    assert len(kept) > 100 and lost_s < 1.0 + 2 * lateness.worst_s
    assert books.reader.lost() == 0
