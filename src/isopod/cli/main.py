"""`isopod`: the entry, and the one place that turns errors into messages and exit statuses.

0 done; 1 the app's fault, or a check that did not pass (`doctor`, `usage verify`); 2 the caller's;
3 the node's; 130 stopped by Ctrl-C.
Every import of weight happens inside the command that needs it, so that each starts quickly.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from isopod import __version__
from isopod.cli import (
    apps,
    audit,
    deploy,
    doctor,
    init,
    jobs,
    login,
    logs,
    output,
    runtimes,
    secrets,
    status,
    tenants,
    tokens,
    up,
    usage,
    volumes,
)
from isopod.errors import DiskFull, IsopodError, UsageError
from isopod.settings_file import SettingInvalid

_OF_PATHS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)

cli = typer.Typer(
    name="isopod",
    help="A WebAssembly cloud you can run yourself: deploy unmodified web apps, asleep until "
    "a request wakes them.",
    epilog="First `isopod up`; then, in an app's folder, `isopod deploy`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.say(f"isopod {__version__}")
        raise typer.Exit


@cli.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@cli.command(epilog="Example: isopod version --json")
def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Print isopod's version."""
    if as_json:
        output.print_json({"version": __version__})
    else:
        output.say(f"isopod {__version__}")


for noun in (
    up,
    init,
    deploy,
    apps,
    secrets,
    logs,
    jobs,
    status,
    volumes,
    runtimes,
    login,
    usage,
    tenants,
    tokens,
    audit,
    doctor,
):
    noun.register(cli)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command; returns the exit status."""
    try:
        result = cli(args=args, prog_name="isopod", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except IsopodError as bad:
        output.print_error(bad)
        return bad.exit_status
    except SettingInvalid as bad:
        said = UsageError(str(bad), hint="see `isopod up --help`")
        output.print_error(said)
        return said.exit_status
    except KeyboardInterrupt:
        return 130
    except SystemExit:
        return 0  # the parser library met the broken pipe first, and silenced the streams
    except BrokenPipeError:
        # Whoever read us has enough. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except typer.Abort:
        return 130
    except OSError as bad:
        said_os = _of_a_file(bad)
        output.print_error(said_os)
        return said_os.exit_status
    except Exception as bad:
        # The parser's own errors: their class moved between versions of typer.
        message = getattr(bad, "format_message", None)
        if message is None:
            raise
        return _usage(bad, message())


def _of_a_file(bad: OSError) -> IsopodError:
    """Files and folders that a command reads or writes here were named by whoever gave it."""
    where = f"{bad.filename!r}: " if bad.filename else ""
    text = f"{where}{(bad.strerror or str(bad)).lower()}"
    if bad.errno == errno.ENOSPC:
        return DiskFull(text, hint="free space on this machine, then do it again")
    return UsageError(text) if isinstance(bad, _OF_PATHS) else IsopodError(text)


def _usage(bad: Exception, message: str) -> int:
    context = getattr(bad, "ctx", None)
    path = getattr(context, "command_path", "isopod")
    if type(bad).__name__ == "NoArgsIsHelpError":
        if message:
            output.say(message)
        return 2
    text = message[:1].lower() + message[1:].rstrip(".")
    output.print_error(UsageError(text, hint=f"see `{path} --help`"))
    return 2


if __name__ == "__main__":
    main()
