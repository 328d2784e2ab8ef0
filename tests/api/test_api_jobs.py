"""Jobs through the API and the clock, with a worker that answers as the test says."""

import asyncio
import json
import sqlite3
import time
from contextlib import asynccontextmanager, closing

from tests.api.workers import fake_worker

from isopod.control import job_runs
from isopod.control.job_clock import run_jobs, start_due
from isopod.model.tenant import DEFAULT_TENANT

TIDY = {"name": "tidy", "schedule": "0 * * * *", "path": "/tidy", "timeout_s": 30, "retries": 0}
HOUR = 3600.0


class Clock:
    """The node's, as the test sets it: at first a little after a full hour."""

    def __init__(self, node) -> None:
        self.now = time.time() // HOUR * HOUR + 1
        object.__setattr__(node, "clock", lambda: self.now)


@asynccontextmanager
async def with_jobs(opened, *jobs: dict, answer=lambda _question: {"code": "ok", "status": 200}):
    async with opened() as api:
        clock = Clock(api.node)
        async with fake_worker(api.node.settings.run_dir, answer) as worker:
            await api.deployed(env={"JOBS": json.dumps(jobs or [TIDY])})
            yield api, clock, worker
            await api.node.jobs.stop()


async def runs(api, **query) -> list[dict]:
    response = await api.http.get("/v1/apps/hello/job-runs", params=query)
    return response.json()["runs"]


async def ended(api, count: int = 1) -> list[dict]:
    """The runs, when `count` have ended."""
    async with asyncio.timeout(60):
        while sum(run["ended_at"] is not None for run in await runs(api)) < count:
            await asyncio.sleep(0.01)
    return await runs(api)


def logged(api) -> list[dict]:
    path = api.node.settings.logs_dir / "hello.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_job_runs_when_it_is_due_and_not_before_and_once(opened, run):
    async def main():
        async with with_jobs(opened) as (api, clock, worker):
            assert await start_due(api.node) == 0
            (job,) = (await api.get("/v1/jobs"))["jobs"]
            assert (job["app"], job["name"], job["last"]) == ("hello", "tidy", None)
            due_at = clock.now - 1 + HOUR
            assert job["next_at"] == due_at
            clock.now += HOUR
            assert await start_due(api.node) == 1
            assert await start_due(api.node) == 0
            (only,) = await ended(api)
            assert (only["outcome"], only["trigger"], only["due_at"]) == ("ok", "schedule", due_at)
            assert worker.asked == [{"op": "run", "app": "hello", "job": TIDY | {"command": ""}}]
            (job,) = (await api.get("/v1/apps/hello/jobs"))["jobs"]
            assert (job["last"]["outcome"], job["next_at"]) == ("ok", due_at + HOUR)
            assert logged(api) == []

    run(main())


def test_what_was_missed_is_told_and_what_is_a_little_late_runs(opened, run):
    async def main():
        async with with_jobs(opened) as (api, clock, worker):
            clock.now += 3 * HOUR + 100
            assert await start_due(api.node) == 0
            (missed,) = await runs(api)
            assert missed["outcome"] == "missed"
            assert missed["message"].startswith("missed 3 times, last at ")
            (line,) = logged(api)
            assert (line["level"], line["stream"]) == ("warning", "isopod")
            assert line["message"].startswith("job 'tidy' missed 3 times")
            clock.now += HOUR - 60  # 40 s after the hour
            assert await start_due(api.node) == 1
            await ended(api, 2)
            assert len(worker.asked) == 1

    run(main())


def test_a_job_that_is_under_way_is_not_begun_again(opened, run):
    async def main():
        async with with_jobs(opened) as (api, clock, worker):
            worker.hold.clear()
            begun = (await api.http.post("/v1/apps/hello/jobs/tidy/run")).json()
            assert (begun["outcome"], begun["trigger"], begun["ended_at"]) == (
                "running",
                "hand",
                None,
            )
            again = await api.http.post("/v1/apps/hello/jobs/tidy/run")
            assert again.json()["error"]["code"] == "job_under_way"
            clock.now += HOUR
            assert await start_due(api.node) == 0
            worker.hold.set()
            skipped, first = await ended(api, 2)
            assert (skipped["outcome"], first["outcome"]) == ("skipped", "ok")
            assert first["id"] == begun["id"]
            assert await api.get(f"/v1/apps/hello/job-runs/{first['id']}") == first
            assert len(worker.asked) == 1
            for path in ("jobs/none/run", "jobs/tidy%2F..%2F/run"):
                assert (await api.http.post(f"/v1/apps/hello/{path}")).status_code == 404

    run(main())


