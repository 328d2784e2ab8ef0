"""Runs frameworks' own tests inside a guest, and says which share passes.

    python -m tools.framework_tests [flask] [starlette] [httpx] [flask/test_json]

The tests are those of the framework's source distribution, as pip fetches it; pytest runs in the
guest, each file in a guest of its own, so that one that hangs or ends its guest costs no other.
Tests on trio are left out: it needs epoll and is not installed. Where the tests' own tools need a
thread or a native library they get stand-ins (see `PORTAL` and `stand_ins`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from isopod.engine.scheduler import Scheduler
from isopod.errors import IsopodError
from isopod.host.capabilities import no_world
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python import building, dependencies
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.settings import NodeSettings

_FILE_S = 180.0


@dataclass(frozen=True, slots=True)
class Framework:
    """`requirements`: what its tests import. `stand_ins`: files in place of what is native."""

    name: str
    version: str
    requirements: tuple[str, ...]
    stand_ins: dict[str, str] = field(default_factory=dict)


# Real servers and certificates for httpx's tests: modules that its conftest imports. The tests
# that use them fail, and are counted as failed.
_TRIO = {"trio/__init__.py": "", "trio/lowlevel.py": ""}
_NOTHING = "def __getattr__(name):\n    raise AttributeError(name)\n"
FRAMEWORKS = {
    one.name: one
    for one in (
        Framework("flask", "3.1.3", ("pytest<9", "asgiref", "python-dotenv", "blinker")),
        Framework(
            "starlette",
            "1.10.0",
            (
                *("pytest<9", "anyio", "httpx", "httpx2", "itsdangerous", "jinja2"),
                *("python-multipart", "pyyaml", "typing_extensions", "sniffio"),
            ),
            _TRIO,
        ),
        Framework(
            "httpx",
            "0.28.1",
            (
                *("pytest<9", "anyio", "sniffio", "chardet", "click", "rich", "pygments", "h11"),
                *("uvicorn", "certifi", "idna", "socksio"),
            ),
            {
                **_TRIO,
                "trustme.py": "class CA:\n    pass\n",
                "cryptography/__init__.py": "",
                "cryptography/hazmat/__init__.py": "",
                "cryptography/hazmat/backends.py": "def default_backend():\n    pass\n",
                "cryptography/hazmat/primitives/__init__.py": "",
                "cryptography/hazmat/primitives/serialization.py": "\n".join(
                    f"class {name}:\n    pass"
                    for name in ("BestAvailableEncryption", "Encoding", "PrivateFormat")
                )
                + "\ndef load_pem_private_key(*a, **k):\n    pass\n",
                "zstandard.py": _NOTHING,
            },
        ),
    )
}
# In the guest. Starlette's TestClient runs the app's loop in a thread; here its portal runs the
# loop whenever somebody waits for it, which is all that this thread is for.
PORTAL = """
import asyncio, concurrent.futures, contextlib

class InlineFuture(concurrent.futures.Future):
    def __init__(self, loop, task):
        super().__init__()
        self.loop, self.task = loop, task
        self.set_running_or_notify_cancel()
        task.add_done_callback(self.take)

    def take(self, task):
        if self.done():
            return
        if task.cancelled():
            self.set_exception(concurrent.futures.CancelledError())
        elif task.exception() is not None:
            self.set_exception(task.exception())
        else:
            self.set_result(task.result())

    def wait(self):
        if not self.task.done():
            with contextlib.suppress(BaseException):
                self.loop.run_until_complete(asyncio.wait([self.task]))
        if self.task.done():
            self.take(self.task)  # its callback may be due only in the loop's next turn

    def result(self, timeout=None):
        self.wait()
        return super().result(0)

    def exception(self, timeout=None):
        self.wait()
        return super().exception(0)

