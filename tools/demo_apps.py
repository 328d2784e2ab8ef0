"""What `make demo` deploys, one example for each language at least, and what each must answer."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.http_calls import Answer, Caller, multipart
from tools.node import ROOT
from tools.reactors import Make, kept, make_c, make_rust

EXAMPLES = ROOT / "examples"


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


def call_hono(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and page.text == "Hello Hono\n", "hello", page)
    user = app.call("/users/7?q=x")
    expect(user.json() == {"id": "7", "q": "x"}, "a route with parameters", user)
    body = b'{"a": [1]}'
    echoed = app.call("/echo", "POST", body, Content_Type="application/json")
    expect(echoed.json() == {"got": {"a": [1]}}, "the echo", echoed)
    pieces = app.pieces("/stream")
    if b"".join(pieces) != b"one\ntwo\nthree\n":
        raise Wrong(f"the stream: got {pieces!r}")
    return "routes, JSON, a stream"


def call_worker(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and page.text.startswith("Hello "), "hello", page)
    one, two = (app.call("/random") for _ in range(2))
    expect(one.json()["id"] != two.json()["id"], "two random ids", two)
    body = "ä streams through" * 5000
    upper = app.call("/upper", "POST", body.encode())
    expect(upper.text == body.upper(), "the stream in capitals", upper)
    return "ids, a stream in capitals"


def call_rack(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and page.text == "<h1>Hello Rack</h1>\n", "the page", page)
    one, two = (app.call("/random") for _ in range(2))
    expect(one.json()["n"] != two.json()["n"], "two random numbers", two)
    body = b'{"a": [1]}'
    sent = app.call("/api/x", "POST", body, Content_Type="application/json")
    expect(sent.json() == {"path": "/x", "method": "POST", "sent": {"a": [1]}}, "the echo", sent)
    if b"".join(app.pieces("/stream")) != b"line 0\nline 1\nline 2\n":
        raise Wrong("the stream is another")
    return "middleware, JSON, a stream"


def call_go(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and page.text == "Hello from Go!\n", "hello", page)
    greeted = app.call("/hello/Ada")
    expect(greeted.json()["hello"] == "Ada", "a route with a parameter", greeted)
    upper = app.call("/upper", "POST", b"streams")
    expect(upper.text == "STREAMS", "the body in capitals", upper)
    squares = app.call("/squares")
    expect("81" in squares.text, "ten goroutines", squares)
    return "routes, JSON, ten goroutines"


def call_guestbook(app: Caller) -> str:
    empty = app.call("/", "POST", b"")
    expect(empty.status == 422, "a line that is none", empty)
    for name in (b"Ada", b"Grace"):
        signed = app.call("/", "POST", name)
        expect(signed.status == 303, "a line for the book", signed)
    book = app.call()
    expect(book.text.endswith("Ada\nGrace\n"), "the book", book)
    return "a book on a volume"


def call_primes(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and page.text == "Hello from C!\n", "hello", page)
    prime = app.call("/prime/999983")
    expect(prime.text == "999983 is prime\n", "what the setup sieved", prime)
    data = os.urandom(300_000)
    echoed = app.call("/", "POST", data)
    expect(echoed.body == data, "the echo", echoed)
    return "a sieve from its setup, an echo"


def call_rust(app: Caller) -> str:
    page = app.call()
    expect(page.status == 200 and page.text == "Hello from Rust!\n", "hello", page)
    square = app.call("/square/99999")
    expect(square.text == "9999800001\n", "what the setup computed", square)
    upper = app.call("/", "POST", b"streams")
    expect(upper.text == "STREAMS", "the body in capitals", upper)
    return "squares from its setup"


@dataclass(frozen=True, slots=True)
class Example:
    """A folder of `examples/`. `prepare`: its runtime, when a node does not prepare that by itself.
    `build`: what `make` would run there, with this Python. `reactor`: what makes its module, and
    the source of that. `volume`: one that it mounts."""

    name: str
    language: str
    call: Callable[[Caller], str]
    prepare: str = ""
    build: tuple[str, ...] = ()
    reactor: tuple[Make, str] | None = None
    volume: str = ""

    def made(self, into: Path, cache: Path) -> Path:
        """The folder to deploy. Raises NoCompiler."""
        if self.reactor is not None:
            make, source = self.reactor
            module = kept(make, EXAMPLES / self.name / source, cache)
            folder = into / self.name
            folder.mkdir()
            shutil.copyfile(module, folder / "app.wasm")
            return folder
        if not self.build:
            return EXAMPLES / self.name
        folder = shutil.copytree(EXAMPLES / self.name, into / self.name)
        subprocess.run([sys.executable, "-m", *self.build], cwd=folder, check=True)
        return folder


# As its Makefile says.
_ZIG = ("ziglang", "cc", "-target", "wasm32-wasi", "-O2", "-s", "-Wl,-z,stack-size=262144")
DEMO = (
    Example("flask-hello", "Python", call_hello),
    Example("flask-forms", "Python", call_forms),
    Example("pandas-report", "Python", call_report),
    Example("bare-wsgi", "Python", call_bare),
    Example("hono-hello", "JavaScript", call_hono, prepare="javascript"),
    Example("js-worker", "JavaScript", call_worker, prepare="javascript"),
    Example("go-hello", "Go", call_go, prepare="go"),
    Example(
        "c-guestbook",
        "C (WASI)",
        call_guestbook,
        build=(*_ZIG, "-o", "guestbook.wasm", "guestbook.c"),
        volume="book",
    ),
    Example("c-reactor", "C (reactor)", call_primes, reactor=(make_c, "app.c")),
    Example("rust-hello", "Rust (reactor)", call_rust, reactor=(make_rust, "src/lib.rs")),
    Example("rack-hello", "Ruby", call_rack, prepare="ruby"),
    Example("static-site", "static", call_static),
)
