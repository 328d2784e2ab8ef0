"""`isopod apps`, `app`, `delete`, `open` and `sleep`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from isopod.cli import output, snapshot
from isopod.cli.options import AsJson, DataDir, InTenant, Name, connect
from isopod.errors import UsageError


def register(cli: typer.Typer) -> None:
    cli.command("apps", epilog="Example: isopod apps --json")(list_apps)
    cli.command("app", epilog="Example: isopod app hello")(show_app)
    cli.command("delete", epilog="Example: isopod delete hello --yes")(delete)
    cli.command("open", epilog="Example: isopod open hello")(open_app)
    cli.command("sleep", epilog="Example: isopod sleep hello")(sleep)


def list_apps(as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None) -> None:
    """List the apps on the node."""
    with connect(data_dir, tenant) as client:
        found = client.apps()
    if as_json:
        output.print_json(found)
        return
    if not found:
        output.note("no apps yet; `isopod deploy` makes one")
        return
    output.table(
        ("NAME", "URL", "VERSION", "RUNTIME", "INSTANCES", "REQUESTS", "DEPLOYED"),
        (
            (
                app["name"],
                app["url"],
                app["version"],
                app["runtime"],
                app["instances"] or ("asleep" if app["needs_instances"] else "-"),
                app["requests"],
                output.ago(app["deployed_at"]),
            )
            for app in found
        ),
    )


def show_app(
    name: Name, as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """Show one app, its versions and its instances."""
    with connect(data_dir, tenant) as client:
        found = client.app(name)
    if as_json:
        output.print_json(found)
        return
    app = found["app"]
    dependencies = ", ".join(f"{n} {v}" for n, v in found["dependencies"])
    output.fields(
        [
            ("name", app["name"]),
            ("url", app["url"]),
            ("version", f"{app['version']} ({app['digest'][:12]})"),
            ("runtime", app["runtime"]),
            ("entrypoint", found["entrypoint"]),
            ("source", app["source"].partition(":")[2] or "unknown"),
            ("env", ", ".join(found["env_names"]) or "none"),
            ("secrets", ", ".join(found["secrets"]) or "none"),
            ("scaling", _pairs(found["scaling"])),
            ("limits", _pairs(found["limits"])),
            ("health", found["health_path"]),
            *_static(found),
            ("network", ", ".join(found["network"]) or "none"),
            *_egress(found),
            ("dependencies", dependencies or "none"),
            *snapshot.fields(found),
            ("requests", f"{app['requests']} ({app['cold_starts']} cold, {app['errors']} failed)"),
        ]
    )
    output.say()
    output.table(
        ("VERSION", "DIGEST", "MADE", ""),
        (
            (v["number"], v["digest"][:12], output.ago(v["created_at"]), "live" * v["live"])
            for v in found["versions"]
        ),
    )
    if found["instances"]:
        output.say()
        output.table(
            ("INSTANCE", "WORKER", "VERSION", "STATE", "MEMORY", "REQUESTS", "AGE"),
            (
                (
                    i["id"],
                    i["worker"],
                    i["version"],
                    i["state"],
                    output.mib(i["memory_bytes"]),
                    i["requests"],
                    f"{i['age_s']:.0f} s",
                )
                for i in found["instances"]
            ),
        )


def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Delete an app, all its versions and its log."""
    with connect(data_dir, tenant) as client:
        if not yes:
            client.app(name)  # before the question: a name that is not there needs none
            if not sys.stdin.isatty():
                raise UsageError(
                    f"deleting app {name!r} cannot be undone", hint="say --yes to do it"
                )
            question = f"Delete app {name!r}, all its versions and its log? [y/N] "
            sys.stderr.write(question)
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                output.note("Nothing was deleted.")
                raise typer.Exit(1)
        done = client.delete(name)
    if as_json:
        output.print_json(done)
    else:
        output.say(f"app {name!r} is deleted")


def open_app(
    name: Name, as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """Open an app in the browser; prints its URL."""
    with connect(data_dir, tenant) as client:
        url = client.app(name)["app"]["url"]
    if as_json:
        output.print_json({"url": url})
        return
    output.say(url)
    if sys.stdout.isatty():
        import webbrowser

        webbrowser.open(url)


def sleep(
    name: Name, as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """End an app's idle instances now; the next request wakes it."""
    with connect(data_dir, tenant) as client:
        done = client.sleep(name)
    if as_json:
        output.print_json(done)
    else:
        output.say(f"{name} sleeps; {done['ended']} instances ended")


def _static(found: dict[str, Any]) -> list[tuple[str, object]]:
    """Of an app that has files beside it."""
    served = found["static"].items()
    return [("static", ", ".join(f"{path} = {folder}" for path, folder in served))] * bool(served)


def _egress(found: dict[str, Any]) -> list[tuple[str, object]]:
    """What bounds the network of an app that has one."""
    bound = found["egress"]
    may = [] if bound is None else [("tenant may reach", ", ".join(bound) or "nothing")]
    if not found["network"]:
        return [*may]
    return [*may, ("network limits", _pairs(found["network_limits"]))]


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in values.items())