class Portal:
    def __init__(self):
        self.loop = asyncio.new_event_loop()

    async def run(self, func, args, named):
        value = func(*args, **named)
        return await value if hasattr(value, "__await__") else value

    def call(self, func, *args):
        return self.loop.run_until_complete(self.run(func, args, {}))

    def start_task_soon(self, func, *args, name=None):
        return InlineFuture(self.loop, self.loop.create_task(self.run(func, args, {})))

    def start_task(self, func, *args, name=None):
        class Status:
            def started(status, value=None):
                begun.set_result(value)
        begun = self.loop.create_future()
        task = self.loop.create_task(self.run(func, args, {"task_status": Status()}))
        future = InlineFuture(self.loop, task)
        self.loop.run_until_complete(
            asyncio.wait([begun, task], return_when=asyncio.FIRST_COMPLETED)
        )
        if not begun.done():
            future.result()
        return future, begun.result()

@contextlib.contextmanager
def start_blocking_portal(backend="asyncio", backend_options=None, **_named):
    if backend != "asyncio":
        raise RuntimeError("only asyncio runs in a guest")
    portal = Portal()
    try:
        yield portal
    finally:
        for task in asyncio.all_tasks(portal.loop):
            task.cancel()
        portal.loop.run_until_complete(asyncio.sleep(0))
        portal.loop.close()

def install():
    with contextlib.suppress(ImportError):
        import anyio.from_thread
        anyio.from_thread.start_blocking_portal = start_blocking_portal
"""
# Runs pytest on the file that the request names.
RUNNER = """
import io, json, os, sys, contextlib

class Seen:
    def __init__(self):
        self.outcomes = {}
        self.errors = []
    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            before = self.outcomes.get(report.nodeid, ["passed"])[0]
            xfail = hasattr(report, "wasxfail")
            outcome = "xfailed" if xfail else report.outcome
            why = ""
            if outcome == "failed":
                crash = getattr(report.longrepr, "reprcrash", None)
                why = str(crash.message if crash else report.longrepr)[:300]
            if before == "passed":
                self.outcomes[report.nodeid] = [outcome, why]
    def pytest_collectreport(self, report):
        if report.failed:
            self.errors.append(str(report.longrepr)[-600:])

def app(environ, start_response):
    start_response("200 OK", [("content-type", "application/json")])
    path = environ["QUERY_STRING"]
    if not path:
        return [b"{}"]
    # What pytest needs of a machine, and a guest has not.
    os.devnull, os.getuid = "/tmp/nothing", lambda: 0
    import isopod_portal, pytest
    isopod_portal.install()
    seen, out = Seen(), io.StringIO()
    os.chdir("/app")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = pytest.main(
            # Its rewriting of asserts loads modules around our import hook.
            ["-q", "--capture=sys", "--assert=plain", "-p", "no:cacheprovider",
             "-p", "no:faulthandler", "-p", "no:threadexception",
             "-p", "no:unraisableexception", "--rootdir=/app", *ARGUMENTS, path],
            plugins=[seen],
        )
    errors = seen.errors if seen.outcomes or seen.errors else [out.getvalue()[-800:]]
    body = {"status": int(status), "outcomes": seen.outcomes, "errors": errors}
    return [json.dumps(body).encode()]
"""


@dataclass(slots=True)
class Score:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    files_lost: list[str] = field(default_factory=list)
    why: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        return 100 * self.passed / max(1, self.passed + self.failed)


def sources(framework: Framework, folder: Path) -> Path:
    """The unpacked source distribution."""
    wanted = f"{framework.name}=={framework.version}"
    words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary"]
    subprocess.run([*words, framework.name, "-d", str(folder), wanted], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def app_folder(framework: Framework, source: Path, folder: Path) -> Path:
    """An app that runs the framework's tests when it is asked to."""
    folder.mkdir()
    (source / "tests").rename(folder / "tests")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "CHANGELOG.md", "CHANGES.rst"):
        if (source / name).exists():
            (source / name).rename(folder / name)
    # The project's file is pytest's configuration here, not what is to be installed.
    arguments = ["-W", "ignore", "-k", "not trio", "-o", "filterwarnings="]
    (folder / "isopod_run.py").write_text(RUNNER.replace("*ARGUMENTS", f"*{arguments!r}"))
    (folder / "isopod_portal.py").write_text(PORTAL)
    for name, text in framework.stand_ins.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_files(app: Path) -> Iterator[str]:
    for path in sorted((app / "tests").rglob("test_*.py")):
        yield str(path.relative_to(app))


