"""What e2e tests share: nodes of their own, apps in folders, and waiting until something is so."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tools import node as nodes
from tools.forked import Forked
from tools.http_calls import Answer, Caller
from tools.node import Node

APPS = Path(__file__).parent / "apps"
# For what comes in milliseconds on a machine that has nothing else to do. A test says that it comes
# at all; one that is about how long it takes says so itself.
PATIENCE_S = 120.0
HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%s"]
"""


@functools.cache
def commands() -> Forked:
    """What runs the command line for all nodes of this process, and ends with it."""
    forked = Forked()
    atexit.register(forked.close)
    return forked


def folder(path: Path, files: Mapping[str, str]) -> Path:
    """A folder with these files."""
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def hello(path: Path, text: str = "hello") -> Path:
    """The smallest app."""
    return folder(path, {"app.py": HELLO % text})


@contextlib.contextmanager
def up(
    data_dir: Path,
    *options: str,
    workers: int = 1,
    extra_env: Mapping[str, str] | None = None,
    said: Path | None = None,
    program: Sequence[str] = (),
) -> Iterator[Node]:
    """A node that is ready; stopped at the end, when nothing of it may remain. One that the test
    has ended is left alone."""
    options = ("--port", "0", "--control-port", "0", *options)
    said = said or data_dir.with_name(f"{data_dir.name}.log")
    node = nodes.start(
        data_dir,
        said=said,
        workers=workers,
        options=options,
        extra_env=extra_env,
        program=program,
        run_command=commands().run,
    )
    try:
        node.wait_until_ready()
        yield node
    finally:
        print(node.said)  # pytest shows it when the test fails
        if node.process.poll() is None:
            node.stop()


def copied(stopped: Path, to: Path) -> Path:
    """The data of a node that has ended, for another one to start on: cheaper than a deploy."""
    shutil.copytree(stopped, to, symlinks=True, ignore=shutil.ignore_patterns("run"))
    return to


def deploy_all(node: Node, *deploys: Sequence[str]) -> None:
    """Deploy each (the words after `isopod deploy`); two at a time, as many as a tenant may."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda words: node.cli("deploy", *words), deploys))


def refused(data_dir: Path, *options: str, within_s: float = PATIENCE_S) -> tuple[int, str]:
    """A start that must fail: its exit status, and what it said."""
    options = ("--port", "0", "--control-port", "0", *options)
    said = data_dir.with_name(f"{data_dir.name}.refused.log")
    said.unlink(missing_ok=True)
    node = nodes.start(data_dir, said=said, workers=1, options=options)
    try:
        return node.process.wait(within_s), node.said
    finally:
        if node.process.poll() is None:
            node.stop()


def get(node: Node, app: str, path: str = "/", **headers: str) -> Answer:
    """One request on a connection of its own."""
    with Caller(node.gateway_port, app) as caller:
        return caller.call(path, **headers)


def had(ask: Callable[[], Answer]) -> Answer:
    """The answer of an app with a short deadline: asked again, where the machine is so busy that it
    had no instance for so long."""
    answers: list[Answer] = []

    def answered() -> bool:
        answers[:] = [ask()]
        return answers[0]["X-Isopod-Error"] != "overloaded"

    until("an instance", answered)
    return answers[0]


def text(node: Node, app: str, path: str = "/") -> str:
    answer = get(node, app, path)
    assert answer.status == 200, (answer.status, answer.text)
    return answer.text


def dial(node: Node, path: str, app: str = "sockets", **options: Any) -> ClientConnection:
    """A WebSocket on a connection of its own."""
    url = f"ws://{app}.localhost:{node.gateway_port}{path}"
    address = ("127.0.0.1", node.gateway_port)
    return connect(url, sock=socket.create_connection(address), **options)


def until(what: str, look: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Look again and again until there is something to see; then that."""
    end = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.02)
    return found


def log(node: Node, app: str) -> list[dict[str, Any]]:
    """All lines of an app's log, by the command line."""
    return [json.loads(line) for line in node.cli("logs", app, "--json").splitlines()]


def messages(node: Node, app: str, request_id: str = "") -> str:
    return "\n".join(
        line["message"]
        for line in log(node, app)
        if not request_id or line["request_id"] == request_id
    )


class Failed:
    """A command that must fail, and the error it showed."""

    def __init__(self, node: Node, *arguments: str, cwd: Path | None = None) -> None:
        done = node.run(*arguments, cwd=cwd)
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        assert self.status, f"it worked: {done.stdout}"
        shown = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(shown) == 1, self.err
        self.message = shown[0].removeprefix("error: ")
        self.code = self.err.partition("code: ")[2].split()[0]
        self.hint = self.err.partition("  hint: ")[2].strip()
        assert "Traceback" not in self.message
        print(f"SEEN {' '.join(arguments)}: {self.code} ({self.status}): {self.message}")
