"""Apps that do not start: each reason is told apart, and nothing is left behind."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.open_files import assert_back_to, descriptors

from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    AppFailedToStart,
    AppSyntaxError,
    EntrypointNotCallable,
    EntrypointNotFound,
    GuestFailed,
    IsopodError,
    MemoryLimitExceeded,
    RuntimeNotPrepared,
)
from isopod.runtimes.python.runtime import PythonRuntime

FINE = "def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n"


@dataclass
class Bench:
    runtime: PythonRuntime
    folder: Path
    output: list[bytes] = field(default_factory=list)

    def guest(self, scheduler: Scheduler, *, entrypoint: str = "app:app", memory_mib: int = 128):
        for name in ("app", "site", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        return self.runtime.new_guest(
            scheduler=scheduler,
            app_tree=self.folder / "app",
            site_tree=self.folder / "site",
            tmp=self.folder / "tmp",
            entrypoint=entrypoint,
            env={},
            memory_mib=memory_mib,
            disk_mib=64,
            output=lambda _stream, data: self.output.append(data),
        )

    def boot(self, source: str, *, name: str = "app.py", **options) -> IsopodError | None:
        (self.folder / "app").mkdir(exist_ok=True)
        (self.folder / "app" / name).write_text(source)

        async def main() -> IsopodError | None:
            async with Scheduler(self.runtime.linkage.engine) as scheduler, asyncio.timeout(60):
                guest = self.guest(scheduler, **options)
                try:
                    await guest.start()
                except IsopodError as error:
                    assert not guest.idle
                    return error
                finally:
                    guest.close()
                return None

        return asyncio.run(main())


@pytest.fixture(scope="module")
def runtime(prepared_cache: Path) -> PythonRuntime:
    return PythonRuntime(prepared_cache)


@pytest.fixture
def bench(runtime: PythonRuntime, tmp_path: Path) -> Iterator[Bench]:
    yield Bench(runtime, tmp_path)


@pytest.mark.parametrize(
    ("source", "entrypoint", "error", "text"),
    [
        (FINE, "missing:app", EntrypointNotFound, "no module named 'missing'"),
        (FINE, "app:other", EntrypointNotFound, "module 'app' has no 'other'"),
        (FINE, "app:app.deeper", EntrypointNotFound, "module 'app' has no 'app.deeper'"),
        ("app = 5", "app:app", EntrypointNotCallable, "is a int, which cannot be called"),
        ("def app(:", "app:app", AppSyntaxError, "SyntaxError"),
        ("import missing_thing", "app:app", AppFailedToStart, "No module named 'missing_thing'"),
        ("1 / 0", "app:app", AppFailedToStart, "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "app:app", AppFailedToStart, "SystemExit: 3"),
        ("import os; os._exit(3)", "app:app", AppFailedToStart, "exited with status 3"),
        ("import os; os.abort()", "app:app", AppFailedToStart, ""),
        ("raise KeyboardInterrupt", "app:app", AppFailedToStart, "KeyboardInterrupt"),
        ("x = []\nwhile 1: x.append(bytes(1 << 20))", "app:app", MemoryLimitExceeded, ""),
        ("class E(Exception):\n  def __str__(self): 1 / 0\nraise E", "app:app",
         AppFailedToStart, "E"),
    ],
)  # fmt: skip
def test_why_an_app_does_not_start_is_told(bench, source, entrypoint, error, text):
    told = bench.boot(source, entrypoint=entrypoint)
    assert type(told) is error
    assert text in told.message
    assert len(told.message) <= 500


def test_the_traceback_of_a_failed_import_names_the_apps_file(bench):
    told = bench.boot("def f():\n    raise RuntimeError('why')\nf()")
    assert 'File "/app/app.py", line 2, in f' in told.details["traceback"]


def test_what_an_import_prints_is_in_the_log(bench):
    assert bench.boot("print('importing')\n" + FINE) is None
    assert b"".join(bench.output) == b"importing\n"


def test_an_app_may_be_called_like_a_file_of_ours_or_of_the_library(bench):
    assert bench.boot(FINE, name="isopod_frames.py", entrypoint="isopod_frames:app") is not None
    (bench.folder / "app" / "isopod_frames.py").unlink()
    assert bench.boot(FINE, name="code.py", entrypoint="code:app") is None


def test_an_app_that_speaks_the_protocol_itself_gains_nothing(bench):
    for frame in (
        "b'S\\x06\\0\\0\\0200 OK'",
        "b'E'",
        "b'D'",
        "b'B'",
        "b''",
        "b'Z'",
        "b'L' * 99999",
    ):
        told = bench.boot(f"import _host\n_host.call({frame})\n{FINE}")
        assert told.code == "guest_protocol_error", frame


def test_a_guest_that_is_closed_while_it_boots_tells_who_waits(bench):
    (bench.folder / "app").mkdir()
    (bench.folder / "app" / "app.py").write_text("while True: pass")

    async def main() -> None:
        async with Scheduler(bench.runtime.linkage.engine) as scheduler:
            guest = bench.guest(scheduler)
            booting = asyncio.create_task(guest.start())
            while guest.cpu_ns < 200_000_000:
                await asyncio.sleep(0)
            guest.close()
            guest.close()
            with pytest.raises(GuestFailed, match="was ended"):
                await asyncio.wait_for(booting, 60)

    asyncio.run(main())


def test_guests_that_end_leave_no_descriptor_and_no_folder_open(bench):
    bench.boot(FINE)
    before = descriptors()
    for source in (FINE, "1 / 0", "import os; os._exit(1)"):
        bench.boot(source)
    assert_back_to(before)


def test_a_runtime_that_is_not_prepared_says_so(tmp_path):
    with pytest.raises(RuntimeNotPrepared):
        PythonRuntime(tmp_path)


IMPORTS = """
import importlib._bootstrap_external as external
import importlib, os, sys

sys.path[1:1] = ["/tmp"]
import package.module, namespace.module
assert (package.module.value, namespace.module.value) == (1, 2)

looks, stat = [], external._path_stat
external._path_stat = lambda path: looks.append(str(path)) or stat(path)
for name in ("missing", "package.missing", "namespace.missing", "missing.module"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError(name)
assert set(looks) <= {"/tmp"}, looks  # which may change, and is looked at each time

with open("/tmp/late.py", "w") as file:
    file.write("value = 3")
import late
assert late.value == 3
"""


def test_what_is_not_there_to_import_is_known_without_a_look_at_folders_that_never_change(bench):
    for name, source in (
        ("package/__init__.py", ""),
        ("package/module.py", "value = 1"),
        ("namespace/module.py", "value = 2"),
    ):
        file = bench.folder / "app" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    assert bench.boot(IMPORTS + FINE) is None
