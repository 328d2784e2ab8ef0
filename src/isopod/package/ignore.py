"""Which files of a folder belong to the app: .gitignore, .isopodignore, and a fixed list.

The files are read in every folder, as git does; at one level .isopodignore is asked first.
Only ignore files inside the deployed folder count, not those of folders above it.
"""

from __future__ import annotations

from pathlib import Path

import pathspec

from isopod.errors import UsageError

IGNORE_FILES = (".isopodignore", ".gitignore")
# Never part of a package, whatever the ignore files say: they are large, or secret, or
# belong to this machine.
ALWAYS_LEFT_OUT = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".env",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".nox",
        ".DS_Store",
    }
)
_LEFT_OUT_SUFFIXES = (".pyc", ".pyo")


class IgnoreRules:
    """The rules that hold in one folder; `enter` gives those of a folder in it."""

    def __init__(self, levels: tuple[tuple[str, pathspec.GitIgnoreSpec], ...] = ()) -> None:
        self._levels = levels  # (folder relative to the root with a final "/", or ""; its rules)

    def enter(self, folder: Path, relative: str) -> IgnoreRules:
        """The rules inside `folder`, whose path from the root is `relative` ("" for the root)."""
        prefix = f"{relative}/" if relative else ""
        found = []
        for name in reversed(IGNORE_FILES):
            path = folder / name
            if path.is_file():
                found.append((prefix, _read(path)))
        return IgnoreRules(self._levels + tuple(found)) if found else self

    def leaves_out(self, relative: str, *, is_folder: bool) -> bool:
        """Whether the path `relative` to the root (no final "/") is not packed."""
        name = relative.rpartition("/")[2]
        if name in ALWAYS_LEFT_OUT or (not is_folder and name.endswith(_LEFT_OUT_SUFFIXES)):
            return True
        # The deepest file that has a matching rule decides; in one file the last rule does.
        for prefix, rules in reversed(self._levels):
            within = relative.removeprefix(prefix) + ("/" if is_folder else "")
            decided = rules.check_file(within).include
            if decided is not None:
                return decided
        return False


def _read(path: Path) -> pathspec.GitIgnoreSpec:
    try:
        return pathspec.GitIgnoreSpec.from_lines(path.read_text(errors="replace").splitlines())
    except (ValueError, OSError) as error:
        raise UsageError(f"cannot read the rules in {str(path)!r}: {error}") from error
