"""Why dependencies could not be installed, said once for all of them and with what to do.

uv stops at the first reason and explains it by version ranges. Here each requirement is tried by
itself: those that fail alone are then resolved for all platforms, which tells "does not exist"
from "exists, but only as native code".
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from isopod.errors import (
    DependencyConflict,
    DependencyNativeOnly,
    DependencyNotFound,
    IsopodError,
)
from isopod.runtimes.python.alternatives import advice, has_advice
from isopod.runtimes.python.bundled import applies, bundled, plant
from isopod.runtimes.python.requirements import Line, Requirements
from isopod.runtimes.python.uv import Uv

_AT_ONCE = 4  # calls of uv; each is short and waits for the index
_ABSENT = re.compile(r"(\S+?) was not found in the package registry")
_NO_VERSION = re.compile(r"there (?:is|are) no versions? of (\S+)")
_NO_WHEEL = re.compile(r"no usable wheels|no wheels with a matching|no wheels? (are|is) available")


@dataclass(frozen=True, slots=True)
class Native:
    """A distribution that has no wheel a guest can use."""

    name: str
    version: str  # "" when every version is so
    needed_by: str  # the requirement that brought it; "" when it is that itself
    only_source: bool = False


def native_only(found: Iterable[Native]) -> DependencyNativeOnly:
    """One error for all of them."""
    every = sorted({one.name: one for one in found}.values(), key=lambda one: one.name)
    named = [
        f"{one.name} {one.version}".strip() + (f" (for {one.needed_by})" if one.needed_by else "")
        for one in every
    ]
    verb, noun = ("have", "dependencies") if len(every) > 1 else ("has", "dependency")
    return DependencyNativeOnly(
        f"{len(every)} {noun} {verb} no pure Python wheel: {', '.join(named)}",
        hint="; ".join(f"{one.name}: {_advice(one)}" for one in every),
        details={
            "packages": [
                {
                    "name": one.name,
                    "version": one.version,
                    "needed_by": one.needed_by,
                    "only_source": one.only_source,
                    "advice": _advice(one),
                }
                for one in every
            ]
        },
    )


def _advice(one: Native) -> str:
    if one.only_source and not has_advice(one.name):
        return "it publishes sources only, which isopod does not build; require another version"
    return advice(one.name)


def diagnose(requirements: Requirements, said: str, uv: Uv) -> IsopodError:
    """The error to raise after uv failed, saying `said`, to install `requirements`."""
    with tempfile.TemporaryDirectory(prefix="isopod-why-") as folder:
        return _Diagnosis(requirements, said, uv, Path(folder)).run()


class _Diagnosis:
    def __init__(self, requirements: Requirements, said: str, uv: Uv, work: Path) -> None:
        self._lines = [one for one in requirements.lines if applies(one.requirement.marker)]
        self._options = ("--prerelease", "allow") if requirements.prereleases else ()
        self._said = said
        self._uv = uv
        self._work = work
        self._site = work / "site"
        self._files = 0
        plant(self._site)

    def run(self) -> IsopodError:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            texts = [line.text for line in self._lines]
            files = [self._file(text) for text in texts]
            alone = list(pool.map(self._installs, files))
            failing = [line for line, works in zip(self._lines, alone, strict=True) if not works]
            if failing:
                reasons = list(pool.map(self._why, failing, [self._pins() for _ in failing]))
                return _worst(reasons)
            return self._together(pool)

    def _together(self, pool: ThreadPoolExecutor) -> IsopodError:
        """Each requirement works by itself, but not all of them at once."""
        file, pins = self._file("\n".join(line.text for line in self._lines)), self._pins()
        done = self._uv.resolve_anywhere(file, pins, *self._options)
        if done.ok:
            native = self._native_among(_read_pins(pins), "", pool.map)
            if native:
                return native_only(native)
        words = self._said if done.ok else done.said
        return DependencyConflict(
            f"the requirements contradict each other: {_first(words)}",
            hint="loosen one of them",
            details={"said": words},
        )

    def _why(self, line: Line, pins: Path) -> IsopodError:
        """Why one requirement cannot be installed by itself."""
        conflict = _bundled_conflict(line)
        done = self._uv.resolve_anywhere(self._file(line.text), pins, *self._options)
        if done.ok:
            found = _read_pins(pins)
            native = self._native_among(found, line.name, map)
            if conflict is not None and all(one.name == line.name for one in native):
                return conflict
            if native:
                shown = str(line.requirement)
                return native_only(_with_need(native, line.name, shown))
            return DependencyConflict(
                f"{line.at}: {str(line.requirement)!r} cannot be installed: {_first(self._said)}",
                details={"said": self._said},
            )
        if absent := _ABSENT.search(done.said):
            what = absent[1] if canonicalize_name(absent[1]) != line.name else ""
            needs = f" needs {what!r}, which" if what else ""
            return DependencyNotFound(
                f"{line.at}: {str(line.requirement)!r}{needs} does not exist on the package index",
                hint="check the spelling of its name",
                details={"packages": [absent[1]]},
            )
        if conflict is not None:
            return conflict
        if _NO_WHEEL.search(done.said):
            return native_only([Native(line.name, _pinned_version(line), "", only_source=True)])
        if _NO_VERSION.search(done.said):
            return DependencyNotFound(
                f"{line.at}: no version on the package index fits {str(line.requirement)!r}",
                hint="loosen its version",
                details={"packages": [line.name], "said": done.said},
            )
        return DependencyConflict(
            f"{line.at}: {str(line.requirement)!r} cannot be installed: {_first(done.said)}",
            details={"said": done.said},
        )

    def _native_among(
        self, pins: Sequence[Requirement], asked: str, each: Callable[..., Iterable[bool]]
    ) -> list[Native]:
        """The pins that have no wheel for a guest. Bundled ones count when asked for only."""
        candidates = [
            pin
            for pin in pins
            if canonicalize_name(pin.name) == asked or canonicalize_name(pin.name) not in bundled()
        ]
        files = [self._file(f"{pin.name}{pin.specifier}", single=True) for pin in candidates]
        works = list(each(self._installs_single, files))
        return [
            Native(canonicalize_name(pin.name), str(pin.specifier).removeprefix("=="), "")
            for pin, fine in zip(candidates, works, strict=True)
            if not fine
        ]

    def _installs(self, file: Path) -> bool:
        return self._uv.would_install(self._site, file, *self._options).ok

    def _installs_single(self, file: Path) -> bool:
        return self._uv.would_install(self._site, file, "--no-deps", "--prerelease", "allow").ok

    def _file(self, text: str, *, single: bool = False) -> Path:
        self._files += 1
        path = self._work / f"{'pin' if single else 'in'}-{self._files}.txt"
        path.write_text(text + "\n")
        return path

    def _pins(self) -> Path:
        """An output for a resolution that prefers what the runtime bundles."""
        return self._file("\n".join(f"{one.name}=={one.version}" for one in bundled().values()))


def _bundled_conflict(line: Line) -> DependencyConflict | None:
    one = bundled().get(line.name)
    if one is None or line.requirement.specifier.contains(one.version, prereleases=True):
        return None
    return DependencyConflict(
        f"{line.at}: {str(line.requirement)!r} does not fit {one.name} {one.version}, "
        "which is part of the runtime and has no pure wheel",
        hint=f"require {line.requirement.name!r} without a version, or one that {one.version} fits",
        details={"name": one.name, "bundled": one.version, "required": str(line.requirement)},
    )


def _worst(reasons: list[IsopodError]) -> IsopodError:
    """One error: what does not exist first, then what contradicts, then all that is native."""
    missing = [one for one in reasons if isinstance(one, DependencyNotFound)]
    if missing:
        if len(missing) == 1:
            return missing[0]
        return DependencyNotFound(
            "; ".join(one.message for one in missing),
            hint=missing[0].hint,
            details={"packages": [p for one in missing for p in one.details["packages"]]},
        )
    native = [one for one in reasons if isinstance(one, DependencyNativeOnly)]
    others = [one for one in reasons if not isinstance(one, DependencyNativeOnly)]
    if others:
        first = others[0]
        also = [*others[1:], *native]
        if also:
            more = "; ".join(one.message for one in also)
            first.details["also"] = [one.to_wire() for one in also]
            first = type(first)(
                f"{first.message}; {more}",
                hint="; ".join(dict.fromkeys(e.hint for e in others + native if e.hint)),
                details=first.details,
            )
        return first
    return native_only(
        Native(p["name"], p["version"], p["needed_by"], p["only_source"])
        for one in native
        for p in one.details["packages"]
    )


def _with_need(native: list[Native], asked: str, shown: str) -> list[Native]:
    return [
        one if one.name == asked else Native(one.name, one.version, shown, one.only_source)
        for one in native
    ]


def _read_pins(path: Path) -> list[Requirement]:
    found = []
    for text in path.read_text().splitlines():
        line = text.partition("#")[0].partition("--hash")[0].strip().rstrip("\\").strip()
        try:
            pin = Requirement(line)
        except InvalidRequirement:
            continue
        if applies(pin.marker):
            found.append(pin)
    return found


def _pinned_version(line: Line) -> str:
    specifiers = list(line.requirement.specifier)
    is_pin = len(specifiers) == 1 and specifiers[0].operator == "=="
    return specifiers[0].version if is_pin else ""


def _first(words: str) -> str:
    """An explanation in one line. Of a long one the last conclusion, which speaks of the
    requirements; of a short one all, as the last alone names one side of a contradiction."""
    text = re.sub(r"\s+", " ", words).strip().rstrip(".")
    if len(text) > 400:
        parts = [part.strip() for part in re.split(r"\n(?=And |Because )", words) if part.strip()]
        text = re.sub(r"\s+", " ", parts[-1] if parts else words).strip().rstrip(".")
        text = re.sub(r"^And (because )?", "", text, flags=re.IGNORECASE)
    text = text[:1].lower() + text[1:]
    return text if len(text) <= 400 else text[:397] + "..."
