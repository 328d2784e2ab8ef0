"""Runs a file of somebody's tests in a JavaScript guest of its own, and counts what passes.

What Hono's tests and the Web Platform Tests have in common: an entry whose `fetch` answers with
the results, as JSON: `[{"name": ..., "error"?: ..., "skipped"?: true}, ...]`. With `control` the
same bundle is run by Node as well: what fails there too is a matter of the tests, not of ours.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

_FILE_S = 60.0
_MEMORY_MIB = 256
_IN_NODE = """
import { writeFileSync } from "node:fs";
const [bundle, answer] = process.argv.slice(1);
const { default: app } = await import(bundle);
const response = await app.fetch(new Request("http://localhost/"));
writeFileSync(answer, await response.text());
process.exit(0);
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """One file. `why`: it was not run. `elsewhere`: what fails in Node too."""

    passed: int = 0
    skipped: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    why: str = ""
    elsewhere: frozenset[str] = frozenset()


class Guests:
    """Guests for tests: each file is bundled in `work` and run in one that is made for it."""

    def __init__(self, work: Path, *, control: bool, cache: Path | None = None) -> None:
        cache = cache or NodeSettings.load().cache_dir
        runtimes.prepare("javascript", cache, lambda *_: None)
        self._runtime = JavaScriptRuntime(cache)
        self._esbuild = artifacts.folder(cache) / artifacts.ESBUILD
        self._work = work
        self._control = control

    def run(self, entry: str, *options: str, environment: Mapping[str, str] | None = None) -> Ran:
        source = self._work / "entry.js"
        source.write_text(entry)
        site = self._work / "site"
        site.mkdir(exist_ok=True)
        done = bundle(
            self._esbuild,
            str(source),
            site / BUNDLE,
            *("--format=esm", *options),
            folder=self._work,
            environment=environment,
        )
        if done.complaints:
            return Ran(why=f"cannot be bundled: {done.complaints[0].text}")
        try:
            answer = in_scheduler(
                self._runtime.linkage.engine, lambda scheduler: self._ask(scheduler, site)
            )
        except (IsopodError, TimeoutError) as error:
            details = getattr(error, "details", {})
            return Ran(why=f"did not run: {error!s:.200} {details.get('traceback', '')[:600]}")
        ran = counted(answer)
        if ran.failed and self._control:
            failed = self._in_node(site / BUNDLE)
            return replace(ran, elsewhere=frozenset(name for name, _ in failed))
        return ran

    def _in_node(self, bundled: Path) -> tuple[tuple[str, str], ...]:
        module, answer = self._work / "control.mjs", self._work / "control.json"
        module.write_bytes(bundled.read_bytes())
        answer.unlink(missing_ok=True)
        command = ["node", "--input-type=module", "-e", _IN_NODE, str(module), str(answer)]
        subprocess.run(command, timeout=_FILE_S, check=False, capture_output=True)
        return counted(answer.read_bytes()).failed if answer.exists() else ()

    async def _ask(self, scheduler: Scheduler, site: Path) -> bytes:
        guest = self._runtime.new_guest(
            scheduler=scheduler,
            site_tree=site,
            env={},
            memory_mib=_MEMORY_MIB,
            output=lambda _stream, _data: None,
        )
        try:
            async with asyncio.timeout(_FILE_S):
                await guest.start()
                exchange = guest.exchange()
                spec = AppSpec(AppName("tests"), "javascript", "entry.js")
                response = await exchange.send(health_request(spec), no_body)
                body = response.body
                while response.more and (piece := await exchange.next_chunk()) is not None:
                    body += piece
                return body
        finally:
            guest.close()


def counted(answer: bytes) -> Ran:
    """What the entry answered. Anything else than results: it was not run."""
    try:
        tests = json.loads(answer)
        failed = tuple((one["name"], one["error"]) for one in tests if "error" in one)
        skipped = sum("skipped" in one for one in tests)
    except (ValueError, TypeError, KeyError):
        return Ran(why=f"did not run: {answer[:200]!r}")
    return Ran(len(tests) - len(failed) - skipped, skipped, failed)


def told(name: str, ran: Ran) -> None:
    """Print what came of one file."""
    shown = ran.why.strip() or f"{ran.passed} of {ran.passed + len(ran.failed)}"
    print(f"{name}: {shown}", flush=True)
    for test, why in ran.failed:
        where = " (in Node too)" if test in ran.elsewhere else ""
        print(f"    {test}{where}: {why.splitlines()[0] if why else ''}", flush=True)


def files_of(root: Path, wanted: list[str], named: str, *, but: re.Pattern[str]) -> list[Path]:
    """The files `wanted` below `root`, and those of its folders that are `named` so."""
    found: list[Path] = []
    for one in wanted:
        path = root / one
        found += [path] if path.is_file() else sorted(path.rglob(named))
    return [one for one in found if not but.search(one.as_posix())]


def summary(all_of_them: list[Ran]) -> str:
    total: Counter[str] = Counter()
    for ran in all_of_them:
        total["passed"] += ran.passed
        alike = sum(name in ran.elsewhere for name, _ in ran.failed)
        total["failed"] += len(ran.failed) - alike
        total["failed in Node too"] += alike
        total["skipped"] += ran.skipped
        total["files not run" if ran.why else "files"] += 1
    return ", ".join(f"{count} {name}" for name, count in total.items() if count)
