from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isopod.errors import StateCorrupt
from isopod.metering.ledger import Batch, Keep
from isopod.metering.period import parse_month
from isopod.metering.reading import Faults
from isopod.metering.rows import encode
from isopod.model.tenant import TenantName
from isopod.settings_file import Prices

ACME = TenantName("acme")


def batch(sequence, *records, epoch="0-e1"):
    return Batch(epoch, sequence, encode(records))


def test_a_batch_that_comes_twice_is_counted_once(books, record):
    first = batch(1, record(1), record(2))
    assert books.ledger.apply([first]).records == 2
    again = books.ledger.apply([first, batch(3, record(3))])
    assert (again.records, again.again, again.missing) == (1, 1, 0)
    assert books.request_ids() == ["r1", "r2", "r3"]
    assert books.requests() == books.requests("day") == books.requests("minute") == 3


def test_equal_sequences_of_other_epochs_are_other_batches(books, record):
    books.ledger.apply([batch(1, record(1)), batch(1, record(2), epoch="1-e1")])
    books.ledger.apply([batch(1, record(3), epoch="0-e2")])
    assert books.requests() == 3
    ids = books.rows("SELECT epoch, sequence FROM records")
    assert len(set(ids)) == 3


def test_what_never_came_is_counted(books, record):
    books.ledger.apply([batch(1, record(1))])
    assert books.ledger.apply([batch(5, record(5))]).missing == 3
    assert books.reader.lost() == 3


def test_a_wrong_clock_is_counted_for_the_tenant_and_its_usage_billed_today(books, record):
    books.ledger.apply([batch(1, record(1, at=record().at + 1e8), record(2), record(3, at=0.0))])
    assert books.requests() == 3 and books.reader.lost() == 0
    days = {"since": int(books.now - 86_400), "until": int(books.now + 86_400)}
    assert books.reader.faults("default", **days).clock_corrected == 2
    assert books.reader.faults(ACME, **days) == Faults()


def test_a_period_has_the_faults_that_were_found_in_it(books, record):
    books.ledger.apply([batch(3, record(1, tenant=ACME))])
    books.now += 10 * 86_400
    books.ledger.apply([Batch("0-e1", 4, b"garbage")])
    day = int(books.now) // 86_400 * 86_400
    first = books.reader.faults("default", since=day - 11 * 86_400, until=day)
    assert first == Faults(missing=2)
    assert books.reader.faults("default", since=day, until=day + 86_400) == Faults(refused=1)


def test_crafted_sequences_do_not_make_the_count_of_the_lost_fail(books, record):
    crafted = [batch(2**40 - n, record(n), epoch=f"0-{n}") for n in range(100)]
    assert books.ledger.apply([*crafted, batch(2**53, record(0), epoch="0-x")]).records == 100
    assert 99 * 2**40 < books.reader.lost() < 2**63
    today = books.reader.faults("default", since=0, until=2**40)
    assert today.missing < 2**53


def test_all_batches_are_taken_or_none(books, record):
    books.rows("DROP TABLE rollups")  # nowhere to put the sums
    with pytest.raises(StateCorrupt):
        books.ledger.apply([batch(1, record(1))])
    assert books.request_ids() == [] and books.rows("SELECT * FROM epochs") == []
    books.ledger.close()
    books.ledger = books.open()
    assert books.ledger.apply([batch(1, record(1))]).records == 1


def test_a_refused_record_leaves_the_others(books, record):
    body = encode([record(1), record(2, app="../../x"), record(3)])
    applied = books.ledger.apply([Batch("0-e1", 1, body), batch(4, record(4))])
    assert (applied.records, len(applied.refused), applied.missing) == (3, 1, 0)
    assert books.request_ids() == ["r1", "r3", "r4"]
    assert books.reader.lost() == 1


@pytest.mark.parametrize(
    "hostile",
    [
        Batch("0-e1", 1, b"garbage"),
        Batch("'; DROP TABLE records", 1, b"[]"),
        Batch("e", 0, b"[]"),
        Batch("e", 2**63, b"[]"),
        Batch("e", "1", b"[]"),
        Batch(b"e", 1, b"[]"),
        Batch("e", 1, None),
    ],
)
def test_a_hostile_batch_is_refused_and_the_next_one_taken(books, record, hostile):
    applied = books.ledger.apply([hostile, batch(2, record(1))])
    assert (applied.records, len(applied.refused)) == (1, 1)


def test_sums_are_by_tenant_app_and_time(books, record):
    books.ledger.apply(
        [
            batch(
                1,
                record(1, cpu_ns=5, cold=True, wall_100ms=3),
                record(2, cpu_ns=7, app="other", outcome="guest_failed"),
                record(3, cpu_ns=11, tenant=ACME, app="hello--acme"),
                record(4, cpu_ns=13, kind="start", wall_100ms=9),
                record(5, kind="live", cpu_ns=0, memory_byte_ms=2**50),
                record(6, cpu_ns=17, at=record().at - 86_400, outcome="client_disconnected"),
            )
        ]
    )
    reader, asked = books.reader, {"since": record().at - 2e5, "until": record().at + 60}
    hello, other = reader.totals("default", by="app", **asked)
    assert (hello.app, hello.sums.requests, hello.sums.cpu_ns) == ("hello", 2, 35)
    assert (hello.sums.starts, hello.sums.cold_starts, hello.sums.wall_100ms) == (1, 1, 4)
    assert hello.sums.memory_byte_ms == 2**50
    assert (other.sums.errors, hello.sums.errors) == (1, 0)
    assert [t.app for t in reader.totals(ACME, by="app", **asked)] == ["hello--acme"]
    assert [t.sums.requests for t in reader.totals("default", by="day", **asked)] == [1, 2]
    only = reader.totals("default", app="other", by="hour", **asked)
    assert [(t.app, t.sums.cpu_ns) for t in only] == [("other", 7)]
    assert reader.totals(ACME, app="hello", by="app", **asked) == []
    assert reader.totals("nobody", by="app", **asked) == []


