"""Gemfile.lock as Bundler writes it, and what of a Gemfile a lock file does not say.

A lock file is indented text: sections, in those with gems a line "name (version)" for each, and
under it what it needs. It knows no groups; the Gemfile is code, of which only the usual lines are
read: a `group ... do` block, and `gem` lines with `group:` or `require:`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from isopod.errors import DependencyInvalid

_SPEC = re.compile(r" {4}(\S+) \(([^)\s]+)\)")
_NEED = re.compile(r" {6}(\S+?)!?(?: \(.*\))?")
_DIRECT = re.compile(r" {2}(\S+?)!?(?: \(.*\))?")
_CHECKSUM = re.compile(r" {2}(\S+) \(([^)\s]+)\)(?: sha256=([0-9a-f]{64}))?")
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,200}")
_VERSION = re.compile(r"[0-9A-Za-z.]{1,100}")
_NOT_TO_RUN = frozenset({"development", "test"})


@dataclass(frozen=True, slots=True)
class Gem:
    """`sha256`: of its file, "" if the lock file says none. `platform`: "" if it is pure."""

    name: str
    version: str
    platform: str
    needs: tuple[str, ...]
    sha256: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}{'-' if self.platform else ''}{self.platform}.gem"


@dataclass(slots=True)
class Lock:
    gems: dict[str, list[Gem]] = field(default_factory=dict)
    direct: list[str] = field(default_factory=list)
    remotes: set[str] = field(default_factory=set)
    elsewhere: list[str] = field(default_factory=list)  # gems from a path or from git

    def reachable(self, without: Iterable[str]) -> list[Gem]:
        """What is needed to run, pure ones where there is a choice; sorted. Raises
        DependencyInvalid."""
        left = [name for name in self.direct if name not in set(without)]
        found: dict[str, Gem] = {}
        while left:
            name = left.pop()
            if name in found or name == "bundler":
                continue
            if name not in self.gems:
                raise DependencyInvalid(
                    f"Gemfile.lock needs gem {name!r} and does not list it",
                    hint="make it again with `bundle lock`",
                )
            found[name] = min(self.gems[name], key=lambda gem: gem.platform)
            left.extend(found[name].needs)
        return [found[name] for name in sorted(found)]


def parse(text: str) -> Lock:
    """Raises DependencyInvalid."""
    lock = Lock()
    sums: dict[tuple[str, str], str] = {}
    specs: list[tuple[str, str, list[str]]] = []
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(" "):
            section = line.strip()
        elif section in ("GEM", "PATH", "GIT", "PLUGIN SOURCE"):
            if section == "GEM" and line.startswith("  remote: "):
                lock.remotes.add(line.removeprefix("  remote: ").strip())
            elif found := _SPEC.fullmatch(line):
                if section != "GEM":
                    lock.elsewhere.append(found[1])
                specs.append((_checked(found[1], _NAME, number), found[2], []))
            elif (found := _NEED.fullmatch(line)) and specs:
                specs[-1][2].append(found[1])
        elif section == "DEPENDENCIES" and (found := _DIRECT.fullmatch(line)):
            lock.direct.append(found[1])
        elif section == "CHECKSUMS" and (found := _CHECKSUM.fullmatch(line)) and found[3]:
            sums[found[1], found[2]] = found[3]
    for name, said, needs in specs:
        version, _, platform = said.partition("-")
        _checked(version, _VERSION, 0)
        if platform:
            _checked(platform, _NAME, 0)
        gem = Gem(name, version, platform, tuple(needs), sums.get((name, said), ""))
        lock.gems.setdefault(name, []).append(gem)
    if not lock.direct and not specs and text.strip():
        raise DependencyInvalid("Gemfile.lock is not a lock file of Bundler", hint=_AGAIN)
    return lock


_AGAIN = "make it again with `bundle lock`"


def _checked(text: str, pattern: re.Pattern[str], line: int) -> str:
    # Both become a part of paths and of addresses.
    if not pattern.fullmatch(text) or text.startswith("."):
        where = f" in line {line}" if line else ""
        raise DependencyInvalid(f"Gemfile.lock names {text!r}{where}, which is no gem", hint=_AGAIN)
    return text


_GEM_LINE = re.compile(r"""gem\s*\(?\s*["']([^"']+)["'](?P<rest>[^#]*)""")
_GROUP_BLOCK = re.compile(r"group\s*\(?(?P<names>[^#]*?)\)?\s+do\b")
_GROUP_OPTION = re.compile(r"\bgroups?(?::|\s*=>)\s*(?P<names>\[[^\]]*\]|:\w+|[\"']\w+[\"'])")
_REQUIRE = re.compile(r"""\brequire:\s*(?P<what>false|nil|\[[^\]]*\]|["'][^"']+["'])""")
_WORD = re.compile(r":(\w+)|[\"']([^\"']+)[\"']")


@dataclass(frozen=True, slots=True)
class Gemfile:
    """`not_to_run`: gems of the groups development and test alone. `required`: what Bundler.require
    requires for a gem, where that is not its name."""

    not_to_run: frozenset[str]
    required: Mapping[str, tuple[str, ...]]


def read_gemfile(text: str) -> Gemfile:
    """What its usual lines say; the rest is as if it were not there."""
    groups: dict[str, set[str]] = {}
    required: dict[str, tuple[str, ...]] = {}
    blocks: list[tuple[str, ...]] = []
    for line in text.splitlines():
        code = line.strip()
        if found := _GROUP_BLOCK.match(code):
            blocks.append(_words(found["names"]))
        elif re.search(r"\bdo\b(?:\s*\|[^|]*\|)?\s*$", code) or code.startswith(("if ", "unless ")):
            blocks.append(())
        elif code == "end" and blocks:
            blocks.pop()
        elif found := _GEM_LINE.match(code):
            option = _GROUP_OPTION.search(found["rest"])
            of = {name for block in blocks for name in block}
            of |= set(_words(option["names"])) if option else set()
            groups.setdefault(found[1], set()).update(of or {"default"})
            if what := _REQUIRE.search(found["rest"]):
                required[found[1]] = tuple(_words(what["what"]))
    out = {name for name, of in groups.items() if of <= _NOT_TO_RUN}
    return Gemfile(frozenset(out), required)


def _words(text: str) -> tuple[str, ...]:
    return tuple(one or other for one, other in _WORD.findall(text))
