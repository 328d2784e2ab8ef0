"""The files around the code keep their promises."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from isopod.errors import ERRORS

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")


def test_readme_opens_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[0] == "# isopod"
    assert [line.split("  ")[0] for line in lines[2:6]] == ["```", "make demo", "make test", "```"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs"])
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for file in [path] if path.is_file() else sorted(path.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_distribution_is_pinned_by_hash(lock: str) -> None:
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip()]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "index-url" not in text


def test_the_locks_agree_and_hold_what_pyproject_asks_for() -> None:
    pins = [
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in LOCKS
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    for held, requirements in zip(pins, wanted, strict=True):
        for requirement in requirements:
            assert re.split(r"[=><~!]", requirement)[0] in held
    small, dev, bench = pins
    assert small.items() <= dev.items() <= bench.items()


def test_every_error_code_is_documented_with_its_status_and_owner() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| the (\w+) \| (.+) \|$", page, re.MULTILINE)
    documented = {code: (int(status), whose) for code, status, whose, _ in rows}
    assert len(documented) == len(rows), "a code is documented twice"
    assert documented == {code: (kind.status, kind.whose) for code, kind in ERRORS.items()}
    assert all(text.endswith((".", "?")) for *_, text in rows)


def test_every_decision_is_listed_and_says_what_it_costs() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for record in sorted(folder.glob("[0-9]*.md")):
        text = record.read_text()
        assert f"({record.name})" in index
        assert text.startswith(f"# {record.name[:3]} ")
        for part in ("**Context.**", "**Decision.**", "**What it costs.**"):
            assert part in text, f"{record.name} lacks {part}"


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    shown = set(re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE))
    wanted = {"demo", "test", "check", "unit", "e2e", "fuzz"} | {
        "bench", "setup", "lock", "clean", "help",
    }  # fmt: skip
    assert shown == wanted


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
