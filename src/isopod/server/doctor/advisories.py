"""The table of known advisories, and which of them the installed versions fall under."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from isopod.server.doctor.check import Check, Status

TABLE = Path(__file__).parent / "advisories.toml"
Severity = Literal["low", "medium", "high", "critical"]
Where = Literal["node", "runtime"]
Reached = Literal["yes", "no", "unknown"]
_GRAVEST_FIRST: tuple[Status, ...] = ("problem", "warning", "ok")
# (where, canonical name) -> version
Versions = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Advisory:
    """See the head of advisories.toml."""

    id: str
    package: str
    where: Where
    affected: tuple[SpecifierSet, ...]
    fixed: str
    severity: Severity
    published: str
    title: str
    source: str
    reached: Reached
    why: str
    aliases: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()

    def affects(self, version: Version, machine: str) -> bool:
        if self.machine and machine not in self.machine:
            return False
        # A pre-release of an affected version is affected: without it "3.15.0b1" is in no range.
        return any(one.contains(version, prereleases=True) for one in self.affected)

    @property
    def status(self) -> Status:
        """Of an affected version."""
        if self.reached == "no":
            return "ok"
        grave = self.severity in ("high", "critical")
        return "problem" if grave and self.reached == "yes" else "warning"


def load(path: Path) -> list[Advisory]:
    """Raises ValueError for a table that holds something else than advisories."""
    entries = tomllib.loads(path.read_text())["advisory"]
    found = [_advisory(entry) for entry in entries]
    ids = [name for one in found for name in (one.id, *one.aliases)]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{path}: an advisory is there twice")
    return found


def _advisory(entry: Mapping[str, Any]) -> Advisory:
    values = dict(entry)
    for name, known in (("severity", Severity), ("where", Where), ("reached", Reached)):
        if values.get(name) not in get_args(known):
            raise ValueError(f"{entry.get('id')}: {name} {values.get(name)!r} is not known")
    if not str(values["source"]).startswith("https://"):
        raise ValueError(f"{entry.get('id')}: it has no source")
    values["affected"] = tuple(SpecifierSet(one) for one in values["affected"])
    for name in ("aliases", "machine"):
        values[name] = tuple(values.get(name, ()))
    return Advisory(**values)


def check_versions(
    advisories: Iterable[Advisory], versions: Versions, *, machine: str
) -> list[Check]:
    """One check for each advisory that an installed version falls under, the gravest first, after
    one for the table itself."""
    table = list(advisories)
    found: list[Check] = []
    for one in table:
        version = versions.get((one.where, one.package))
        if version is None:
            continue
        try:
            affected = one.affects(Version(version), machine)
        except InvalidVersion:
            affected = True  # of a build of somebody's own: better told than not
        if affected:
            found.append(_check(one, version))
    found.sort(key=lambda check: _GRAVEST_FIRST.index(check.status))
    reached = sum(check.status != "ok" for check in found)
    about = (
        f"{len(table)} in the table, {len(found)} affect what is installed, "
        f"{len(found) - reached} of them cannot be reached through isopod"
    )
    return [Check("advisories", "table", "ok", about), *found]


def _check(one: Advisory, version: str) -> Check:
    reach = {"yes": "", "no": "not reached: ", "unknown": "not known to be reached: "}[one.reached]
    return Check(
        "advisories",
        one.id,
        one.status,
        f"{one.package} {version}, {one.severity}: {one.title} ({reach}{one.why})",
        f"fixed in {one.fixed}; {one.source}",
    )
