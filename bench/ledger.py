"""Records per second from workers' spools into the ledger: read, checked, stored and summed up.

The spools are written before by the worker's own code, and collected by the control process's own:
one commit that waits for the disk for each 32 batches, the roll-ups in the same transaction. The
batches are of the size that a worker writes when it serves a thousand requests a second. Then the
same spools' batches come once more, and the questions of a bill are asked of what lies there.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure, Result
from isopod.metering.collector import Collector
from isopod.metering.ledger import Ledger
from isopod.metering.meter import FLUSH_S
from isopod.metering.reading import LedgerReader
from isopod.metering.spool import Spool
from isopod.model.tenant import TenantName
from isopod.model.usage import UsageRecord

RECORDS = 300_000
SPOOLS = 2
PER_BATCH = int(1000 * FLUSH_S)
APPS = 200  # of 20 tenants
TARGET = 20_000


def run(say: Callable[[str], None]) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="isopod-"))
    try:
        return _run(folder, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, say: Callable[[str], None]) -> Result:
    say(f"{RECORDS:,} records into {SPOOLS} spools")
    began, cpu = time.perf_counter(), time.process_time()
    for worker in range(SPOOLS):
        spool = Spool(folder / "spools" / str(worker) / "spool.db")
        for _ in range(RECORDS // SPOOLS // PER_BATCH):
            spool.write(spool.batch([_record() for _ in range(PER_BATCH)]))
        spool.close()
    spooled_s, spool_cpu_s = time.perf_counter() - began, time.process_time() - cpu
    shutil.copytree(folder / "spools", folder / "again")

    say("collecting them")
    ledger = Ledger(folder / "ledger.db", node="bench")
    began, cpu = time.perf_counter(), time.process_time()
    records = Collector(folder / "spools", ledger=ledger).collect()
    collected_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    if records != RECORDS:
        raise RuntimeError(f"{records:,} records arrived")

    say("collecting them once more")
    began = time.perf_counter()
    if Collector(folder / "again", ledger=ledger).collect():
        raise RuntimeError("records were counted twice")
    again_s = time.perf_counter() - began

    now = time.time()
    reader = LedgerReader(folder / "ledger.db", keep_s=86_400)
    asked: dict[str, float] = {}
    for by in ("app", "day", "hour"):
        began = time.perf_counter()
        found = reader.totals(TenantName("t0"), since=now - 30 * 86_400, until=now, by=by)
        asked[by] = (time.perf_counter() - began) * 1e3
        assert found
    began = time.perf_counter()
    assert len(reader.records(TenantName("t0"), limit=100)) == 100
    asked["the latest 100 records"] = (time.perf_counter() - began) * 1e3
    size = (folder / "ledger.db").stat().st_size
    ledger.close()
    figures = [
        Figure(
            "records into the ledger", records / collected_s, "records/s", TARGET, at_least=True
        ),
        Figure("control's CPU for each", cpu_s / records * 1e6, "us"),
        Figure("batches that come again", records / again_s, "records/s"),
        Figure("a worker writes to its spool", RECORDS / spooled_s, "records/s"),
        Figure("its CPU for each, making the record included", spool_cpu_s / RECORDS * 1e6, "us"),
        Figure("ledger on disk, each", size / records, "bytes"),
        *(Figure(f"a tenant's 30 days: {by}", ms, "ms") for by, ms in asked.items()),
    ]
    return Result("ledger", figures, {"records": records, "seconds": collected_s})


def _record() -> UsageRecord:
    app = random.randrange(APPS)
    return UsageRecord(
        kind="request",
        at=time.time() - random.random(),
        tenant=TenantName(f"t{app % 20}"),
        app=f"app-{app}",
        version=1,
        instance="00c0ffee",
        request_id=os.urandom(8).hex(),
        status=200,
        cpu_ns=random.randrange(10**7),
        host_ns=200_000,
        wall_ns=5_000_000,
        wait_ns=3_000_000,
        peak_memory_bytes=50 << 20,
        memory_byte_ms=15_000_000,
        bytes_in=300,
        bytes_out=1200,
        wall_100ms=1,
    )