def test_a_failed_job_is_tried_again_as_often_as_it_says(opened, run, monkeypatch):
    monkeypatch.setattr(job_runs, "_FIRST_RETRY_S", 0.01)
    answers = [{"code": "job_failed", "message": "it answered 500", "request_id": "r1"}, None]

    async def main():
        job = TIDY | {"retries": 2}
        async with with_jobs(opened, job, answer=lambda _question: answers.pop(0)) as (api, _, _w):
            answers.append({"code": "ok", "status": 200})
            await api.http.post("/v1/apps/hello/jobs/tidy/run")
            last, lost, first = await ended(api, 3)
            assert [one["attempt"] for one in (first, lost, last)] == [1, 2, 3]
            assert [one["outcome"] for one in (first, lost, last)] == [
                *("job_failed", "worker_lost", "ok")
            ]
            assert [one["trigger"] for one in (first, lost, last)] == ["hand", "retry", "retry"]
            first_line, second_line = logged(api)
            assert first_line["message"] == "job 'tidy' failed: job_failed: it answered 500"
            assert (first_line["request_id"], first_line["level"]) == ("r1", "error")
            assert second_line["message"].startswith("job 'tidy' failed, attempt 2: worker_lost")

    run(main())


def test_a_job_without_retries_fails_once(opened, run):
    async def main():
        async with with_jobs(opened, answer=lambda _question: {"code": "job_failed"}) as (api, *_):
            await api.http.post("/v1/apps/hello/jobs/tidy/run")
            (only,) = await ended(api)
            assert only["outcome"] == "job_failed"
            async with asyncio.timeout(60):
                while not api.node.jobs.reserve("hello", "tidy"):
                    await asyncio.sleep(0.01)

    run(main())


def test_what_control_left_behind_is_interrupted_and_tried_again(opened, run, monkeypatch):
    monkeypatch.setattr(job_runs, "_FIRST_RETRY_S", 0.01)

    async def main():
        async with with_jobs(opened, TIDY | {"retries": 1}) as (api, _clock, worker):
            worker.hold.clear()
            await api.http.post("/v1/apps/hello/jobs/tidy/run")
            async with asyncio.timeout(60):
                while not worker.asked:
                    await asyncio.sleep(0.01)
            await api.node.jobs.stop()  # the worker sees that nobody waits
            async with asyncio.timeout(60):
                while not worker.gone:
                    await asyncio.sleep(0.01)
            worker.hold.set()
            assert [one["outcome"] for one in await runs(api)] == ["running"]
            ticking = asyncio.create_task(run_jobs(api.node))
            again, first = await ended(api, 2)
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            assert (first["outcome"], again["outcome"], again["attempt"]) == (
                "interrupted",
                "ok",
                2,
            )
            assert "was interrupted" in logged(api)[0]["message"]

    run(main())


def test_jobs_follow_the_live_version_and_end_with_the_app(opened, run):
    async def main():
        async with with_jobs(opened) as (api, clock, worker):
            first = await api.get("/v1/jobs")
            other = TIDY | {"name": "mail", "schedule": "30 * * * *"}
            await api.deployed(b"second", env={"JOBS": json.dumps([other])})
            assert [job["name"] for job in (await api.get("/v1/jobs"))["jobs"]] == ["mail"]
            await api.http.post("/v1/apps/hello/rollback", json={"version": 1})
            assert await api.get("/v1/jobs") == first
            worker.hold.clear()
            await api.http.post("/v1/apps/hello/jobs/tidy/run")
            async with asyncio.timeout(60):
                while not worker.asked:
                    await asyncio.sleep(0.01)
            await api.http.delete("/v1/apps/hello")
            async with asyncio.timeout(60):
                while not worker.gone:
                    await asyncio.sleep(0.01)
            clock.now += HOUR
            assert await start_due(api.node) == 0
            assert api.node.state.of(DEFAULT_TENANT).apps.all() == []

    run(main())


def test_a_tenant_sees_its_own_jobs_only(opened, run):
    async def main():
        async with with_jobs(opened) as (api, _clock, worker):
            await api.http.post("/v1/apps/hello/jobs/tidy/run")
            (only,) = await ended(api)
            acme = await api.tenant("acme")
            assert await acme.get("/v1/jobs") == {"jobs": []}
            for path in ("jobs", "job-runs", f"job-runs/{only['id']}"):
                response = await acme.http.get(f"/v1/apps/hello/{path}")
                assert response.json()["error"]["code"] == "app_not_found"
            await acme.deployed(b"theirs", env={"JOBS": json.dumps([TIDY])})
            response = await acme.http.get(f"/v1/apps/hello/job-runs/{only['id']}")
            assert response.json()["error"]["code"] == "job_not_found"
            assert len(worker.asked) == 1

    run(main())


def test_a_damaged_app_keeps_no_others_jobs_from_running(opened, run, data_dir):
    async def main():
        async with with_jobs(opened) as (api, clock, worker):
            for name in ("alpha", "zeta"):
                await api.deployed(name=name, env={"JOBS": json.dumps([TIDY])})
            with closing(sqlite3.connect(data_dir / "state.db")) as db:
                db.execute("UPDATE versions SET package = 'x' WHERE app = 'hello'")
                db.commit()
            clock.now += HOUR
            assert await start_due(api.node) == 2
            async with asyncio.timeout(60):
                while len(worker.asked) < 2:
                    await asyncio.sleep(0.01)
            assert {asked["app"] for asked in worker.asked} == {"alpha", "zeta"}
            assert await start_due(api.node) == 0

    run(main())
