"""`isopod secrets`: values come from a prompt, standard input or a file, never from the command
line, where other programs and the shell's history see them; and they are never shown."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from isopod.cli import env_file, output
from isopod.cli.options import AsJson, Config, DataDir, InTenant, Name, connect
from isopod.errors import UsageError

_MAX_CHARS = 64 << 10

_group = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})


def register(cli: typer.Typer) -> None:
    cli.add_typer(
        _group,
        name="secrets",
        help="Set, list and unset an app's secrets: environment variables that nobody reads back.",
        epilog="Examples:\n\nisopod secrets set shop DATABASE_URL\n\n"
        "pass show stripe | isopod secrets set shop STRIPE_KEY\n\n"
        "isopod secrets set shop --env-file production.env\n\n"
        "isopod secrets list shop --json\n\nisopod secrets unset shop STRIPE_KEY\n\n"
        "isopod secrets rotate-key --data-dir /var/lib/isopod",
    )


@_group.command(
    "set",
    epilog="Examples:\n\nisopod secrets set shop DATABASE_URL\n\n"
    "isopod secrets set shop DATABASE_URL < url.txt\n\n"
    "isopod secrets set shop --env-file production.env",
)
def set_secrets(
    app: Name,
    secret: Annotated[
        str | None,
        typer.Argument(metavar="SECRET", help="Its name; the value is asked for, or read."),
    ] = None,
    env_files: Annotated[
        list[Path] | None,
        typer.Option("--env-file", metavar="F", help="A file of NAME=value lines: all of them."),
    ] = None,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Set secrets, and restart the app with them. It need not be deployed yet."""
    values: dict[str, str] = {}
    for path in env_files or ():
        values.update(env_file.read(path))
    if secret is not None:
        if "=" in secret:
            # Not quoted: what follows is the secret.
            raise UsageError(
                "a secret's value is not given on the command line",
                hint="say its name only: the value is asked for, or read from standard input",
            )
        values[secret] = _value(secret)
    if not values:
        raise UsageError(
            "nothing to set", hint="name a secret, or a file of NAME=value lines with --env-file"
        )
    with connect(data_dir, tenant) as client:
        done = client.change_secrets(app, values=values, unset=[])
    _show(app, done, as_json=as_json)


@_group.command("list", epilog="Example: isopod secrets list shop --json")
def list_secrets(
    app: Name, as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """List the names of an app's secrets."""
    with connect(data_dir, tenant) as client:
        found = client.secrets(app)
    if as_json:
        output.print_json(found)
    elif not found:
        output.note(f"app {app!r} has no secrets")
    else:
        output.table(
            ("SECRET", "CHANGED"), ((one["name"], output.ago(one["changed_at"])) for one in found)
        )


@_group.command("unset", epilog="Example: isopod secrets unset shop STRIPE_KEY DATABASE_URL")
def unset_secrets(
    app: Name,
    secrets: Annotated[list[str], typer.Argument(metavar="SECRET...", help="Their names.")],
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Remove secrets, and restart the app without them."""
    with connect(data_dir, tenant) as client:
        done = client.change_secrets(app, values={}, unset=secrets)
    _show(app, done, as_json=as_json)


def _value(name: str) -> str:
    """From the terminal without showing it, else all of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{name}: ")
    try:
        text = sys.stdin.read(_MAX_CHARS + 1)
    except UnicodeDecodeError:
        raise UsageError(f"the value of secret {name!r} is no text") from None
    # `echo` and editors end a line that is not meant.
    return text.removesuffix("\n").removesuffix("\r")


def _show(app: str, done: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        output.print_json(done)
        return
    names = {what: done[what] for what in ("changed", "removed")}
    said = [
        f"{what}: {', '.join(map(str, found))}"
        for what, found in names.items()
        if isinstance(found, list) and found
    ]
    if not said:
        output.say(f"app {app!r} has these secrets already; nothing was restarted")
        return
    then = "it runs with them now" if done["live"] else "its first deploy will be tried with them"
    output.say(f"app {app!r}: {'; '.join(said)}; {then}")


@_group.command(
    "rotate-key",
    epilog="Examples:\n\nisopod secrets rotate-key --data-dir /var/lib/isopod\n\n"
    "isopod secrets rotate-key --config isopod-node.toml --json",
)
def rotate_key(
    *,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="D", help="The node's folder.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Give a node that is stopped another key, and seal all secrets with it.

    Run it as the account that the node runs as. The former key is kept beside it, for backups of
    state.db from before. If it is killed, run it again, or start the node.
    """
    from dataclasses import asdict

    from isopod.server.rotation import rotate_key as rotate
    from isopod.settings import NodeSettings

    done = rotate(NodeSettings.load(config=config, data_dir=data_dir))
    if as_json:
        output.print_json(asdict(done))
        return
    output.say(f"{done.sealed} secrets are sealed with key {done.key} now")
    output.say(f"the former key, {done.former}, is in {done.former_path}")
    if done.unreadable:
        output.note(f"{done.unreadable} secrets did not open with it either: set them again")
