"""The node's key for usage statements: Ed25519 (RFC 8032), as hexadecimal digits in one line.

Made by the control process at first use. Workers never see it: it signs what tenants owe.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from isopod.errors import DataDirUnusable, UsageError
from isopod.owned_file import make_owned_once

ALGORITHM = "Ed25519"
_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


class SigningKey:
    """The node's private key. Its file is for the owner alone; workers never see it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_key = private.public_key().public_bytes_raw().hex()
        self.key_id = key_id(self.public_key)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"

    @staticmethod
    def at(path: Path) -> SigningKey:
        """The key in `path`; made there (0600) when there is none. DataDirUnusable."""
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            return SigningKey._make(path)
        except (OSError, UnicodeDecodeError) as bad:
            raise DataDirUnusable(f"cannot read the signing key in {str(path)!r}") from bad
        if not _KEY.fullmatch(text):
            raise DataDirUnusable(
                f"{str(path)!r} holds no signing key",
                hint="restore it from a backup; without it the node signs with a new key",
            )
        return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text)))

    @staticmethod
    def _make(path: Path) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        make_owned_once(path, private.private_bytes_raw().hex().encode() + b"\n")
        return SigningKey.at(path)

    def sign(self, data: bytes) -> str:
        """128 hexadecimal digits."""
        return self._private.sign(data).hex()


def key_id(public_key: str) -> str:
    """16 hexadecimal digits of the key's sha256."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:16]


def parse_key(text: str) -> str:
    """A public key as `isopod usage key` prints it. UsageError."""
    found = text.strip()
    if not _KEY.fullmatch(found):
        raise UsageError(
            f"{found[:40]!r} is not a public key",
            hint="it is 64 hexadecimal digits in lower case: `isopod usage key` prints it",
        )
    return found


def signed_by(public_key: str, data: bytes, signature: object) -> bool:
    """Whether `signature` is that key's of `data`. Capitals are refused: a signature has one form,
    so that no byte of a statement can be changed unseen."""
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):  # ValueError: no point of the curve
        return False
    return True
