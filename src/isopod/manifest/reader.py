"""Reads isopod.toml. What it does not know it refuses, with the file, the key and the line: a
misspelt limit that is ignored would be found out too late."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from isopod import toml_text
from isopod.errors import ManifestInvalid
from isopod.manifest.checks import served_folder, served_path, text
from isopod.manifest.content import Manifest
from isopod.manifest.sections import MAX_STATIC_PATHS, SECTIONS, TABLES
from isopod.toml_text import TomlInvalid, shown

FILE_NAME = "isopod.toml"
_MAX_FILE_BYTES = 256 << 10
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text

    def manifest(self, body: Mapping[str, Any]) -> Manifest:
        values: dict[str, Any] = {}
        for section, content in body.items():
            if section in TABLES:
                values[section] = self._entries(section, content)
                continue
            if section != "env" and section not in SECTIONS:
                self._fail("", section, "is not known", [*SECTIONS, *TABLES, "env"])
            if not isinstance(content, dict):
                self._fail("", section, f"must be a section: [{section}]")
            if section == "env":
                values["env"] = self._env(content)
                continue
            if section == "static":
                values["static_paths"] = self._static_paths(content)
            keys = SECTIONS[section]
            for key, value in content.items():
                if section == "static" and key.startswith("/"):
                    continue
                if key not in keys:
                    also = ['"/path"'] if section == "static" else []
                    self._fail(section, key, "is not known", [*keys, *also])
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
        if values.get("volumes") and values.get("max_instances", 1) != 1:
            key = "max_instances"
            section = "scaling" if key in body.get("scaling", {}) else "limits"
            self._fail(section, key, "must be 1 or left out: a volume has one writer")
        return Manifest(**values)

    def _entries(self, section: str, content: Any) -> tuple[Any, ...]:
        table = TABLES[section]
        if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
            self._fail("", section, f"must be one section or more: [[{section}]]")
        if len(content) > table.most:
            self._fail("", section, f"may be there {table.most} times, not {len(content):,}")
        entries: list[Any] = []
        for number, one in enumerate(content):
            entry = self._entry(section, number, one)
            if any(before.name == entry.name for before in entries):
                self._fail(section, "name", "is there twice", value=entry.name, entry=number)
            entries.append(entry)
        try:
            table.together(entries)
        except ValueError as error:
            self._fail("", section, str(error), entry=len(entries) - 1)
        return tuple(entries)

    def _entry(self, section: str, number: int, content: Mapping[str, Any]) -> Any:
        table = TABLES[section]
        values: dict[str, Any] = {}
        for key, value in content.items():
            if key not in table.keys:
                self._fail(section, key, "is not known", list(table.keys), entry=number)
            try:
                values[key] = table.keys[key](value)
            except ValueError as error:
                self._fail(section, key, str(error), value=value, entry=number)
        for key in table.required:
            if key not in values:
                self._fail("", section, f"lacks its {key}", entry=number)
        try:
            return table.make(**values)
        except ValueError as error:
            self._fail("", section, str(error), entry=number)

    def _static_paths(self, content: Mapping[str, Any]) -> dict[str, str]:
        """Those keys of [static] that are paths, where files are served beside an app."""
        found: dict[str, str] = {}
        paths = [key for key in content if key.startswith("/")]
        if len(paths) > MAX_STATIC_PATHS:
            why = f"may hold {MAX_STATIC_PATHS} paths, not {len(paths):,}"
            self._fail("", "static", why)
        for key in paths:
            try:
                path = served_path(key)
            except ValueError as error:
                self._fail("static", key, str(error))
            try:
                folder = served_folder(content[key])
            except ValueError as error:
                self._fail("static", key, str(error), value=content[key])
            if path in found:
                self._fail("static", key, "is there twice")
            found[path] = folder
        for key in ("root", "spa"):
            if paths and key in content:
                why = f"is of a static site, and {paths[0]!r} is beside an app: keep one of the two"
                self._fail("static", key, why)
        return found

    def _other(self, section: str, name: str) -> str:
        """The section beside `section` that sets the same field."""
        return next(
            other
            for other, keys in SECTIONS.items()
            if other != section and any(name == set_by for set_by, _ in keys.values())
        )

    def _env(self, content: Mapping[str, Any]) -> dict[str, str]:
        for key, value in content.items():
            if not _ENV_KEY.fullmatch(key):
                self._fail("env", key, "must be letters, digits and '_', no digit first")
            try:
                text(value)
            except ValueError as error:
                # The value is not shown: it may be a secret.
                self._fail("env", key, str(error))
        return dict(content)

    def _fail(
        self,
        section: str,
        key: str,
        why: str,
        known: list[str] | None = None,
        value: Any = None,
        entry: int = 0,
    ) -> NoReturn:
        line = toml_text.line_of(self._text, section, key, entry)
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
