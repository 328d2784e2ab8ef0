"""`isopod jobs`: list, runs, run."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, InTenant, Name, connect
from isopod.errors import JobFailed

if TYPE_CHECKING:
    from isopod.client import Client

_LOOK_S = 0.25

jobs = typer.Typer(
    help="What apps do by the clock: [[jobs]] in isopod.toml.",
    epilog="Examples:\n\nisopod jobs list --json\n\nisopod jobs runs shop tidy\n\n"
    "isopod jobs run shop tidy",
    no_args_is_help=True,
)
_Job = Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")]


def register(cli: typer.Typer) -> None:
    jobs.command("list", epilog="Examples:\n\nisopod jobs list\n\nisopod jobs list shop --json")(
        list_jobs
    )
    jobs.command(
        "runs", epilog="Examples:\n\nisopod jobs runs shop\n\nisopod jobs runs shop tidy --json"
    )(runs)
    jobs.command(
        "run",
        epilog="Examples:\n\nisopod jobs run shop tidy\n\nisopod jobs run shop tidy --no-wait",
    )(run)
    cli.add_typer(jobs, name="jobs")


def list_jobs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The app's name; none: all apps.")
    ] = None,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """List jobs, when each is due, and how its last run went."""
    with connect(data_dir, tenant) as client:
        found = client.jobs(name)
    if as_json:
        output.print_json(found)
        return
    if not found:
        output.note("no jobs; [[jobs]] in isopod.toml makes one")
        return
    output.table(
        ("APP", "JOB", "SCHEDULE", "DOES", "NEXT (UTC)", "LAST"),
        (
            (
                one["app"],
                one["name"],
                one["schedule"],
                one["command"] or f"POST {one['path']}",
                _utc(one["next_at"]),
                _last(one["last"]),
            )
            for one in found
        ),
    )


def runs(
    name: Name,
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="The job's name; none: all of the app's.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="The last so many.")] = 50,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Show the runs of an app's jobs, newest first; also those that were missed."""
    with connect(data_dir, tenant) as client:
        found = client.job_runs(name, job=job or "", limit=limit)
    if as_json:
        output.print_json(found)
        return
    output.table(
        ("RUN", "JOB", "DUE (UTC)", "BY", "TRY", "VERSION", "TOOK", "OUTCOME", "REQUEST"),
        (
            (
                one["id"],
                one["job"],
                _utc(one["due_at"]),
                one["trigger"],
                one["attempt"],
                one["version"],
                _took(one),
                f"{one['outcome']}: {one['message']}" if one["message"] else one["outcome"],
                one["request_id"],
            )
            for one in found
        ),
        right=frozenset({"RUN", "TRY", "VERSION", "TOOK"}),
    )


def run(
    name: Name,
    job: _Job,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it has ended.")] = True,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Run a job now. Ends with status 1 when it fails."""
    with connect(data_dir, tenant) as client:
        began = client.run_job(name, job)
        ended = _until_ended(client, name, began) if wait else began
    if as_json:
        output.print_json(ended)
    elif not wait:
        output.say(f"run {ended['id']} of job {job!r} has begun")
    elif ended["outcome"] == "ok":
        output.say(f"job {job!r} ran in {_took(ended)}")
    if wait and ended["outcome"] != "ok":
        more = f": {ended['message']}" if ended["message"] else ""
        raise JobFailed(
            f"job {job!r} of app {name!r} failed: {ended['outcome']}{more}",
            hint=f"`isopod logs {name} --request {ended['request_id']}` has what it printed"
            if ended["request_id"]
            else "",
        )


def _until_ended(client: Client, name: str, run: dict[str, Any]) -> dict[str, Any]:
    while run["ended_at"] is None:
        time.sleep(_LOOK_S)
        run = client.job_run(name, run["id"])
    return run


def _utc(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _took(run: dict[str, Any]) -> str:
    if run["ended_at"] is None:
        return "-"
    return f"{run['ended_at'] - run['started_at']:.2f} s"


def _last(run: dict[str, Any] | None) -> str:
    return "never" if run is None else f"{run['outcome']}, {output.ago(run['started_at'])}"
