"""workerd with many workers in one process, each its own isolate, chosen by the host name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import native
from bench.exchange import ask
from bench.peers import installed_workerd
from isopod.settings import NodeSettings

HELLO = """export default {
  async fetch(request, env, ctx) {
    return new Response("Hello\\n");
  },
};
"""
_ROUTER = """export default {
  fetch(request, env) {
    return env[new URL(request.url).hostname.split(".")[0]].fetch(request);
  },
};
"""
_START_S = 300.0


@dataclass(frozen=True, slots=True)
class Workerd:
    port: int
    pid: int
    ready_s: float  # from its start to the first answer


@contextlib.contextmanager
def running(folder: Path, names: Sequence[str]) -> Iterator[Workerd]:
    """One process that has loaded a hello for each name; a single name is asked directly. Raises
    peers.Missing where workerd cannot be had, RuntimeError when it does not manage so many."""
    binary = installed_workerd(NodeSettings.load().cache_dir / "bench")
    folder.mkdir()
    (folder / "hello.js").write_text(HELLO)
    (folder / "router.js").write_text(_ROUTER)
    port = native.free_port()
    (folder / "config.capnp").write_text(_config(names, port))
    began = time.monotonic()
    process = native.launch([str(binary), "serve", str(folder / "config.capnp")], folder)
    try:
        _wait(port, f"{names[0]}.localhost", process.poll)
        yield Workerd(port, process.pid, time.monotonic() - began)
    finally:
        native.stop(process)


def _wait(port: int, hostname: str, ended: Callable[[], int | None]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if ask(port, hostname, timeout_s=_START_S).status == 200:
                return
        if ended() is not None:
            raise RuntimeError("workerd ended before it answered")
        time.sleep(0.001)
    raise RuntimeError(f"workerd was not ready within {_START_S:g} s")


def _config(names: Sequence[str], port: int) -> str:
    worker = '(modules = [(name = "{0}", esModule = embed "{0}")], {1}compatibilityDate = "{2}")'
    date = "2025-01-01"
    bindings = ", ".join(f'(name = "{name}", service = "{name}")' for name in names)
    services = "".join(f'    (name = "{name}", worker = .hello),\n' for name in names)
    entry = "router" if len(names) > 1 else names[0]
    if len(names) > 1:
        services += '    (name = "router", worker = .router),\n'
    return (
        'using Workerd = import "/workerd/workerd.capnp";\n'
        "const config :Workerd.Config = (\n"
        f"  services = [\n{services}  ],\n"
        f'  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (),'
        f' service = "{entry}")]);\n'
        f"const hello :Workerd.Worker = {worker.format('hello.js', '', date)};\n"
        f"const router :Workerd.Worker = "
        f"{worker.format('router.js', f'bindings = [{bindings}], ', date)};\n"
    )
