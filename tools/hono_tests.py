"""Runs Hono's own tests inside a guest, and says which share passes.

    git clone --depth 1 --branch v4.13.19 https://github.com/honojs/hono
    python -m tools.hono_tests hono [src/router src/utils/cookie.test.ts]

npm's package of Hono has no tests, so they are those of a checkout. Each file is bundled by itself
and run in a guest of its own. `expect` and spies are vitest's; suites are `tools/hono/vitest.js`.
Files that cannot be bundled (they need Node's modules or vitest's module mocks) are not run, and
are counted apart; so are tests of types. What needs fake timers fails.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from isopod import runtimes
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import IsopodError
from isopod.model.app import AppSpec
from isopod.model.ids import AppName
from isopod.runtimes.health import health_request, no_body
from isopod.runtimes.javascript import artifacts
from isopod.runtimes.javascript.esbuild import bundle
from isopod.runtimes.javascript.runtime import BUNDLE, JavaScriptRuntime
from isopod.settings import NodeSettings

VITEST = "5.1.1"
_SHIM = Path(__file__).parent / "hono" / "vitest.js"
_FILE_S = 60.0
# Of other platforms, builds and types: nothing of them runs in an app.
_NOT_FOR_GUESTS = ("/adapter/", "/types.test", "/build/", "/helper/ssg/")


@dataclass(frozen=True, slots=True)
class Ran:
    """One file. `why`: it was not run."""

    passed: int = 0
    skipped: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    why: str = ""


def main(checkout: str, *wanted: str) -> int:
    root = Path(checkout).resolve()
    cache = NodeSettings.load().cache_dir
    runtimes.prepare("javascript", cache, lambda *_: None)
    runtime = JavaScriptRuntime(cache)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="isopod-hono-") as scratch:
        work = Path(scratch)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        packages = [f"@vitest/expect@{VITEST}", f"@vitest/spy@{VITEST}"]
        subprocess.run([*npm, "--prefix", str(work), *packages], check=True)
        (work / "vitest.js").write_bytes(_SHIM.read_bytes())
        for path in _files(root, wanted):
            ran = _run(runtime, cache, root, path, work)
            shown = ran.why or f"{ran.passed} of {ran.passed + len(ran.failed)}"
            print(f"{path.relative_to(root)}: {shown}", flush=True)
            for name, why in ran.failed:
                print(f"    {name}: {why.splitlines()[0] if why else ''}", flush=True)
            total["passed"] += ran.passed
            total["failed"] += len(ran.failed)
            total["skipped by Hono"] += ran.skipped
            total["files not run" if ran.why else "files"] += 1
    print(", ".join(f"{count} {name}" for name, count in total.items()))
    return 0


def _files(root: Path, wanted: tuple[str, ...]) -> list[Path]:
    found = []
    for one in wanted or ("src",):
        path = root / one
        found += [path] if path.is_file() else sorted(path.rglob("*.test.ts*"))
    return [one for one in found if not any(part in one.as_posix() for part in _NOT_FOR_GUESTS)]


def _run(runtime: JavaScriptRuntime, cache: Path, root: Path, path: Path, work: Path) -> Ran:
    entry = work / "entry.js"
    entry.write_text(
        'import { runAll } from "vitest";\n'
        f"import {json.dumps(str(path))};\n"
        "export default { fetch: async () => Response.json(await runAll()) };\n"
    )
    site = work / "site"
    site.mkdir(exist_ok=True)
    done = bundle(
        artifacts.folder(cache) / artifacts.ESBUILD,
        str(entry),
        site / BUNDLE,
        *("--format=esm", "--keep-names", f"--alias:vitest={work / 'vitest.js'}"),
        folder=root,
        environment={"NODE_PATH": str(work / "node_modules")},
    )
    if done.complaints:
        return Ran(why=f"cannot be bundled: {done.complaints[0].text}")
    try:
        answer = in_scheduler(
            runtime.linkage.engine, lambda scheduler: _ask(runtime, scheduler, site)
        )
    except (IsopodError, TimeoutError) as error:
        details = getattr(error, "details", {})
        return Ran(why=f"did not run: {error!s:.200} {details.get('traceback', '')[:600]}".strip())
    tests = json.loads(answer)
    failed = tuple((one["name"], one["error"]) for one in tests if "error" in one)
    skipped = sum("skipped" in one for one in tests)
    return Ran(len(tests) - len(failed) - skipped, skipped, failed)


async def _ask(runtime: JavaScriptRuntime, scheduler: Scheduler, site: Path) -> bytes:
    guest = runtime.new_guest(
        scheduler=scheduler,
        site_tree=site,
        env={},
        memory_mib=256,
        output=lambda _stream, _data: None,
    )
    try:
        async with asyncio.timeout(_FILE_S):
            await guest.start()
            exchange = guest.exchange()
            spec = AppSpec(AppName("hono"), "javascript", "entry.js")
            response = await exchange.send(health_request(spec), no_body)
            body = response.body
            while response.more and (piece := await exchange.next_chunk()) is not None:
                body += piece
            return body
    finally:
        guest.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
