"""The table of a site: every file with what its answers say. Written by the builder, read by
workers; no file is hashed, and no folder listed, to answer a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isopod.runtimes.static.header_rules import HeaderRule
from isopod.runtimes.static.redirects import Rule

INDEX = "index.json"
FILES = "files"  # the folder of the files as they are; those of encodings are named by them
FORMAT = 1
ENCODINGS = ("br", "zstd", "gzip")


@dataclass(frozen=True, slots=True)
class Form:
    """One representation of a file. `etag` is of its own bytes, quotes included."""

    encoding: str  # "" for the file as it is
    size: int
    etag: str

    @property
    def folder(self) -> str:
        return self.encoding or FILES


@dataclass(frozen=True, slots=True)
class SiteFile:
    path: str
    type: str
    immutable: bool
    forms: tuple[Form, ...]  # as it is, then the encodings, ours first

    @property
    def plain(self) -> Form:
        return self.forms[0]

    @property
    def encodings(self) -> tuple[str, ...]:
        return tuple(form.encoding for form in self.forms[1:])

    def form(self, encoding: str) -> Form:
        return next(form for form in self.forms if form.encoding == encoding)


@dataclass(frozen=True, slots=True)
class Index:
    files: Mapping[str, SiteFile]  # by path, without a leading slash
    built_at: int  # seconds since the epoch: what Last-Modified says
    spa: bool = False
    redirects: tuple[Rule, ...] = ()
    headers: tuple[HeaderRule, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "built_at": self.built_at,
            "spa": self.spa,
            "redirects": [rule.to_json() for rule in self.redirects],
            "headers": [rule.to_json() for rule in self.headers],
            "files": {
                path: [
                    one.type,
                    one.immutable,
                    [[form.encoding, form.size, form.etag] for form in one.forms],
                ]
                for path, one in sorted(self.files.items())
            },
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Index:
        """Raises ValueError, KeyError, TypeError or IndexError for what is no index, also for one
        that names files outside of its own folder: a builder wrote it, after a guest had run."""
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r} is not {FORMAT}")
        return Index(
            files={
                _inside(path): SiteFile(path, kind, immutable, tuple(_form(*one) for one in forms))
                for path, (kind, immutable, forms) in body["files"].items()
            },
            built_at=int(body["built_at"]),
            spa=bool(body["spa"]),
            redirects=tuple(Rule.from_json(rule) for rule in body["redirects"]),
            headers=tuple(HeaderRule.from_json(rule) for rule in body["headers"]),
        )


def _form(encoding: str, size: int, etag: str) -> Form:
    if encoding and encoding not in ENCODINGS:
        raise ValueError(f"encoding {encoding!r} is not known")
    return Form(encoding, size, etag)


def _inside(path: str) -> str:
    if path.startswith("/") or {".", ".."} & set(path.split("/")):
        raise ValueError(f"path {path!r} leads out of the site")
    return path
