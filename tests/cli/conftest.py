"""A real supervisor and control over stub workers and a stub builder, and the real CLI."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STUBS = Path(__file__).parent.parent / "stubs"


class StubNode:
    def __init__(self, data_dir: Path, env: dict[str, str], *options: str) -> None:
        self.data_dir, self.env = data_dir, env
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(STUBS / "stub_node.py"),
                *("--data-dir", str(data_dir), "--port", "0", "--control-port", "0"),
                *("--workers", "2", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        self.seen: list[str] = []

    def until(self, text: str) -> str:
        """The first line from now that holds `text`."""
        for line in self.process.stdout:
            self.seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"the node ended without {text!r}: {''.join(self.seen)}")

    @property
    def file(self) -> dict:
        return json.loads((self.data_dir / "node.json").read_text())

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit status, once it ends by itself."""
        self.seen += self.process.stdout.readlines()
        return self.process.wait(60)

    def cli(self, *args: str, **options) -> subprocess.CompletedProcess:
        return run_cli(self.env | {"ISOPOD_DATA_DIR": str(self.data_dir)}, *args, **options)

    @contextlib.contextmanager
    def running(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; one that is still there in the end is ended, so that a test
        which failed does not wait for it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "isopod.cli.main", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env | {"ISOPOD_DATA_DIR": str(self.data_dir)},
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()


def run_cli(env: dict[str, str], *args: str, stdin: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "isopod.cli.main", *args],
        input=stdin,
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
        check=False,
    )


@pytest.fixture
def env(tmp_path) -> dict[str, str]:
    """Nothing of this machine's own isopod."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ISOPOD_", "XDG_"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(STUBS), *filter(None, sys.path)]),
        "PYTHONSAFEPATH": "1",
        "HOME": str(tmp_path),
        "COLUMNS": "200",
    }


@pytest.fixture
def start(tmp_path, env):
    """Start a node; it is stopped in the end, whatever happens."""
    started: list[StubNode] = []

    def start_node(*options: str, ready: bool = True, **more: str) -> StubNode:
        node = StubNode(tmp_path / "node", env | more, *options)
        started.append(node)
        if ready:
            node.until("Ctrl-C stops")
        return node

    yield start_node
    for node in started:
        if node.process.poll() is None:
            node.process.kill()
        node.process.stdout.close()
        node.process.wait()


@pytest.fixture
def node(start) -> StubNode:
    return start()


@pytest.fixture
def app(tmp_path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "app.py").write_text("app = 1\n")
    return folder


@pytest.fixture
def cli(env):
    """Run the CLI without a node: `cli("apps", ISOPOD_URL=...)`."""

    def run(*args: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess:
        return run_cli(env | more, *args, stdin=stdin)

    return run
