"""One tenant that behaves, beside twenty that do what they can: its latency, quiet and beside them.

No quota is set: what protects it is how workers share what they have. Its client asks at a fixed
pace, over connections that stay, and time counts from when a request was due: who is not served in
time does not ask less often. A second client opens a connection for each request.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench import many, sites
from bench.exchange import ask
from bench.figures import Figure, Result, percentile
from tools.http_calls import Caller
from tools.node import ROOT, Node

HOSTILE = 20
KINDS = ("cpu", "memory", "logs", "requests", "body", "connections")
PHASE_S = 20.0
SETTLE_S = 5.0
PACE_S = 0.2  # between two requests of a connection; in all well below a twentieth of the node
CONNECTIONS = 4
ROUNDS = 2
# A request that ends by its deadline is followed by the next.
_MANIFEST = "[limits]\ndeadline_ms = 5000\n"
_LONGEST_S = 30


@dataclass
class Seen:
    """Of one client: when it asked, since the phase began, and how long that took."""

    points: list[tuple[float, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def ms(self) -> list[float]:
        return [ms for _, ms in self.points]

    def add(self, other: Seen) -> None:
        self.points += other.points
        self.errors.update(other.errors)


def run(say: Callable[[str], None]) -> Result:
    quiet, beside, quiet_new, beside_new = Seen(), Seen(), Seen(), Seen()
    answers: list[dict[str, dict[str, int]]] = []
    with many.home() as home, many.up(home, workers=2, port=0, control_port=0) as node:
        say(f"deploying for {HOSTILE} hostile tenants and one other")
        node.cli("tenants", "create", "calm")
        node.cli("deploy", str(sites.hello(home / "calm")), "--name", "calm", "--tenant", "calm")
        pairs = _deploy_hostile(node, home)
        for one_round in range(1, ROUNDS + 1):
            say(f"round {one_round} of {ROUNDS}: quiet")
            _measure(node, quiet, quiet_new)
            say(f"round {one_round} of {ROUNDS}: beside {HOSTILE} hostile tenants")
            with _attack(node, pairs) as attack:
                time.sleep(SETTLE_S)
                _measure(node, beside, beside_new)
                out, _ = attack.communicate(timeout=60)
            answers.append(json.loads(out))
        workers = node.workers()
        pids_kept = len(workers)
        said = node.said
    if beside.errors or quiet.errors:
        say(f"errors: quiet {dict(quiet.errors)}, beside {dict(beside.errors)}")
    return _result(quiet, beside, quiet_new, beside_new, answers, pids_kept, said)


def _deploy_hostile(node: Node, home: Path) -> list[str]:
    folder = home / "hostile"
    folder.mkdir()
    (folder / "app.py").write_text((ROOT / "bench" / "apps" / "hostile" / "app.py").read_text())
    (folder / "isopod.toml").write_text(_MANIFEST)
    pairs = []
    for number in range(HOSTILE):
        name = f"hostile{number:02}"
        node.cli("tenants", "create", name)
        node.cli("deploy", str(folder), "--name", name, "--tenant", name)
        pairs.append(f"{name}:{KINDS[number % len(KINDS)]}")
    return pairs


def _attack(node: Node, pairs: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.hostile_load", str(node.gateway_port), *pairs],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _measure(node: Node, kept: Seen, new: Seen) -> None:
    with ThreadPoolExecutor(CONNECTIONS + 1) as pool:
        steady = [pool.submit(_steady, node.gateway_port) for _ in range(CONNECTIONS)]
        opening = pool.submit(_opening, node.gateway_port)
        for one in steady:
            kept.add(one.result())
        new.add(opening.result())


def _steady(port: int) -> Seen:
    """Over one connection; another if that breaks, which is an error."""
    seen, began, number = Seen(), time.perf_counter(), 0
    while (due := began + number * PACE_S) < began + PHASE_S:
        with Caller(port, "calm", timeout_s=_LONGEST_S) as caller:
            while (due := began + number * PACE_S) < began + PHASE_S:
                time.sleep(max(0.0, due - time.perf_counter()))
                number += 1
                try:
                    status = caller.call("/").status
                except OSError as error:
                    seen.errors[type(error).__name__] += 1
                    break
                seen.points.append((due - began, (time.perf_counter() - due) * 1e3))
                if status != 200:
                    seen.errors[str(status)] += 1
    return seen


def _opening(port: int) -> Seen:
    seen, began = Seen(), time.perf_counter()
    while (at := time.perf_counter() - began) < PHASE_S:
        try:
            answer = ask(port, "calm.localhost", timeout_s=_LONGEST_S)
        except OSError as error:
            seen.errors[type(error).__name__] += 1
        else:
            seen.points.append((at, answer.ms))
            if answer.status != 200:
                seen.errors[str(answer.status)] += 1
        time.sleep(PACE_S)
    return seen


def _result(
    quiet: Seen,
    beside: Seen,
    quiet_new: Seen,
    beside_new: Seen,
    answers: list[dict[str, dict[str, int]]],
    workers: int,
    said: str,
) -> Result:
    bound = 3 * percentile(quiet.ms, 99) + 20
    hostile = Counter[str]()
    for each in answers:
        for kind, counts in each.items():
            hostile.update({f"{kind} {status}": count for status, count in counts.items()})
    died = said.count("starting it again")
    note = (
        f"p50 {percentile(beside.ms, 50):.1f} ms, longest {max(beside.ms):.1f} ms; "
        "target: 3 times the quiet p99, and 20 ms"
    )
    figures = [
        Figure(
            "p99, quiet",
            percentile(quiet.ms, 99),
            "ms",
            note=f"p50 {percentile(quiet.ms, 50):.1f} ms; {len(quiet.ms):,} requests",
        ),
        Figure(
            f"p99 beside {HOSTILE} hostile tenants", percentile(beside.ms, 99), "ms", bound, note
        ),
        Figure(
            "errors of the tenant that behaves",
            quiet.errors.total() + beside.errors.total(),
            "",
            0.0,
            f"of {len(quiet.ms) + len(beside.ms):,} requests; {dict(beside.errors) or 'none'}",
        ),
        Figure(
            "p99 with a connection for each request",
            percentile(beside_new.ms, 99),
            "ms",
            note=f"quiet {percentile(quiet_new.ms, 99):.1f} ms; it waits for its turn to be "
            f"accepted behind floods of connections; errors {beside_new.errors.total()}",
        ),
        Figure("workers that died", died, "", 0.0, f"of {workers}"),
    ]
    return Result(
        "hostile_tenants",
        figures,
        raw={"quiet_ms": quiet.ms, "beside_ms": beside.ms, "hostile_answers": dict(hostile)},
        bars={
            f"{name}, {what}": percentile(seen.ms, percent)
            for name, percent in (("p50", 50), ("p99", 99))
            for what, seen in (("quiet", quiet), ("beside", beside))
        },
        bars_unit="ms",
        lines={
            "quiet": sorted(quiet.points),
            f"beside {HOSTILE} hostile tenants": sorted(beside.points),
        },
        lines_units=("s since the phase began", "ms"),
    )
