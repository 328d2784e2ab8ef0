"""What an app's folder says it needs: uv.lock, else requirements.txt, else pyproject.toml.

The files are somebody's input: they are read here, line by line, and uv is given only what was
understood. What would build, run or read something on this machine is refused with its line.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from isopod.errors import DependencyInvalid

_MAX_FILE_BYTES = 4 << 20
_MAX_LINES = 5_000
_FILES = (".whl", ".tar.gz", ".zip")
_ELSEWHERE_HINT = (
    "isopod installs wheels from a package index; put pure Python code into the app's folder"
)
_INDEX_HINT = "the node's operator chooses the package index, with UV_INDEX or UV_DEFAULT_INDEX"
_HASH = re.compile(r"(?:^|\s)--hash[=\s]+(\w+:[0-9a-fA-F]+)")
# Options that change nothing here: wheels only, from the node's own index and cache.
_HARMLESS = re.compile(
    r"--(only-binary|prefer-binary|no-binary|trusted-host|no-cache|no-cache-dir|use-pep517"
    r"|progress-bar|use-feature|no-build-isolation|upgrade|disable-pip-version-check)\b"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement, and where it stands."""

    requirement: Requirement
    hashes: tuple[str, ...]
    file: str
    number: int  # 0 where the file has no lines that mean something

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def text(self) -> str:
        """As uv reads it."""
        return " ".join([str(self.requirement), *(f"--hash={one}" for one in self.hashes)])

    @property
    def at(self) -> str:
        return f"{self.file}, line {self.number}" if self.number else self.file


@dataclass
class Requirements:
    """What an app needs. `source` is the file that it was read from, "" when there is none."""

    source: str = ""
    lines: list[Line] = field(default_factory=list)
    constraints: list[Line] = field(default_factory=list)
    prereleases: bool = False
    require_hashes: bool = False
    notes: list[str] = field(default_factory=list)  # for people: what was changed, and why


def read_folder(folder: Path) -> Requirements | None:
    """The requirements in requirements.txt or pyproject.toml; None where uv.lock decides."""
    if (folder / "uv.lock").is_file() and (folder / "pyproject.toml").is_file():
        return None
    if (folder / "requirements.txt").is_file():
        return read_requirements_txt(folder)
    if (folder / "pyproject.toml").is_file():
        return read_pyproject(folder)
    return Requirements()


# -- requirements.txt -----------------------------------------------------------------------


def read_requirements_txt(folder: Path, name: str = "requirements.txt") -> Requirements:
    found = Requirements(source=name)
    _read_file(folder, name, found, found.lines, seen=set())
    return found


def parse_text(text: str, file: str, *, folder: Path | None = None) -> Requirements:
    """Requirements in `text`; -r and -c are refused where there is no `folder`."""
    found = Requirements(source=file)
    _read_text(text, file, folder, found, found.lines, seen=set())
    return found


def _read_file(
    folder: Path, name: str, found: Requirements, into: list[Line], seen: set[Path]
) -> None:
    path = folder / name
    if path in seen:
        return
    seen.add(path)
    _read_text(_text_of(path, name), name, folder, found, into, seen)


def _text_of(path: Path, name: str) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise DependencyInvalid(f"{name} is larger than {_MAX_FILE_BYTES >> 20} MiB")
    # `pip freeze > requirements.txt` in PowerShell writes UTF-16.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DependencyInvalid(f"{name} is not UTF-8", details={"file": name}) from error


