"""`isopod runtimes` and `isopod runtimes prepare NAME`."""

from __future__ import annotations

from typing import Annotated

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, connect, subcommand_follows

_HELP = """List the language runtimes of the node, or prepare one.

MODULE is the digest of the WebAssembly module that is compiled, BUILDS that of all that a build
depends on; SIZE is that of the machine code."""
_group = typer.Typer(no_args_is_help=False, invoke_without_command=True)


def register(cli: typer.Typer) -> None:
    cli.add_typer(
        _group,
        name="runtimes",
        help=_HELP,
        epilog="Examples:\n\nisopod runtimes --json\n\nisopod runtimes prepare python",
    )


@_group.callback()
def runtimes(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    if subcommand_follows(context):
        return
    with connect(data_dir) as client:
        found = client.runtimes()
    if as_json:
        output.print_json(found)
        return
    output.table(
        ("NAME", "VERSION", "PREPARED", "SIZE", "MODULE", "BUILDS", "LICENCE"),
        (
            (
                one["name"],
                one["version"],
                "yes" if one["prepared"] else "no",
                output.mib(one["size_bytes"]),
                one["module"][:12] or "-",
                one["digest"][:12],
                one["licence"],
            )
            for one in found
        ),
    )


@_group.command(epilog="Example: isopod runtimes prepare python")
def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The runtime's name.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Compile a runtime for this machine, unless that is done already."""
    bar = output.Bar()
    with connect(data_dir) as client:
        try:
            for line in client.prepare_runtime(name):
                bar.update(line["progress"], line["text"])
        finally:
            bar.stop()
    if as_json:
        output.print_json({"name": name, "prepared": True})
    else:
        output.say(f"runtime {name!r} is prepared")
