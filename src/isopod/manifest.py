"""isopod.toml: what a folder says of its app. Everything in it is optional.

[app] name, runtime, entrypoint, debug; [scaling] max_instances, idle_s, queue; [limits] memory_mib,
deadline_ms, cpu_ms_per_request, max_instances, max_request_mib, max_response_mib, log_kib_per_s,
disk_mib; [health] path; [startup] snapshot, warmup, before_snapshot, after_restore; [isolation]
mode, cordon; [network] allow; [static] root, spa; [env] KEY = "value". Anything else is refused,
with the file, the key and the line: a misspelt limit that is ignored would be found out too late.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from isopod import toml_text
from isopod.errors import ManifestInvalid, NameInvalid
from isopod.model.app import (
    AppSpec,
    Health,
    Isolation,
    IsolationMode,
    Limits,
    Scaling,
    Startup,
    WarmupRequest,
)
from isopod.model.ids import AppName
from isopod.model.network import MAX_TARGETS, NetworkGrant, Target
from isopod.model.tenant import Cordon
from isopod.toml_text import TomlInvalid, shown

FILE_NAME = "isopod.toml"
_MAX_FILE_BYTES = 256 << 10

_IDENTIFIER = r"[^\W\d]\w*"
_ENTRYPOINT = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*")
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOOK = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}")
_RUNTIME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_HEADER_VALUE = re.compile(r"[ -~\t]*")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MAX_WARMUPS = 20
_MAX_WARMUP_HEADERS = 50
_MAX_WARMUP_BYTES = 64 << 10  # of a body
# They follow from the body and the connection.
_OUR_HEADERS = frozenset({"connection", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """What isopod.toml says; None is what it does not say."""

    name: AppName | None = None
    runtime: str | None = None
    entrypoint: str | None = None
    max_instances: int | None = None
    idle_s: float | None = None
    queue: int | None = None
    memory_mib: int | None = None
    deadline_ms: int | None = None
    max_request_mib: int | None = None
    cpu_ms_per_request: int | None = None
    max_response_mib: int | None = None
    log_kib_per_s: int | None = None
    disk_mib: int | None = None
    health_path: str | None = None
    snapshot: bool | None = None
    warmup: tuple[WarmupRequest, ...] | None = None
    before_snapshot: str | None = None
    after_restore: str | None = None
    isolation: IsolationMode | None = None
    cordon: Cordon | None = None
    allow: tuple[Target, ...] | None = None
    debug: bool | None = None
    static_root: str | None = None
    static_spa: bool | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def to_spec(
        self, *, name: AppName, runtime: str, entrypoint: str, env: Mapping[str, str]
    ) -> AppSpec:
        """The specification with the defaults filled in. `env` goes over the manifest's."""
        health = Health() if self.health_path is None else Health(path=self.health_path)
        unsaid = Startup(warmup=(WarmupRequest(health.path),))
        return AppSpec(
            name=name,
            runtime=runtime,
            entrypoint=entrypoint,
            env={**self.env, **env},
            scaling=replace(Scaling(), **self._said(Scaling)),
            limits=replace(Limits(), **self._said(Limits)),
            health=health,
            startup=replace(unsaid, **self._said(Startup)),
            isolation=Isolation(self.isolation or "app", self.cordon or "shared"),
            network=NetworkGrant(self.allow or ()),
            debug=bool(self.debug),
        )

    def _said(self, section: type[Scaling | Limits | Startup]) -> dict[str, Any]:
        said = {f.name: getattr(self, f.name) for f in fields(section)}
        return {name: value for name, value in said.items() if value is not None}