async def run_file(
    runtime: PythonRuntime, scheduler: Scheduler, app: Path, site: Path, work: Path, name: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Outcome and reason of each test, and what kept the file from running."""
    tmp = Path(tempfile.mkdtemp(dir=work))
    guest = runtime.new_guest(
        scheduler=scheduler,
        app_tree=app,
        site_tree=site,
        tmp=tmp,
        entrypoint="isopod_run:app",
        env={},
        memory_mib=1024,
        disk_mib=256,
        output=lambda _stream, _data: None,
        world=no_world(work),
    )
    request = GuestRequest("GET", "/", name, "HTTP/1.1", "http", "localhost", 80, "127.0.0.1")

    async def no_body(_size: int) -> bytes:
        return b""

    try:
        async with asyncio.timeout(_FILE_S):
            await guest.start()
            response = await guest.send(request, no_body)
            body = response.body
            while response.more and (piece := await guest.next_chunk()) is not None:
                body += piece
            await guest.finish()
    except TimeoutError:
        return {}, [f"not within {_FILE_S:.0f} s"]
    except IsopodError as error:
        return {}, [f"{error.code}: {error.message} {error.details}"[-600:]]
    finally:
        with contextlib.suppress(IsopodError):
            guest.close()
    found = json.loads(body)
    return found["outcomes"], found["errors"]


async def run(framework: Framework, work: Path, only: str) -> Score:
    cache_dir = NodeSettings.load().cache_dir
    runtime = PythonRuntime(cache_dir)
    source = sources(framework, work)
    app = app_folder(framework, source, work / "app")
    wanted = work / "wanted"
    wanted.mkdir()
    lines = [f"{framework.name}=={framework.version}", *framework.requirements]
    (wanted / "requirements.txt").write_text("\n".join(lines) + "\n")
    site = work / "site"
    dependencies.install(wanted, site, cache_dir=cache_dir)
    await asyncio.to_thread(building.compile_tree, runtime, site)
    score = Score()
    async with Scheduler(runtime.linkage.engine) as scheduler:
        for name in (name for name in test_files(app) if only in name):
            outcomes, errors = await run_file(runtime, scheduler, app, site, work, name)
            counted = Counter(outcome for outcome, _ in outcomes.values())
            score.passed += counted["passed"] + counted["xfailed"]
            score.failed += counted["failed"]
            score.skipped += counted["skipped"]
            score.why.update(why.splitlines()[0][:110] for _, why in outcomes.values() if why)
            if errors:
                score.files_lost.append(f"{name}: {errors[0][-300:]}")
            print(f"  {name:40} {dict(counted)} {'LOST' if errors else ''}", flush=True)
    return score


def main() -> int:
    for wanted in sys.argv[1:] or list(FRAMEWORKS):
        name, _, only = wanted.partition("/")
        framework = FRAMEWORKS[name]
        print(f"{name} {framework.version}", flush=True)
        with tempfile.TemporaryDirectory(prefix="isopod-frameworks-") as folder:
            score = asyncio.run(run(framework, Path(folder), only))
        print(
            f"{name}: {score.passed} passed, {score.failed} failed, {score.skipped} skipped "
            f"({score.share:.1f}% of those that ran); {len(score.files_lost)} files did not run"
        )
        for text, count in score.why.most_common(25):
            print(f"  {count:5}  {text}")
        for text in score.files_lost:
            print(f"  lost   {text!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
