"""/v1/jobs and /v1/apps/NAME/jobs: what runs by the clock, and what came of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from isopod.api.context import TheApp, TheNode, Who, needs
from isopod.control.jobs import MAX_RUNS, JobSummary, get_run, list_jobs, list_runs, run_job
from isopod.model.job import Run

router = APIRouter(prefix="/v1", tags=["jobs"])


class JobList(BaseModel):
    jobs: list[JobSummary]


class RunList(BaseModel):
    runs: list[Run]


@router.get("/jobs", openapi_extra=needs("read"))
async def jobs(who: Who, node: TheNode) -> JobList:
    """The jobs of every app of the tenant."""
    return JobList(jobs=await list_jobs(who, None, node=node))


@router.get("/apps/{name}/jobs", openapi_extra=needs("read"))
async def jobs_of_app(who: Who, node: TheNode, name: TheApp) -> JobList:
    """The jobs of the app's live version."""
    return JobList(jobs=await list_jobs(who, name, node=node))


@router.get("/apps/{name}/job-runs", openapi_extra=needs("read"))
async def runs(
    who: Who,
    node: TheNode,
    name: TheApp,
    job: Annotated[str, Query(max_length=40, description="of this job only")] = "",
    limit: Annotated[int, Query(ge=0, le=MAX_RUNS, description="the last so many")] = 50,
) -> RunList:
    """Runs of the app's jobs, newest first; also those that were missed or skipped."""
    return RunList(runs=await list_runs(who, name, job, limit=limit, node=node))


@router.get("/apps/{name}/job-runs/{number}", openapi_extra=needs("read"))
async def one_run(who: Who, node: TheNode, name: TheApp, number: str) -> Run:
    """One run; `ended_at` is null while it is under way."""
    return await get_run(who, name, number, node=node)


@router.post("/apps/{name}/jobs/{job}/run", openapi_extra=needs("deploy"))
async def run(who: Who, node: TheNode, name: TheApp, job: str) -> Run:
    """Start a run now; it goes on by itself."""
    return await run_job(who, name, job, node=node)