def load(folder: Path) -> Manifest:
    """The manifest of `folder`; an empty one where there is no isopod.toml."""
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise ManifestInvalid(f"cannot read {FILE_NAME}: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ManifestInvalid(f"{FILE_NAME} is larger than {_MAX_FILE_BYTES >> 10} KiB")
    try:
        text = toml_text.decode(data)
    except TomlInvalid as error:
        raise _not_toml(error) from error
    return parse(text)


def parse(text: str) -> Manifest:
    """The manifest in `text`. Raises `ManifestInvalid` with file, key and line in details."""
    try:
        body = toml_text.parse(text)
    except TomlInvalid as error:
        raise _not_toml(error) from error
    return _Reader(text).manifest(body)


def _not_toml(error: TomlInvalid) -> ManifestInvalid:
    if not error.line:
        return ManifestInvalid(f"{FILE_NAME} {error.why}", details={"file": FILE_NAME})
    return ManifestInvalid(
        f"{FILE_NAME}, line {error.line}: {error.why}",
        hint='a value is written as key = "text" or key = 1, below its [section]',
        details={"file": FILE_NAME, "line": error.line},
    )


# -- what each key may hold -----------------------------------------------------------------

# Gives the value, or raises ValueError saying what it has to be.
_Check = Callable[[Any], Any]


def _name(value: Any) -> AppName:
    try:
        return AppName.parse(_text(value))
    except NameInvalid as error:
        raise ValueError(f"must be an app name: {error.message}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def _runtime(value: Any) -> str:
    if not _RUNTIME.fullmatch(_text(value)):
        raise ValueError('must be the name of a runtime, such as "python"')
    return str(value)


def _entrypoint(value: Any) -> str:
    text = _text(value)
    if text.endswith(")"):
        raise ValueError(
            "must name an object, not a call: write `app = create_app()` in a module and name that"
        )
    if not _ENTRYPOINT.fullmatch(text):
        raise ValueError('must be "module:object", such as "pkg.module:app"')
    return text


def _path(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"/[!-~]*", text) or "#" in text or len(text) > 2000:
        raise ValueError('must be a path of printable ASCII that starts with "/"')
    return text


def _folder(value: Any) -> str:
    parts = [part for part in _text(value).split("/") if part not in ("", ".")]
    if value.startswith("/") or ".." in parts or "\\" in value:
        raise ValueError('must be a folder of the app, such as "dist"')
    return "/".join(parts) or "."


def _true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _hook(value: Any) -> str:
    if not _HOOK.fullmatch(_text(value)):
        raise ValueError('must be "module:function", such as "pkg.module:close_files"')
    return str(value)


def _mode(value: Any) -> str:
    if value not in ("app", "request"):
        raise ValueError('must be "app" or "request"')
    return str(value)


def _cordon(value: Any) -> str:
    if value not in ("shared", "tenant"):
        raise ValueError('must be "shared" or "tenant"')
    if value == "tenant":
        # Better refused than believed: whoever asks for it relies on it.
        raise ValueError(
            'can only be "shared" yet: this version has no workers of one tenant alone'
        )
    return str(value)


def _warmup(value: Any) -> tuple[WarmupRequest, ...]:
    if not isinstance(value, list):
        raise ValueError('must be a list, such as ["/", {path = "/x", method = "POST"}]')
    if len(value) > _MAX_WARMUPS:
        raise ValueError(f"must hold at most {_MAX_WARMUPS} requests, not {len(value):,}")
    found = []
    for number, entry in enumerate(value, 1):
        try:
            found.append(_warmup_request(entry))
        except ValueError as error:
            raise ValueError(f"entry {number} {error}") from error
    return tuple(found)


def _warmup_request(entry: Any) -> WarmupRequest:
    if isinstance(entry, str):
        return WarmupRequest(_path(entry))
    if not isinstance(entry, dict):
        raise ValueError('must be a path, or a table such as {path = "/x", method = "POST"}')
    for key in entry:
        if key not in ("path", "method", "headers", "body"):
            raise ValueError(f"holds {shown(key)}; known are path, method, headers and body")
    if "path" not in entry:
        raise ValueError("lacks its path")
    method = entry.get("method", "GET")
    if method not in _METHODS:
        raise ValueError(f"must have one of these as its method: {', '.join(_METHODS)}")
    try:
        path = _path(entry["path"])
    except ValueError as error:
        raise ValueError(f"has a path that {error}") from error
    try:
        body = _text(entry.get("body", ""))
    except ValueError as error:
        raise ValueError(f"has a body that {error}") from error
    if len(body.encode()) > _MAX_WARMUP_BYTES:
        raise ValueError(f"has a body larger than {_MAX_WARMUP_BYTES >> 10} KiB")
    return WarmupRequest(path, method, _headers(entry.get("headers", {})), body)


def _allow(value: Any) -> tuple[Target, ...]:
    if not isinstance(value, list):
        raise ValueError('must be a list, such as ["api.example.com:443", "*.example.org:443"]')
    if len(value) > MAX_TARGETS:
        raise ValueError(f"must hold at most {MAX_TARGETS} entries, not {len(value):,}")
    found = []
    for number, entry in enumerate(value, 1):
        try:
            found.append(Target.parse(_text(entry)))
        except ValueError as error:
            raise ValueError(f"entry {number} {error}") from error
    return tuple(dict.fromkeys(found))


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    """The values are in no message: one may be a token."""
    if not isinstance(value, dict):
        raise ValueError('must have its headers as a table: headers = {accept = "text/html"}')
    if len(value) > _MAX_WARMUP_HEADERS:
        raise ValueError(f"has more than {_MAX_WARMUP_HEADERS} headers")
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"has a header named {shown(name)}, which no header can be")
        if name.lower() in _OUR_HEADERS:
            raise ValueError(f"has the header {name!r}, which follows from the request")
        if not isinstance(text, str) or not _HEADER_VALUE.fullmatch(text) or len(text) > 8192:
            raise ValueError(f"must have printable ASCII text as the value of header {name!r}")
    return tuple(value.items())


def _whole(low: int, high: int) -> _Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low:,} to {high:,}")
        return value

    return check


