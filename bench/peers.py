"""What isopod's cold start is compared with: new processes, new containers, workerd.

Each peer is given its best mode: byte-code is compiled before, files are in the page cache,
gunicorn has one worker, the container shares the machine's network and takes no image apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import native, sites
from bench.exchange import right

WORKERD_VERSION = "1.20261117.1"
_INSTALL_S = 120
_SCRIPT = (
    'addEventListener("fetch", event => event.respondWith(new Response("Hello from workerd!\\n")))'
)


class Missing(Exception):
    """A peer that cannot be had on this machine. Says why."""


@dataclass(frozen=True, slots=True)
class NativeApp:
    """An app as gunicorn starts it."""

    folder: Path
    entrypoint: str
    path: str


APPS: Mapping[str, NativeApp] = {
    "Flask hello": NativeApp(sites.HELLO, "app:app", "/"),
    "Django admin login": NativeApp(sites.DJANGO, "project.wsgi:application", "/admin/login/"),
    "pandas report": NativeApp(sites.PANDAS, "app:app", "/"),
}


def process_ms(app: NativeApp) -> float:
    """From starting gunicorn to the last byte of its first response."""
    port = native.free_port()
    return _start_ms(native.command(port, 1, app.entrypoint), app.folder, port, app.path)


class Containers:
    """crun where this kernel lets it run, bubblewrap otherwise; `kind` and `why` say which."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._number = 0
        self.why = ""
        complaints = []
        for kind in ("crun", "bubblewrap"):
            self.kind = kind
            try:
                self.start_ms(APPS["Flask hello"])
                break
            except (OSError, RuntimeError) as error:
                complaints.append(f"{kind}: {str(error).splitlines()[0]}")
        else:
            raise Missing("; ".join(complaints))
        self.why = "; ".join(complaints)

    def start_ms(self, app: NativeApp) -> float:
        """From asking for the container to the last byte of its gunicorn's first response."""
        port = native.free_port()
        inside = native.command(port, 1, app.entrypoint)
        if self.kind == "bubblewrap":
            return _start_ms(_bubblewrap(inside, app.folder), app.folder, port, app.path)
        self._number += 1
        name = f"isopod-bench-{os.getpid()}-{self._number}"
        bundle = self._scratch / name
        _bundle(bundle, inside, app.folder)
        # crun's own cgroups need a delegated hierarchy; without them it has less to do.
        words = ["crun", "--cgroup-manager=disabled", "run", "--bundle", str(bundle), name]
        said = bundle / "errors"
        try:
            return _start_ms(words, bundle, port, app.path, said)
        except RuntimeError as error:
            raise RuntimeError(said.read_text(errors="replace").strip() or str(error)) from None
        finally:
            subprocess.run(["crun", "delete", "--force", name], capture_output=True, check=False)
            shutil.rmtree(bundle, ignore_errors=True)


def _shared_folders() -> list[str]:
    """What Python and the app's dependencies need of the machine, read-only."""
    needed = ["/usr", "/lib", "/lib64", "/bin", "/etc", sys.base_prefix, sys.prefix]
    return sorted({each for each in needed if Path(each).exists()})


def _bubblewrap(inside: list[str], app: Path) -> list[str]:
    words = ["bwrap", "--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in [*_shared_folders(), str(app)]:
        words += ["--ro-bind", folder, folder]
    return [*words, "--die-with-parent", "--chdir", str(app), *inside]


def _bundle(bundle: Path, inside: list[str], app: Path) -> None:
    (bundle / "rootfs").mkdir(parents=True)
    binds = [
        {"destination": each, "type": "bind", "source": each, "options": ["rbind", "ro"]}
        for each in [*_shared_folders(), str(app)]
    ]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": inside,
            "env": ["PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1"],
            "cwd": str(app),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            *binds,
        ],
        "linux": {"namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount")]},
    }
    (bundle / "config.json").write_text(json.dumps(config))


class Workerd:
    """Cloudflare's workerd from npm, with its JavaScript hello."""

    def __init__(self, cache: Path, scratch: Path) -> None:
        self._binary = installed_workerd(cache)
        self._scratch = scratch

    def start_ms(self) -> float:
        """From starting the process to the last byte of its first response."""
        port = native.free_port()
        return _start_ms(self._command(port), self._scratch, port, "/")

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Its port, with the worker loaded."""
        port = native.free_port()
        process = native.launch(self._command(port), self._scratch)
        try:
            native.first_response(port, process=process)
            yield port
        finally:
            native.stop(process)

    def loaded_ms(self, port: int) -> float:
        """A whole exchange with the running process."""
        return right(port, "localhost").ms

    def _command(self, port: int) -> list[str]:
        (self._scratch / "hello.js").write_text(_SCRIPT)
        config = self._scratch / "hello.capnp"
        config.write_text(
            'using Workerd = import "/workerd/workerd.capnp";\n'
            "const config :Workerd.Config = (\n"
            '  services = [(name = "main", worker = .hello)],\n'
            f'  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (),'
            ' service = "main")]);\n'
            "const hello :Workerd.Worker = (\n"
            '  serviceWorkerScript = embed "hello.js", compatibilityDate = "2025-01-01");\n'
        )
        return [str(self._binary), "serve", str(config)]


def installed_workerd(cache: Path) -> Path:
    """The program itself, without the Node script around it: its best mode."""
    folder = cache / f"workerd-{WORKERD_VERSION}"
    found = list(folder.glob("node_modules/@cloudflare/workerd-*/bin/workerd"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            subprocess.run(
                [*words, f"workerd@{WORKERD_VERSION}"],
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
                timeout=_INSTALL_S,
            )
        except subprocess.CalledProcessError as error:
            raise Missing(f"npm install workerd: {error.stderr.strip()[-200:]}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"npm install workerd: {error}") from None
        found = list(folder.glob("node_modules/@cloudflare/workerd-*/bin/workerd"))
    if not found:
        raise Missing("npm installed no workerd for this machine")
    return found[0]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="isopod-bench-") as folder:
        yield Path(folder)


def _start_ms(
    words: list[str], folder: Path, port: int, path: str, errors: Path | None = None
) -> float:
    began = time.perf_counter()
    process = native.launch(words, folder, errors)
    try:
        native.first_response(port, path=path, process=process)
        return (time.perf_counter() - began) * 1e3
    finally:
        native.stop(process)
