"""Secrets of an app: what they may be called, and how much of them there may be.

Their values are known to the caller who sets them, to control, and to the app; everything else
holds them sealed (see `isopod.sealing`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

from isopod.errors import SecretNameInvalid, UsageError
from isopod.model.tenant import TenantName, name_of_label

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
# What the interpreter, the C library and isopod itself read or set in a guest: a secret of such a
# name would change how the app runs, or not be what the app sees.
_SYSTEM_PREFIXES = ("ISOPOD_", "LC_", "LD_", "PYTHON", "WASI_", "WASMTIME_")
_SYSTEM = frozenset(
    {
        *("HOME", "HOSTNAME", "LANG", "LANGUAGE", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL"),
        *("SSL_CERT_DIR", "SSL_CERT_FILE", "TEMP", "TMP", "TMPDIR", "TZ", "TZDIR", "USER"),
    }
)
MOST_OF_APP = 100
MOST_OF_TENANT = 2_000
MOST_BYTES = 64 << 10  # of one app: names and values


class SecretName(str):
    """A name of an environment variable that is the app's to choose."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _NAME.fullmatch(text):
            raise SecretNameInvalid(
                f"{text[:80]!r} is not a name of an environment variable",
                hint="use at most 127 letters, digits and '_', not starting with a digit",
            )
        if text.upper() in _SYSTEM or text.upper().startswith(_SYSTEM_PREFIXES):
            raise SecretNameInvalid(
                f"a secret named {text!r} would shadow a variable of the system",
                hint=f"choose another name, such as 'APP_{text.upper()}'",
            )
        return cls(text)


def check_values(values: Mapping[str, str]) -> None:
    """UsageError that names the secret, and never its value."""
    for name, value in values.items():
        if not value:
            raise UsageError(f"the value of secret {name!r} is empty", hint="`unset` removes it")
        if "\0" in value:
            raise UsageError(f"the value of secret {name!r} holds a NUL")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"the value of secret {name!r} is no text") from None


def bound_to(tenant: TenantName, label: str, name: str) -> str:
    """What a sealed value belongs to: under another name, or as another app's, it does not open.
    `label` is the app's name or its label."""
    return f"{tenant}/{name_of_label(label)}/{name}"