def test_a_sum_that_64_bits_do_not_hold_stays_at_the_most(books, record):
    for sequence in range(1, 12):
        books.ledger.apply([batch(sequence, record(sequence, memory_byte_ms=2**60))])
    found = books.reader.totals("default", by="app", since=record().at, until=record().at + 1)
    assert found[0].sums.memory_byte_ms == 2**63 - 1


def test_the_latest_records_of_a_tenant(books, record):
    books.ledger.apply(
        [batch(1, record(1), record(2, app="other"), record(3, tenant=ACME), record(4, cold=True))]
    )
    newest, second, oldest = books.reader.records("default")
    assert [newest.record.request_id, second.record.request_id] == ["r4", "r2"]
    assert newest.record == record(4, cold=True)
    assert (oldest.node, oldest.epoch, oldest.sequence) == ("n0", "0-e1", 1)
    assert [one.sequence for one in books.reader.records("default", app="hello", limit=1)] == [4]
    assert books.reader.records(ACME, app="hello--nobody") == []


def test_old_records_and_minutes_go_and_hours_stay(books, record):
    books.ledger.apply([batch(1, record(1), record(2, tenant=ACME, app="a"))])
    books.now += 2 * 86_400
    assert books.ledger.prune() == 0
    books.ledger.apply([batch(3, record(3, at=books.now))])
    books.now += 1.5 * 86_400
    assert books.ledger.prune() == 4
    assert books.ledger.prune() == 0
    assert books.request_ids() == ["r3"]
    assert books.requests("minute") == 1 and books.requests("hour") == 2
    # Where its minutes are gone, an interval is of whole hours.
    half = books.requests(since=record().at + 1, until=record().at + 2)
    assert half == 1 and books.requests(tenant=ACME) == 1


def test_hours_go_after_more_than_a_year_and_days_stay(books, record):
    books.ledger.apply([batch(1, record(1)), batch(2, record(2, tenant=ACME, app="a"))])
    books.now += 399 * 86_400
    books.ledger.apply([batch(3, record(3, at=books.now))])
    while books.ledger.prune():
        pass
    assert books.requests("hour", until=books.now + 1) == 2
    books.now += 2 * 86_400
    assert books.ledger.prune() == 2
    assert books.requests("hour", until=books.now) == 1
    assert books.requests("day", until=books.now) == 2
    # Where its hours are gone, an interval is of whole days.
    assert books.requests(since=record().at + 7200, until=record().at + 7201) == 1
    assert books.requests(tenant=ACME) == 1


def test_sums_that_64_bits_do_not_hold_are_added_up_exactly(books, record):
    amounts = {"memory_byte_ms": 2**60, "cpu_ns": 2**59 + 1}
    for day in range(20):
        at = record().at - day * 86_400
        books.ledger.apply([batch(day + 1, record(day, at=at, peak_memory_bytes=day, **amounts))])
    (found,) = books.reader.totals("default", by="app", since=record().at - 1e7, until=books.now)
    assert found.sums.memory_byte_ms == 20 * 2**60
    assert found.sums.cpu_ns == 20 * (2**59 + 1) and found.sums.peak_memory_bytes == 19


def test_no_more_records_are_kept_than_the_node_says(books, record):
    books.ledger.close()
    books.keep = Keep(max_records=3)
    books.ledger = books.open()
    books.ledger.apply([batch(1, *(record(n) for n in range(10)))])
    assert books.ledger.prune() == 7
    assert books.request_ids() == ["r7", "r8", "r9"] and books.requests() == 10


def test_a_damaged_ledger_is_named(books):
    books.ledger.close()
    books.path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StateCorrupt, match=r"ledger\.db"):
        books.reader.lost()
    with pytest.raises(StateCorrupt, match=r"ledger\.db"):
        books.open()
    books.path.unlink()
    books.ledger = books.open()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=12))
def test_in_whatever_order_epochs_come_and_come_again_each_record_counts_once(
    books, record, deliveries
):
    """`deliveries`: which epoch's next batch each transaction brings; every other one brings what
    that epoch had before, too."""
    before = books.requests()
    run = f"{len(books.rows('SELECT * FROM epochs'))}"
    sent: dict[int, list[Batch]] = {}
    for number, epochs in enumerate(deliveries):
        bring = []
        for epoch in epochs:
            old = sent.setdefault(epoch, [])
            if number % 2:
                bring += old
            new = batch(2 * len(old) + 1, record(1), record(2), epoch=f"{run}-{epoch}")
            old.append(new)
            bring.append(new)
        books.ledger.apply(bring)
    assert books.requests() - before == 2 * sum(len(batches) for batches in sent.values())


def test_a_changed_price_sheet_holds_from_the_next_day(books):
    first, dear = Prices(), Prices(request=Decimal(1))
    euros = Prices(currency="EUR")
    day = int(books.now) // 86_400 * 86_400
    books.ledger.hold_prices(first)
    books.ledger.hold_prices(first)
    assert books.reader.sheets() == ((0, first),)
    books.ledger.hold_prices(dear)
    assert books.reader.sheets() == ((0, first), (day + 86_400, dear))
    books.ledger.hold_prices(first)  # taken back before it held
    assert books.reader.sheets() == ((0, first),)
    books.ledger.hold_prices(euros)
    month = parse_month("2026-11")[1]  # of NOW
    assert books.reader.sheets() == ((0, first), (month, euros))
    books.now = month + 1.0
    books.ledger.hold_prices(euros)
    assert books.reader.sheets() == ((0, first), (month, euros))
