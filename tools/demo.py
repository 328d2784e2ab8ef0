"""`make demo`: a node of its own, the examples deployed by the real command and called over
HTTP, a table of what they answered and how fast; then everything is stopped and removed.

Ends with status 0 only when every answer was right and nothing is left behind.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.http_calls import Answer, Caller, multipart
from tools.node import ROOT, Leftovers, Node, running

EXAMPLES = ROOT / "examples"
WARM_CALLS = 20


class Wrong(Exception):
    """An app answered something else than it should."""


def expect(condition: bool, what: str, answer: Answer) -> None:
    if not condition:
        raise Wrong(f"{what}: got {answer.status} {answer.text[:300]!r}")


def call_hello(app: Caller) -> str:
    answer = app.call()
    expect(answer.status == 200 and answer.text == "Hello from Flask!\n", "hello", answer)
    missing = app.call("/nowhere")
    expect(missing.status == 404, "Flask's own 404", missing)
    return answer.text.strip()


def call_forms(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and "<form" in page.text, "the form", page)
    style = app.call("/static/style.css")
    expect(style.status == 200 and "body {" in style.text, "the static file", style)
    form = "application/x-www-form-urlencoded"
    bad = app.call("/", "POST", b"name=&email=x&pieces=0", Content_Type=form)
    expect(bad.status == 422 and "not an e-mail" in bad.text, "a wrong form", bad)
    good = app.call("/", "POST", b"name=Ada&email=ada%40x.org&pieces=3", Content_Type=form)
    expect(good.status == 200 and "Thank you, Ada" in good.text, "a right form", good)
    data = os.urandom(1 << 20)
    body, kind = multipart("file", "random.bin", data)
    sent = app.call("/upload", "POST", body, Content_Type=kind, Accept="application/json")
    digest = hashlib.sha256(data).hexdigest()
    want = {"name": "random.bin", "size": len(data), "sha256": digest}
    expect(sent.status == 200 and json.loads(sent.body) == want, "an upload", sent)
    return f"form ok, 1 MiB upload {digest[:12]}"


def call_report(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and "<table" in page.text, "the report", page)
    answer = app.call("/report.json")
    expect(answer.status == 200, "the report as JSON", answer)
    got: dict[str, int] = {name: row["pieces"] for name, row in json.loads(answer.body).items()}
    want: dict[str, int] = {}
    with (EXAMPLES / "pandas-report" / "sales.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            want[row["product"]] = want.get(row["product"], 0) + int(row["pieces"])
    expect(got == want, f"the totals {want}", answer)
    return "best: " + next(iter(got)) + f", {sum(got.values())} pieces"


def call_bare(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and "plain WSGI" in page.text, "the page", page)
    data = os.urandom(300_000)
    echoed = app.call("/echo", "POST", data, Content_Type="application/octet-stream")
    expect(echoed.status == 200 and echoed.body == data, "the echo", echoed)
    pieces = app.pieces("/stream")
    if b"".join(pieces).count(b"\n") != 5:
        raise Wrong(f"the stream: got {pieces!r}")
    return f"echo ok, stream in {len(pieces)} pieces"


def call_static(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and "a static site" in page.text, "the page", page)
    known = app.call("/", If_None_Match=page["ETag"])
    expect(known.status == 304, "the page that is known", known)
    part = app.call("/docs/", Range="bytes=0-14")
    expect(part.status == 206 and part.text == "<!doctype html>", "a part", part)
    old = app.call("/old/page")
    expect(old.status == 301 and old["Location"] == "/docs/", "the redirect", old)
    missing = app.call("/nowhere")
    expect(missing.status == 404 and "nothing at this" in missing.text, "its own 404", missing)
    return "page, part, redirect, 404"


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one app."""

    app: str
    status: int
    answered: str
    cold_ms: float
    warm_ms: float
    server_timing: str


CALLS: dict[str, Callable[[Caller], str]] = {
    "flask-hello": call_hello,
    "flask-forms": call_forms,
    "pandas-report": call_report,
    "bare-wsgi": call_bare,
    "static-site": call_static,
}


def visit(node: Node, name: str) -> Row:
    """The first request of an app finds no instance; those after it find a warm one."""
    with Caller(node.gateway_port, name) as app:
        cold = app.call()
        answered = CALLS[name](app)
        warm = [app.call().ms for _ in range(WARM_CALLS)]
    return Row(
        app=name,
        status=cold.status,
        answered=answered,
        cold_ms=cold.ms,
        warm_ms=statistics.median(warm),
        # "start;dur=371.94" as "start 372"
        server_timing=re.sub(
            r";dur=([\d.]+)",
            lambda found: f" {float(found[1]):.0f}",
            cold.headers.get("Server-Timing", "none"),
        ),
    )


def show(rows: list[Row], console: Console) -> None:
    table = Table(title=f"from zero instances, then warm (median of {WARM_CALLS})")
    for name, right in [
        ("app", False),
        ("status", True),
        ("answered", False),
        ("cold ms", True),
        ("warm ms", True),
        ("Server-Timing of the cold one, ms", False),
    ]:
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "app")
    for row in rows:
        table.add_row(
            row.app,
            str(row.status),
            row.answered,
            f"{row.cold_ms:.0f}",
            f"{row.warm_ms:.2f}",
            row.server_timing,
        )
    console.print(table)


def main() -> int:
    # A terminated demo takes its node with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    began = time.monotonic()
    try:
        console.print("[bold]isopod up[/] (in a temporary directory, on free ports)")
        with running(show=True) as node:
            for name in CALLS:
                console.print(f"\n[bold]isopod deploy examples/{name} --name {name}[/]")
                node.cli("deploy", str(EXAMPLES / name), "--name", name, show=True)
            console.print("\n[bold]calling each over HTTP[/]")
            show([visit(node, name) for name in CALLS], console)
            console.print("\n[bold]isopod status[/]")
            node.cli("status", show=True)
            console.print("\n[bold]stopping the node[/] (SIGTERM)")
    except (Wrong, Leftovers, RuntimeError) as error:
        console.print("[bold red]demo failed:[/]", escape(str(error)))
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    console.print(
        f"[bold green]done[/] in {time.monotonic() - began:.0f} s: every answer was right, "
        "no process and no file is left"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
