"""`isopod up`: start the node."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from isopod.cli import output


class _Terminal:
    """The supervisor's reporter on this terminal."""

    def __init__(self) -> None:
        self._bar = output.Bar()

    def say(self, text: str) -> None:
        with suppress(OSError):  # nobody reads any more: the node serves on
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def progress(self, fraction: float, text: str) -> None:
        self._bar.update(fraction, text)

    def progress_done(self) -> None:
        self._bar.stop()


def register(cli: typer.Typer) -> None:
    cli.command(
        epilog="Examples:\n\nisopod up --data-dir ./node --port 0\n\n"
        "ISOPOD_PORT=0 isopod up    (every option is also a variable)"
    )(up)


def up(
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="F", help="A settings file: isopod-node.toml. (ISOPOD_CONFIG)"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="Where the node keeps everything.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="H", help="Address apps are served on. (127.0.0.1)")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port apps are served on; 0 picks one. (8080)")
    ] = None,
    control_host: Annotated[
        str | None, typer.Option(metavar="H", help="Address of the API. (127.0.0.1)")
    ] = None,
    control_port: Annotated[
        int | None, typer.Option(help="Port of the API; 0 picks one. (8081)")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Gateway processes. (one per core)")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="D", help="Apps answer at NAME.D. (localhost)")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="Compiled runtimes. (~/.cache/isopod)")
    ] = None,
    memory_budget_mib: Annotated[
        int | None, typer.Option(metavar="MIB", help="Of all instances. (half of RAM)")
    ] = None,
    drain_s: Annotated[
        float | None, typer.Option(metavar="S", help="For requests in flight at a stop. (10)")
    ] = None,
    require_sandbox: Annotated[
        bool | None,
        typer.Option("--require-sandbox", help="Refuse a kernel that lacks a part of the sandbox."),
    ] = None,
) -> None:
    """Start the node and serve until Ctrl-C or SIGTERM."""
    from isopod.server.supervisor import up as run_node
    from isopod.settings import NodeSettings

    settings = NodeSettings.load(
        config=config,
        data_dir=data_dir,
        host=host,
        port=port,
        control_host=control_host,
        control_port=control_port,
        workers=workers,
        domain=domain,
        cache_dir=cache_dir,
        memory_budget_mib=memory_budget_mib,
        drain_s=drain_s,
        require_sandbox=require_sandbox,
    )
    status = run_node(settings, report=_Terminal())
    if status:
        raise typer.Exit(status)
