"""A node of one's own for the demo, the benches and the tests: free ports, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isopod.client import Client, NodeAddress
from tools import processes
from tools.processes import Process

ROOT = Path(__file__).resolve().parent.parent
# The first start on a machine compiles the Python runtime.
_START_S = 900
# A machine that does much else at the same time is slow, and no fault of the node's.
_STOP_S = 120
_GONE_S = 30
_ANSWER_S = 60


class Leftovers(Exception):
    """A node was stopped and something of it remains."""


# Runs the command line: its arguments, environment and folder.
RunCommand = Callable[
    [Sequence[str], Mapping[str, str], Path | None], subprocess.CompletedProcess[str]
]


def run_command(
    arguments: Sequence[str], env: Mapping[str, str], cwd: Path | None
) -> subprocess.CompletedProcess[str]:
    """The real command to its end, whatever that is."""
    return subprocess.run(
        [*command(), *arguments],
        env=dict(env),
        cwd=cwd,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


class Node:
    """`isopod up` on a data directory. Made by `start` or `running`."""

    def __init__(
        self,
        data_dir: Path,
        process: subprocess.Popen[bytes],
        env: dict[str, str],
        said: Path,
        run_command: RunCommand = run_command,
    ):
        self._run_command = run_command
        self.data_dir = data_dir
        self.process = process
        self.gateway_port = 0
        self.control_port = 0
        self.version = ""
        self._env = env
        self._said = said

    def wait_until_ready(self) -> None:
        """Returns when the node has written what it listens on; fails when it ends before."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"`isopod up` ended with status {self.process.returncode}")
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                found = json.loads((self.data_dir / "node.json").read_text())
                if found["pid"] == self.process.pid:  # else one that was killed left it
                    self.gateway_port, self.version = found["gateway_port"], found["version"]
                    self.control_port = found["control_port"]
                    return
            time.sleep(0.02)
        raise RuntimeError(f"`isopod up` was not ready after {_START_S} s")

    @property
    def said(self) -> str:
        """What the node printed so far; "" when that went to the terminal."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    @property
    def token(self) -> str:
        return (self.data_dir / "token").read_text().strip()

    def popen(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Starts the real command against this node; its output is in pipes."""
        return subprocess.Popen(
            [*command(), *arguments],
            env=self._env,
            cwd=cwd,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the real command against this node to its end, whatever that is."""
        return self._run_command(arguments, self._env, cwd)

    def cli(self, *arguments: str, show: bool = False) -> str:
        """Runs the real command against this node and returns what it printed. With `show` its
        output goes to the terminal instead. Raises when it fails."""
        if show:
            status = subprocess.run(
                [*command(), *arguments], env=self._env, stdin=subprocess.DEVNULL, check=False
            ).returncode
            out = said = ""
        else:
            done = self.run(*arguments)
            status, out = done.returncode, done.stdout
            said = f":\n{out}{done.stderr}"
        if status:
            raise RuntimeError(f"`isopod {' '.join(arguments)}` ended with status {status}{said}")
        return out

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self.cli(*arguments, "--json"))

    def sleep(self, app: str) -> None:
        """As `isopod sleep APP`, without the half second that a command takes to start."""
        address = NodeAddress(f"http://127.0.0.1:{self.control_port}", self.token, "")
        with Client(address) as client:
            client.sleep(app)

    def children(self) -> list[Process]:
        """Everything that the node has started and that still runs."""
        return processes.descendants(self.process.pid)

    def workers(self) -> list[Process]:
        """The worker processes, by their number."""
        return sorted(
            (
                process
                for process in self.children()
                if "isopod.server.worker_process" in process.command
                and process.parent == self.process.pid  # each has a child that makes files
            ),
            key=lambda process: process.pid,
        )

    def worker_status(self) -> list[dict[str, Any]]:
        """What the workers themselves say on their admin sockets."""
        found = []
        for path in sorted((self.data_dir / "run").glob("worker-*.sock")):
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(_ANSWER_S)
                try:
                    line.connect(str(path))
                    line.sendall(b'{"op": "status"}\n')
                    with line.makefile("r") as reader:
                        answer = reader.readline()
                except (ConnectionError, FileNotFoundError):
                    continue  # of a worker that has just ended, or is just starting
                if answer:  # else it ended meanwhile
                    found.append(json.loads(answer))
        return found

    def instances(self) -> list[dict[str, Any]]:
        """The instances of all workers, each with its worker's number and pid."""
        return [
            {**instance, "worker": answer["worker"], "pid": answer["pid"]}
            for answer in self.worker_status()
            for instance in answer["instances"]
        ]

    def stop(self) -> None:
        """Ends the node as a service manager would, and raises `Leftovers` if anything of it
        still runs afterwards (and ends that too)."""
        family = processes.descendants(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        wrong = []
        try:
            if status := self.process.wait(_STOP_S):
                wrong.append(f"the node ended with status {status}")
        except subprocess.TimeoutExpired:
            wrong.append(f"the node did not end within {_STOP_S} s of SIGTERM")
            self.process.kill()
            self.process.wait()
        # Children end by the kernel's hand when their parent does: give it a moment.
        end = time.monotonic() + _GONE_S
        while (left := self._left(family)) and time.monotonic() < end:
            time.sleep(0.05)
        for process in left:
            wrong.append(f"still running: {process.pid} ({process.command[:200]})")
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if wrong:
            raise Leftovers("; ".join(wrong))

    def _left(self, family: list[Process]) -> list[Process]:
        named = {process.pid: process for process in processes.mentioning(str(self.data_dir))}
        for process in family:
            if process.alive():
                named[process.pid] = process
        return list(named.values())


def command() -> list[str]:
    """The `isopod` command of the interpreter that runs this."""
    installed = Path(sys.executable).with_name("isopod")
    if installed.exists():
        return [str(installed)]
    return [sys.executable, "-c", "from isopod.cli.main import main; main()"]


def environment(data_dir: Path) -> dict[str, str]:
    """Ours without settings for another node; the cache stays, it is content-addressed."""
    kept = {"ISOPOD_CACHE_DIR"}
    env = {k: v for k, v in os.environ.items() if not k.startswith("ISOPOD_") or k in kept}
    if command()[0] == sys.executable:
        env["PYTHONPATH"] = str(ROOT / "src")
    # A command that is killed leaves its temporary files where they are removed with the rest.
    temporary = data_dir.with_name("tmp")
    temporary.mkdir(exist_ok=True)
    return {**env, "ISOPOD_DATA_DIR": str(data_dir), "TMPDIR": str(temporary)}


def start(
    data_dir: Path,
    *,
    said: Path,
    workers: int | None = None,
    show: bool = False,
    options: tuple[str, ...] = ("--port", "0", "--control-port", "0"),
    extra_env: Mapping[str, str] | None = None,
    program: Sequence[str] = (),
    run_command: RunCommand = run_command,
) -> Node:
    """Starts `isopod up` (or `program` in the command's place); it is not ready yet. What it prints
    goes to `said`, or with `show` to the terminal. Who starts it stops it."""
    env = environment(data_dir) | dict(extra_env or {})
    arguments = ["up", "--data-dir", str(data_dir), *options]
    if workers:
        arguments += ["--workers", str(workers)]
    with said.open("ab") as log:
        process = subprocess.Popen(
            [*(program or command()), *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=None if show else log,
            stderr=None if show else log,
        )
    return Node(data_dir, process, env, said, run_command)


@contextlib.contextmanager
def running(*, workers: int | None = None, show: bool = False) -> Iterator[Node]:
    """A started node, stopped and removed at the end. With `show` what it prints is seen,
    otherwise only when it fails."""
    folder = Path(tempfile.mkdtemp(prefix="isopod-"))
    try:
        node = start(folder / "data", said=folder / "up.log", workers=workers, show=show)
        try:
            node.wait_until_ready()
            yield node
        except BaseException:
            if not show and sys.exc_info()[0] is not KeyboardInterrupt:
                sys.stderr.write(node.said[-4000:])
            raise
        finally:
            if node.process.poll() is None:
                node.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
