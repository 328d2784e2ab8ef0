"""Rows of jobs and runs: who claims one, and what another tenant sees of it."""

from contextlib import closing

import pytest

from isopod.model.ids import AppName
from isopod.model.job import Outcome
from isopod.model.tenant import TenantName
from isopod.state.database import open_state
from isopod.state.jobs import KEPT_RUNS, Claim, Timed

ACME, GLOBEX = TenantName("acme"), TenantName("globex")


@pytest.fixture
def state(tmp_path):
    with closing(open_state(tmp_path / "state.db")) as state:
        for tenant, name in ((ACME, "shop"), (GLOBEX, "till")):
            state.of(tenant).apps.save(AppName(name), source="", now=1.0)
        yield state


def shop_of(state) -> AppName:
    return state.of(ACME).apps.get(AppName("shop")).label


def test_a_deploy_keeps_the_time_of_a_job_whose_schedule_is_as_before(state):
    jobs, shop = state.of(ACME).jobs, shop_of(state)
    jobs.put(shop, [Timed("tidy", "0 * * * *", 10.0), Timed("mail", "1 * * * *", 11.0)])
    jobs.put(shop, [Timed("tidy", "0 * * * *", 99.0), Timed("send", "2 * * * *", 12.0)])
    assert jobs.of_app(shop) == [Timed("send", "2 * * * *", 12.0), Timed("tidy", "0 * * * *", 10.0)]
    jobs.put(shop, [Timed("tidy", "5 * * * *", 99.0)])
    assert jobs.of_app(shop) == [Timed("tidy", "5 * * * *", 99.0)]


def test_of_two_that_look_at_the_clock_one_has_the_run(state):
    jobs, shop = state.of(ACME).jobs, shop_of(state)
    jobs.put(shop, [Timed("tidy", "0 * * * *", 10.0)])
    (due,) = state.node.jobs.due(10.0, limit=5)
    assert (due.tenant, due.app) == (ACME, shop)
    assert [jobs.move(shop, due.job, next_at=20.0) for _ in range(2)] == [True, False]
    claim = Claim("tidy", 10.0, "schedule", 1)
    first = jobs.begin(shop, claim, now=10.5)
    assert first is not None
    assert jobs.begin(shop, claim, now=10.6) is None
    assert state.node.jobs.due(19.9, limit=5) == []


def test_a_run_ends_once_and_is_interrupted_only_while_it_is_under_way(state):
    jobs, shop = state.of(ACME).jobs, shop_of(state)
    ended = jobs.begin(shop, Claim("tidy", 10.0, "hand", 1), now=10.0)
    left = jobs.begin(shop, Claim("mail", 10.0, "schedule", 1), now=10.0)
    jobs.end(shop, ended, Outcome("ok", status=204, request_id="r", cpu_ms=1.5), now=11.0)
    ((tenant, app, run),) = state.node.jobs.interrupt(now=12.0)
    assert (tenant, app, run.id) == (ACME, shop, left)
    assert state.node.jobs.interrupt(now=13.0) == []
    jobs.end(shop, left, Outcome("ok"), now=14.0)  # too late
    newest, first = jobs.runs(shop, limit=10)
    assert (newest.outcome, newest.ended_at) == ("interrupted", 12.0)
    assert (first.outcome, first.status, first.request_id) == ("ok", 204, "r")


def test_a_tenant_neither_sees_nor_changes_anothers_jobs(state):
    mine, theirs, shop = state.of(ACME).jobs, state.of(GLOBEX).jobs, shop_of(state)
    timed = Timed("tidy", "0 * * * *", 10.0)
    mine.put(shop, [timed])
    run = mine.begin(shop, Claim("tidy", 10.0, "hand", 1), now=10.0)
    theirs.put(shop, [])
    theirs.end(shop, run, Outcome("ok"), now=11.0)
    assert theirs.move(shop, timed, next_at=5.0) is False
    assert theirs.begin(shop, Claim("tidy", 20.0, "hand", 1), now=20.0) is None
    assert (theirs.of_app(shop), theirs.runs(shop, limit=9), theirs.run(shop, run)) == (
        [],
        [],
        None,
    )
    assert mine.of_app(shop) == [timed]
    assert [one.outcome for one in mine.runs(shop, limit=9)] == ["running"]


def test_of_a_jobs_runs_the_last_are_kept_and_none_of_a_deleted_app(state):
    mine, shop = state.of(ACME), shop_of(state)
    mine.jobs.put(shop, [Timed("tidy", "0 * * * *", 10.0)])
    mine.jobs.note(shop, Claim("mail", 1.0, "schedule", 1), outcome="missed", message="", now=1.0)
    with state.transaction() as t:
        for number in range(KEPT_RUNS + 20):
            claim = Claim("tidy", float(number), "schedule", 1)
            t.of(ACME).jobs.note(shop, claim, outcome="missed", message="", now=1.0)
    runs = mine.jobs.runs(shop, job="tidy", limit=1000)
    assert [run.due_at for run in runs][:: KEPT_RUNS - 1] == [KEPT_RUNS + 19.0, 20.0]
    assert len(mine.jobs.runs(shop, limit=1000)) == KEPT_RUNS + 1
    mine.apps.delete(AppName("shop"), now=2.0)
    mine.apps.save(AppName("shop"), source="", now=3.0)
    assert mine.jobs.runs(shop_of(state), limit=9) == []
    assert state.node.jobs.due(99.0, limit=9) == []


def test_the_newest_run_of_each_job_is_told_to_its_tenant(state):
    jobs, shop = state.of(ACME).jobs, shop_of(state)
    for job, due in (("tidy", 1.0), ("mail", 2.0), ("tidy", 3.0)):
        jobs.begin(shop, Claim(job, due, "hand", 1), now=due)
    assert {job: run.due_at for job, run in jobs.newest(shop).items()} == {"tidy": 3.0, "mail": 2.0}
    assert state.of(GLOBEX).jobs.newest(shop) == {}


def test_a_tenant_with_many_jobs_does_not_make_others_late(state):
    till = state.of(GLOBEX).apps.get(AppName("till")).label
    many = [Timed(f"job{n}", "* * * * *", float(n)) for n in range(9)]
    state.of(ACME).jobs.put(shop_of(state), many)
    state.of(GLOBEX).jobs.put(till, [Timed("mail", "* * * * *", 9.0), Timed("z", "* * * * *", 8.0)])
    due = state.node.jobs.due(10.0, limit=4)
    assert [one.job.name for one in due] == ["job0", "z", "job1", "mail"]
