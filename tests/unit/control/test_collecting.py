"""The task that fills the ledger, when the ledger is not what it should be."""

import asyncio
import sqlite3
import time
from contextlib import closing, suppress
from types import SimpleNamespace

import pytest

from isopod.control import collecting
from isopod.metering.spool import Spool
from isopod.model.tenant import DEFAULT_TENANT
from isopod.model.usage import UsageRecord
from isopod.settings import NodeSettings


@pytest.fixture
def settings(tmp_path):
    return NodeSettings(data_dir=tmp_path)


@pytest.fixture
def spool(settings):
    spool = Spool(settings.spool_path(0))
    yield spool
    spool.close()


def write(spool: Spool, request_id: str) -> None:
    spool.write(
        spool.batch(
            [
                UsageRecord(
                    kind="request",
                    at=time.time(),
                    tenant=DEFAULT_TENANT,
                    app="hello",
                    version=1,
                    instance="i",
                    request_id=request_id,
                )
            ]
        )
    )


def in_ledger(settings) -> list[str]:
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(settings.ledger_path)) as db:
        return [one for (one,) in db.execute("SELECT request_id FROM records ORDER BY id")]
    return []


async def until(look) -> None:
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.005)


async def while_collecting(settings, doing) -> None:
    task = asyncio.create_task(collecting.collect_usage(SimpleNamespace(settings=settings)))
    try:
        await doing()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_damaged_ledger_is_told_once_and_usage_waits_in_the_spools(
    settings, spool, monkeypatch, caplog
):
    monkeypatch.setattr(collecting, "EVERY_S", 0.005)
    settings.usage_dir.mkdir(parents=True)
    settings.ledger_path.write_bytes(b"not a database" * 1000)
    tries = []
    opened = collecting.Ledger

    def counted(*values, **options):
        tries.append(1)
        return opened(*values, **options)

    monkeypatch.setattr(collecting, "Ledger", counted)

    async def main() -> None:
        write(spool, "first")
        await until(lambda: len(tries) > 3)
        assert caplog.text.count("usage stays in the spools") == 1
        settings.ledger_path.unlink()
        await until(lambda: in_ledger(settings) == ["first"])
        write(spool, "second")
        await until(lambda: in_ledger(settings) == ["first", "second"])

    asyncio.run(while_collecting(settings, main))


def test_a_node_keeps_its_id_and_does_not_take_another(settings, spool, monkeypatch, caplog):
    monkeypatch.setattr(collecting, "EVERY_S", 0.005)

    async def collected(request_id: str) -> None:
        write(spool, request_id)
        await until(lambda: request_id in in_ledger(settings))

    asyncio.run(while_collecting(settings, lambda: collected("first")))
    node = settings.node_id_path.read_text()
    asyncio.run(while_collecting(settings, lambda: collected("second")))
    assert settings.node_id_path.read_text() == node
    with closing(sqlite3.connect(settings.ledger_path)) as db:
        assert db.execute("SELECT DISTINCT node FROM epochs").fetchall() == [(node.strip(),)]
    settings.node_id_path.write_text("gone\n")

    async def refused() -> None:
        write(spool, "third")
        await until(lambda: "does not hold a node id" in caplog.text)
        assert "third" not in in_ledger(settings)

    asyncio.run(while_collecting(settings, refused))
