"""Sealing: so that the database, its backups and the routes hold no secret that can be read.

AES-256-GCM (NIST SP 800-38D) under one key of the node's, which lies in a file of its own outside
every folder that a worker may read. A sealed text says which key it needs, and opens only as what
it was sealed for.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
from pathlib import Path

from isopod.errors import DataDirUnusable, SecretsUnreadable
from isopod.owned_file import make_owned_once

_KEY = re.compile(r"[0-9a-f]{64}")
_FORM = "s1"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_LOST = "restore the node's secrets.key from a backup, or set the app's secrets again"


def size_of(sealed: str) -> int:
    """Of the value, in bytes; needs no key."""
    text = sealed.rpartition(".")[2]
    return len(text) // 4 * 3 - text.count("=") - _NONCE_BYTES - _TAG_BYTES


class SealingKey:
    """The node's. Kept by control and by the processes that open secrets for workers."""

    def __init__(self, key: bytes) -> None:
        # Here: whoever only asks where the key is does not load OpenSSL.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self.key_id = hashlib.sha256(b"isopod sealing key " + key).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"SealingKey({self.key_id})"

    @staticmethod
    def at(path: Path) -> SealingKey:
        """The key in `path`; made there (0600) when there is none. DataDirUnusable."""
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            return SealingKey._make(path)
        except (OSError, UnicodeDecodeError) as bad:
            raise DataDirUnusable(f"cannot read the key of secrets in {str(path)!r}") from bad
        if not _KEY.fullmatch(text):
            raise DataDirUnusable(
                f"{str(path)!r} holds no key of secrets", hint="restore it from a backup"
            )
        return SealingKey(bytes.fromhex(text))

    @staticmethod
    def _make(path: Path) -> SealingKey:
        try:
            make_owned_once(path, secrets.token_bytes(32).hex().encode() + b"\n")
        except OSError as bad:
            raise DataDirUnusable(
                f"cannot make the key of secrets {str(path)!r}: {bad.strerror}"
            ) from bad
        return SealingKey.at(path)

    def seal(self, value: str, *, bound_to: str) -> str:
        """Another text each time."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, value.encode(), bound_to.encode())
        return f"{_FORM}.{self.key_id}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, *, bound_to: str) -> str:
        """SecretsUnreadable: another key's, another secret's, or damaged."""
        from cryptography.exceptions import InvalidTag

        form, _, rest = sealed.partition(".")
        key_id, _, text = rest.partition(".")
        if form != _FORM or key_id != self.key_id:
            raise SecretsUnreadable(
                f"secret {bound_to!r} was sealed with another key than the node has", hint=_LOST
            )
        try:
            raw = base64.urlsafe_b64decode(text)
            nonce, body = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, body, bound_to.encode()).decode()
        except (InvalidTag, ValueError):
            raise SecretsUnreadable(f"secret {bound_to!r} is damaged", hint=_LOST) from None