def _read_text(
    text: str,
    file: str,
    folder: Path | None,
    found: Requirements,
    into: list[Line],
    seen: set[Path],
) -> None:
    for number, line in _logical_lines(text):
        # Without a folder the text is made from another file: its lines mean nothing to people.
        number = number if folder else 0
        at = f"{file}, line {number}" if number else file
        if line.startswith("-"):
            included = _option(line, at, found)
            if included is not None:
                target = into if included.startswith("r") else found.constraints
                name = _inside(folder, file, included[1:], at)
                assert folder is not None
                _read_file(folder, name, found, target, seen)
            continue
        into.append(_requirement(line, file, number, at))
        if len(into) > _MAX_LINES:
            raise DependencyInvalid(f"{at}: more than {_MAX_LINES:,} requirements")


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(line number, text) without comments, continued lines joined."""
    lines: list[tuple[int, str]] = []
    start, joined = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        start = start or number
        if raw.rstrip().endswith("\\"):
            joined += raw.rstrip()[:-1] + " "
            continue
        line = re.sub(r"(^|\s)#.*$", "", joined + raw).strip()
        if line:
            lines.append((start, line))
        start, joined = 0, ""
    if joined.strip():
        lines.append((start, joined.strip()))
    return lines


def _option(line: str, at: str, found: Requirements) -> str | None:
    """Act on an option; "rFILE" or "cFILE" for one that includes a file."""
    if match := re.match(r"(?:-r\s*|--requirement[=\s]\s*)(.+)", line):
        return "r" + match[1].strip()
    if match := re.match(r"(?:-c\s*|--constraint[=\s]\s*)(.+)", line):
        return "c" + match[1].strip()
    if re.match(r"(-e|--editable)\b", line):
        _refuse(at, f"{line!r} is an editable requirement", _ELSEWHERE_HINT)
    if match := re.match(r"(?:-i|--index-url|--extra-index-url)[=\s]\s*(\S+)", line):
        if match[1].rstrip("/") == "https://pypi.org/simple":
            return None
        _refuse(at, "a package index cannot be chosen by an app", _INDEX_HINT)
    if re.match(r"(-f|--find-links|--no-index)\b", line):
        _refuse(at, "a package index cannot be chosen by an app", _INDEX_HINT)
    if line == "--pre":
        found.prereleases = True
    elif line == "--require-hashes":
        found.require_hashes = True
    elif not _HARMLESS.match(line):
        _refuse(at, f"the option {line.split(maxsplit=1)[0]!r} is not supported", "")
    return None


def _inside(folder: Path | None, file: str, name: str, at: str) -> str:
    """`name` as `file` means it, from the app's folder. Refuses what is not in there."""
    if folder is None or re.match(r"\w+://", name):
        _refuse(at, f"{name!r} is not a file in the app's folder", "")
    root = folder.resolve()
    path = (root / file).parent / name
    try:
        target = path.resolve()
        if target.is_relative_to(root) and target.is_file():
            return target.relative_to(root).as_posix()
    except (OSError, ValueError):
        pass
    return _refuse(at, f"{name!r} is not a file in the app's folder", "")


def _requirement(line: str, file: str, number: int, at: str) -> Line:
    hashes = tuple(_HASH.findall(line))
    text = _HASH.sub("", line).strip()
    if re.search(r"\s--?\w", text):
        option = re.search(r"\s(--?[\w-]+)", text)
        _refuse(at, f"the option {option[1] if option else text!r} is not supported here", "")
    is_path = re.match(r"(\.|/|~|[\w.-]+/|file:)", text) or text.endswith(_FILES)
    if is_path and "@" not in text:
        _refuse(at, f"{text!r} is a path, not the name of a package", _ELSEWHERE_HINT)
    if re.match(r"(git|hg|svn|bzr)\+|https?://", text):
        _refuse(at, f"{text!r} is not the name of a package", _ELSEWHERE_HINT)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        why = str(error).splitlines()[0]
        _refuse(at, f"{text[:200]!r} is no requirement: {why[:1].lower()}{why[1:]}",
                'write a requirement as "name" or "name>=1.2"')  # fmt: skip
    if requirement.url is not None:
        _check_url(requirement, at)
    return Line(requirement, hashes, file, number)


def _check_url(requirement: Requirement, at: str) -> None:
    address = (requirement.url or "").partition("#")[0]
    if not re.fullmatch(r"https://[^/@\s]+/\S+-none-any\.whl", address):
        _refuse(
            at,
            f"{requirement.name!r} comes from {address!r}, which is no pure wheel on the web",
            _ELSEWHERE_HINT,
        )


def _refuse(at: str, why: str, hint: str) -> NoReturn:
    file, _, line = at.partition(", line ")
    details: dict[str, Any] = {"file": file}
    if line:
        details["line"] = int(line)
    raise DependencyInvalid(f"{at}: {why}", hint=hint, details=details)


# -- pyproject.toml -------------------------------------------------------------------------


def load_pyproject(folder: Path) -> dict[str, Any]:
    name = "pyproject.toml"
    try:
        return tomllib.loads(_text_of(folder / name, name))
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise DependencyInvalid(
            f"{name} cannot be read: {error}", details={"file": name}
        ) from error


def read_pyproject(folder: Path) -> Requirements:
    """[project] dependencies. The project itself is not built: its code is in the folder."""
    name = "pyproject.toml"
    body = load_pyproject(folder)
    project = body.get("project")
    tool = body.get("tool")
    if not isinstance(project, dict):
        poetry = tool.get("poetry") if isinstance(tool, dict) else None
        if isinstance(poetry, dict) and poetry.get("dependencies"):
            raise DependencyInvalid(
                f"{name}: the dependencies are written for Poetry only",
                hint="run `poetry export -o requirements.txt`, or list them in [project]",
                details={"file": name},
            )
        return Requirements()
    if "dependencies" in (project.get("dynamic") or []):
        raise DependencyInvalid(
            f"{name}: the dependencies are dynamic, so only a build of the project knows them",
            hint="list them in requirements.txt",
            details={"file": name},
        )
    listed = project.get("dependencies", [])
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise DependencyInvalid(f"{name}: [project] dependencies must be a list of texts")
    return Requirements(source=name, lines=[_requirement(one, name, 0, name) for one in listed])
