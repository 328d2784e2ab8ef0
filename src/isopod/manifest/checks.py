"""What the keys of isopod.toml may hold. Each gives the value, or raises ValueError saying what it
has to be."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from isopod.errors import NameInvalid
from isopod.model.app import WarmupRequest
from isopod.model.ids import AppName
from isopod.model.job import Job
from isopod.model.network import MAX_TARGETS, Target
from isopod.model.schedule import check_schedule
from isopod.model.volume import VolumeName, check_mount
from isopod.toml_text import shown

_IDENTIFIER = r"[^\W\d]\w*"
_ENTRYPOINT = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*")
_HOOK = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}")
_RUNTIME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SERVED_PATH = re.compile(r"(/[A-Za-z0-9._~@+-]{1,100}){0,10}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_HEADER_VALUE = re.compile(r"[ -~\t]*")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MAX_WARMUPS = 20
_MAX_WARMUP_HEADERS = 50
_MAX_WARMUP_BYTES = 64 << 10  # of a body
# They follow from the body and the connection.
_OUR_HEADERS = frozenset({"connection", "content-length", "transfer-encoding"})

_JOB_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_MAX_COMMANDS = 20
_MAX_COMMAND_CHARS = 4096

Check = Callable[[Any], Any]


def name(value: Any) -> AppName:
    try:
        return AppName.parse(text(value))
    except NameInvalid as error:
        raise ValueError(f"must be an app name: {error.message}") from error


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def runtime(value: Any) -> str:
    if not _RUNTIME.fullmatch(text(value)):
        raise ValueError('must be the name of a runtime, such as "python"')
    return str(value)


def entrypoint(value: Any) -> str:
    said = text(value)
    if said.endswith(")"):
        raise ValueError(
            "must name an object, not a call: write `app = create_app()` in a module and name that"
        )
    if said.endswith(".wasm"):
        return _file(said)
    if not _ENTRYPOINT.fullmatch(said):
        raise ValueError('must be "module:object", such as "pkg.module:app", or a .wasm file')
    return said


def _file(said: str) -> str:
    parts = [part for part in said.split("/") if part not in ("", ".")]
    if said.startswith("/") or ".." in parts or "\\" in said:
        raise ValueError('must be a file of the app, such as "bin/hello.wasm"')
    return "/".join(parts)


def url_path(value: Any) -> str:
    said = text(value)
    if not re.fullmatch(r"/[!-~]*", said) or "#" in said or len(said) > 2000:
        raise ValueError('must be a path of printable ASCII that starts with "/"')
    return said


def folder(value: Any) -> str:
    parts = [part for part in text(value).split("/") if part not in ("", ".")]
    if value.startswith("/") or ".." in parts or "\\" in value:
        raise ValueError('must be a folder of the app, such as "dist"')
    return "/".join(parts) or "."


def served_path(value: str) -> str:
    """Below which files are served beside an app: "/", or without a last slash."""
    said = value.removesuffix("/")
    if not _SERVED_PATH.fullmatch(said) or {".", ".."} & set(said.split("/")):
        raise ValueError(
            'must be a path such as "/static", of letters, digits and the characters . _ ~ @ + -'
        )
    return said or "/"


def served_folder(value: Any) -> str:
    said = folder(value)
    if said == ".":
        raise ValueError(
            'must be a folder below the app\'s own, such as "public": its code is not to be served'
        )
    return said


def true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def hook(value: Any) -> str:
    if not _HOOK.fullmatch(text(value)):
        raise ValueError('must be "module:function", such as "pkg.module:close_files"')
    return str(value)


def mode(value: Any) -> str:
    if value not in ("app", "request"):
        raise ValueError('must be "app" or "request"')
    return str(value)


def cordon(value: Any) -> str:
    if value not in ("shared", "tenant"):
        raise ValueError('must be "shared" or "tenant"')
    return str(value)


def warmup(value: Any) -> tuple[WarmupRequest, ...]:
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
        return WarmupRequest(url_path(entry))
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
        path = url_path(entry["path"])
    except ValueError as error:
        raise ValueError(f"has a path that {error}") from error
    try:
        body = text(entry.get("body", ""))
    except ValueError as error:
        raise ValueError(f"has a body that {error}") from error
    if len(body.encode()) > _MAX_WARMUP_BYTES:
        raise ValueError(f"has a body larger than {_MAX_WARMUP_BYTES >> 10} KiB")
    return WarmupRequest(path, method, _headers(entry.get("headers", {})), body)


def allow(value: Any) -> tuple[Target, ...]:
    if not isinstance(value, list):
        raise ValueError('must be a list, such as ["api.example.com:443", "*.example.org:443"]')
    if len(value) > MAX_TARGETS:
        raise ValueError(f"must hold at most {MAX_TARGETS} entries, not {len(value):,}")
    found = []
    for number, entry in enumerate(value, 1):
        try:
            found.append(Target.parse(text(entry)))
        except ValueError as error:
            raise ValueError(f"entry {number} {error}") from error
    return tuple(dict.fromkeys(found))


def job_name(value: Any) -> str:
    if not _JOB_NAME.fullmatch(text(value)):
        raise ValueError("must be small letters, digits and '-', 40 characters at most")
    return str(value)


def schedule(value: Any) -> str:
    return check_schedule(text(value))


def job(**values: Any) -> Job:
    """Of checked values."""
    if ("path" in values) == ("command" in values):
        raise ValueError("must have a path or a command: one of the two")
    return Job(**values)


def command(value: Any) -> str:
    said = text(value)
    if len(said) > _MAX_COMMAND_CHARS:
        raise ValueError(f"must be {_MAX_COMMAND_CHARS:,} characters at most")
    try:
        words = shlex.split(said)
    except ValueError as error:
        raise ValueError(f"must be a command: {str(error).lower()}") from error
    if not words:
        raise ValueError('must be a command, such as "python manage.py migrate"')
    return said


def commands(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_COMMANDS:
        raise ValueError(f"must be a list of commands, {_MAX_COMMANDS} at most")
    return tuple(command(one) for one in value)


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    """The values are in no message: one may be a token."""
    if not isinstance(value, dict):
        raise ValueError('must have its headers as a table: headers = {accept = "text/html"}')
    if len(value) > _MAX_WARMUP_HEADERS:
        raise ValueError(f"has more than {_MAX_WARMUP_HEADERS} headers")
    for name, said in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"has a header named {shown(name)}, which no header can be")
        if name.lower() in _OUR_HEADERS:
            raise ValueError(f"has the header {name!r}, which follows from the request")
        if not isinstance(said, str) or not _HEADER_VALUE.fullmatch(said) or len(said) > 8192:
            raise ValueError(f"must have printable ASCII text as the value of header {name!r}")
    return tuple(value.items())


def volume_name(value: Any) -> str:
    try:
        return VolumeName.parse(text(value))
    except NameInvalid as error:
        raise ValueError(f"is wrong: {error.message}") from error


def mount(value: Any) -> str:
    return check_mount(text(value))


def whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low:,} to {high:,}")
        return value

    return check


def number(low: float, high: float) -> Check:
    def check(value: Any) -> float:
        # The comparison is false for nan.
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:,g} to {high:,g}")
        return float(value)

    return check
