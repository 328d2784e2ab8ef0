"""Names and digests as types: parsed once at the edge, trusted inside."""

from __future__ import annotations

import re
from typing import Self

from isopod.errors import NameInvalid, UsageError

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Host names that a node may want for itself; and "xn", since "xn--TENANT" would be taken for a name
# in another script (RFC 5890).
RESERVED_NAMES = frozenset({"api", "console", "control", "isopod", "localhost", "www", "xn"})


class AppName(str):
    """A DNS label (RFC 1123, lower case, at most 63 characters) that is not reserved."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _LABEL.fullmatch(text):
            shown = text if len(text) <= 80 else text[:77] + "..."
            why = "is longer than 63 characters" if len(text) > 63 else "is not a DNS label"
            raise NameInvalid(f"app name {shown!r} {why}")
        if "--" in text:
            raise NameInvalid(
                f"app name {text!r} holds '--'", hint="'--' is kept for NAME--TENANT host names"
            )
        if text in RESERVED_NAMES:
            raise NameInvalid(f"app name {text!r} is reserved", hint="choose another name")
        return cls(text)

    @classmethod
    def of_folder(cls, folder_name: str) -> Self:
        """An app name that reads like the folder's."""
        text = re.sub(r"[^a-z0-9]+", "-", folder_name.lower()).strip("-")[:63].strip("-")
        return cls.parse(f"{text}-app" if text in RESERVED_NAMES else text or "app")


class Digest(str):
    """sha256 in 64 lower-case hexadecimal digits."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _DIGEST.fullmatch(text):
            raise UsageError(f"{text[:80]!r} is not a sha256 digest")
        return cls(text)

    @property
    def short(self) -> str:
        """12 digits, for people."""
        return self[:12]