def _number(low: float, high: float) -> _Check:
    def check(value: Any) -> float:
        # The comparison is false for nan.
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:,g} to {high:,g}")
        return float(value)

    return check


# section -> key -> (field of Manifest, check)
_SECTIONS: dict[str, dict[str, tuple[str, _Check]]] = {
    "app": {
        "name": ("name", _name),
        "runtime": ("runtime", _runtime),
        "entrypoint": ("entrypoint", _entrypoint),
        "debug": ("debug", _true_or_false),
    },
    "scaling": {
        "max_instances": ("max_instances", _whole(1, 1000)),
        "idle_s": ("idle_s", _number(0, 86_400)),
        "queue": ("queue", _whole(0, 100_000)),
    },
    "limits": {
        "memory_mib": ("memory_mib", _whole(32, 4095)),  # a 32-bit guest's address space
        "deadline_ms": ("deadline_ms", _whole(10, 3_600_000)),
        "max_request_mib": ("max_request_mib", _whole(1, 4096)),
        "max_response_mib": ("max_response_mib", _whole(1, 1 << 20)),
        "cpu_ms_per_request": ("cpu_ms_per_request", _whole(1, 3_600_000)),
        "max_instances": ("max_instances", _whole(1, 1000)),  # as in [scaling]
        "log_kib_per_s": ("log_kib_per_s", _whole(1, 1 << 20)),
        "disk_mib": ("disk_mib", _whole(0, 1 << 20)),
    },
    "health": {"path": ("health_path", _path)},
    "startup": {
        "snapshot": ("snapshot", _true_or_false),
        "warmup": ("warmup", _warmup),
        "before_snapshot": ("before_snapshot", _hook),
        "after_restore": ("after_restore", _hook),
    },
    "isolation": {"mode": ("isolation", _mode), "cordon": ("cordon", _cordon)},
    "static": {"root": ("static_root", _folder), "spa": ("static_spa", _true_or_false)},
    "network": {"allow": ("allow", _allow)},
}


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text

    def manifest(self, body: Mapping[str, Any]) -> Manifest:
        values: dict[str, Any] = {}
        for section, content in body.items():
            if section != "env" and section not in _SECTIONS:
                self._fail("", section, "is not known", [*_SECTIONS, "env"])
            if not isinstance(content, dict):
                self._fail("", section, f"must be a section: [{section}]")
            if section == "env":
                values["env"] = self._env(content)
                continue
            keys = _SECTIONS[section]
            for key, value in content.items():
                if key not in keys:
                    self._fail(section, key, "is not known", list(keys))
                name, check = keys[key]
                before = values.get(name)
                try:
                    values[name] = check(value)
                except ValueError as error:
                    self._fail(section, key, str(error), value=value)
                if before is not None and before != values[name]:
                    # max_instances: a limit by nature, and scaling by habit.
                    why = f"says {value!r} and [{self._other(section, name)}] {key} says {before!r}"
                    self._fail(section, key, f"{why}: keep one of the two")
        return Manifest(**values)

    def _other(self, section: str, name: str) -> str:
        """The section beside `section` that sets the same field."""
        return next(
            other
            for other, keys in _SECTIONS.items()
            if other != section and any(name == set_by for set_by, _ in keys.values())
        )

    def _env(self, content: Mapping[str, Any]) -> dict[str, str]:
        for key, value in content.items():
            if not _ENV_KEY.fullmatch(key):
                self._fail("env", key, "must be letters, digits and '_', no digit first")
            try:
                _text(value)
            except ValueError as error:
                # The value is not shown: it may be a secret.
                self._fail("env", key, str(error))
        return dict(content)

    def _fail(
        self, section: str, key: str, why: str, known: list[str] | None = None, value: Any = None
    ) -> NoReturn:
        line = toml_text.line_of(self._text, section, key)
        at = f"{FILE_NAME}, line {line}" if line else FILE_NAME
        name = f"[{section}] {key}" if section else f"[{key}]"
        # A list of warm-ups is not shown: it is long, and a header may be a secret.
        but = "" if value is None or key == "warmup" else f", not {shown(value)}"
        raise ManifestInvalid(
            f"{at}: {name} {why}{but}",
            hint=f"known here: {', '.join(known)}" if known else "",
            details={
                "file": FILE_NAME,
                "line": line,
                "key": f"{section}.{key}" if section else key,
            },
        )
