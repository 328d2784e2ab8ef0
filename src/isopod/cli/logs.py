"""`isopod logs`."""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime
from typing import Annotated, Any

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, InTenant, Name, connect
from isopod.errors import UsageError
from isopod.model.log import Level

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_COLOURS = {"error": "\x1b[31m", "warning": "\x1b[33m", "debug": "\x1b[2m"}
_OURS = "\x1b[36m"
# What an app prints may colour its text, and tell the terminal nothing else: to a terminal, other
# control characters are commands.
_CONTROLS = re.compile(r"(\x1b\[[0-9;]*m)|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def register(cli: typer.Typer) -> None:
    cli.command(
        "logs",
        epilog="Examples:\n\nisopod logs hello -f\n\nisopod logs hello --level warning --since 10m"
        "\n\nisopod logs hello --request 5f3b0c7d21e94a68 --json",
    )(logs)


def logs(
    name: Name,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="10m, 2h, 1d, or an ISO 8601 time.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="The last so many lines.")] = 1000,
    level: Annotated[
        Level | None, typer.Option(help="Lines this grave, or graver.", show_default="all")
    ] = None,
    request: Annotated[
        str, typer.Option(metavar="ID", help="Lines of one request: its X-Request-Id.")
    ] = "",
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Show what an app wrote, and what isopod says of it."""
    start = parse_since(since, time.time()) if since else 0.0
    colour = output.is_terminal(sys.stdout)
    with connect(data_dir, tenant) as client:
        lines = client.logs(
            name, since=start, limit=limit, follow=follow, level=level or "", request_id=request
        )
        for line in lines:
            if as_json:
                output.print_json(line, one_line=True)
            else:
                output.say(shown(line, colour=colour))
            if follow:
                sys.stdout.flush()
    if follow:
        output.note("the node ended the log")


def span_s(text: str) -> float | None:
    """Seconds of "30s", "10m", "2h" or "1d"; None when it is no span."""
    span = _SPAN.fullmatch(text.strip())
    return float(span[1]) * _SECONDS[span[2]] if span else None


def parse_since(text: str, now: float) -> float:
    """Seconds since the epoch; a time without a zone is local."""
    span = span_s(text)
    if span is not None:
        return max(0.0, now - span)
    try:
        return max(0.0, datetime.fromisoformat(text.strip()).timestamp())
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text!r} is neither a span nor a time",
            hint="e.g. 30s, 10m, 2h, 1d or 2026-01-31T12:00:00",
        ) from None


def shown(line: dict[str, Any], *, colour: bool) -> str:
    """`colour`: for a terminal."""
    stream = str(line.get("stream", ""))
    text = f"{output.moment(float(line.get('at', 0)))} {stream:<6} {line.get('message', '')}"
    if colour:
        text = _CONTROLS.sub(lambda m: m[1] or f"\\x{ord(m[0]):02x}", text.removesuffix("\r"))
        text += "\x1b[0m" * ("\x1b" in text)
    shade = _COLOURS.get(str(line.get("level")), _OURS if stream == "isopod" else "")
    return f"{shade}{text}\x1b[0m" if colour and shade else text
