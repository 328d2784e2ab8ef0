"""Asymmetric keys of `crypto.subtle`: made, read from and written in the formats of the Web.

A guest keeps its own keys, in one form of each: a private key of a curve as PKCS #8, a public one
as its uncompressed point, those of Ed25519 as 32 bytes. Each is hostile when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from isopod.errors import GuestProtocolError

_T = TypeVar("_T")
ED25519 = b"Ed25519"
_CURVES: dict[bytes, ec.EllipticCurve] = {
    b"P-256": ec.SECP256R1(),
    b"P-384": ec.SECP384R1(),
    b"P-521": ec.SECP521R1(),
}
# A key of P-521 has 241. What is larger is none of these: an RSA key's check takes long.
_MAX_ENCODED = 512
_PRIVATE, _PUBLIC = b"private", b"public"


class RefusedError(Exception):
    """An app's operation that does not work; `name` is the DOMException's."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def generate(kind: bytes) -> bytes:
    """u32 length of the private key, it, and the public key."""
    private: ec.EllipticCurvePrivateKey | Ed25519PrivateKey
    if kind == ED25519:
        private = Ed25519PrivateKey.generate()
    else:
        private = ec.generate_private_key(_curve(kind))
    kept = _keep_private(private)
    return len(kept).to_bytes(4, "little") + kept + _keep_public(private.public_key())


def import_key(kind: bytes, form: bytes, data: bytes) -> bytes:
    """\\1 and a private key, or \\0 and a public one. `form`: raw, spki or pkcs8."""
    return _read(lambda: _imported(kind, form, data))


def join(kind: bytes, public: bytes, private: bytes) -> bytes:
    """As `import_key`, of the numbers in a JWK: x and y in one, and d, or nothing."""
    return _read(lambda: _joined(kind, public, private))


def export(kind: bytes, half: bytes, form: bytes, kept: bytes) -> bytes:
    """`form`: raw, spki, pkcs8, or jwk: the numbers in one, d last."""
    if half not in (_PRIVATE, _PUBLIC):
        raise GuestProtocolError("the guest exports half a key that is none")
    if half == _PUBLIC:
        if form == b"raw":
            return kept
        if form == b"jwk":
            return kept if kind == ED25519 else kept[1:]
        public = load_ed_public(kept) if kind == ED25519 else load_ec_public(kind, kept)
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = load_ed_private(kept) if kind == ED25519 else load_ec_private(kind, kept)
    if form == b"pkcs8":
        return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public_numbers = _keep_public(private.public_key())
    if isinstance(private, Ed25519PrivateKey):
        return public_numbers + kept
    size = -(-private.curve.key_size // 8)
    number = private.private_numbers().private_value
    return public_numbers[1:] + number.to_bytes(size, "big")


def load_ec_private(curve: bytes, kept: bytes) -> ec.EllipticCurvePrivateKey:
    def load() -> ec.EllipticCurvePrivateKey:
        key = load_der_private_key(_bounded(kept), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise RefusedError("DataError", "it is a key of another algorithm")
        if key.curve.name != _curve(curve).name:
            raise RefusedError("DataError", "it is a key of another curve")
        return key

    return _read(load)


def load_ec_public(curve: bytes, kept: bytes) -> ec.EllipticCurvePublicKey:
    return _read(
        lambda: ec.EllipticCurvePublicKey.from_encoded_point(_curve(curve), _bounded(kept))
    )


def load_ed_private(kept: bytes) -> Ed25519PrivateKey:
    return _read(lambda: Ed25519PrivateKey.from_private_bytes(kept))


def load_ed_public(kept: bytes) -> Ed25519PublicKey:
    return _read(lambda: Ed25519PublicKey.from_public_bytes(kept))


def _imported(kind: bytes, form: bytes, data: bytes) -> bytes:
    if form == b"raw":
        public = load_ed_public(data) if kind == ED25519 else load_ec_public(kind, data)
        return b"\0" + _keep_public(public)
    if form not in (b"spki", b"pkcs8"):
        raise GuestProtocolError(f"the guest imports a key as {form[:40]!r}")
    encoded = _bounded(data)
    is_private = form == b"pkcs8"
    found = load_der_private_key(encoded, None) if is_private else load_der_public_key(encoded)
    ours: tuple[type, ...] = (Ed25519PrivateKey, Ed25519PublicKey)
    if kind != ED25519:
        ours = (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)
    if not isinstance(found, ours):
        raise RefusedError("DataError", "it is a key of another algorithm")
    if isinstance(found, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and (
        found.curve.name != _curve(kind).name
    ):
        raise RefusedError("DataError", "it is a key of another curve")
    if isinstance(found, ec.EllipticCurvePrivateKey | Ed25519PrivateKey):
        return b"\1" + _keep_private(found)
    if isinstance(found, ec.EllipticCurvePublicKey | Ed25519PublicKey):
        return b"\0" + _keep_public(found)
    raise RefusedError("DataError", "it is a key of another algorithm")


def _joined(kind: bytes, public: bytes, private: bytes) -> bytes:
    if kind == ED25519:
        given = load_ed_public(public)
        if not private:
            return b"\0" + public
        if _keep_public(load_ed_private(private).public_key()) != _keep_public(given):
            raise RefusedError("DataError", "the two halves of the key do not fit")
        return b"\1" + private
    point = load_ec_public(kind, b"\4" + public)
    if not private:
        return b"\0" + _keep_public(point)
    number = int.from_bytes(_bounded(private), "big")
    numbers = ec.EllipticCurvePrivateNumbers(number, point.public_numbers())
    return b"\1" + _keep_private(numbers.private_key())


def _keep_private(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.private_bytes_raw()
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _keep_public(key: ec.EllipticCurvePublicKey | Ed25519PublicKey) -> bytes:
    if isinstance(key, Ed25519PublicKey):
        return key.public_bytes_raw()
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _curve(name: bytes) -> ec.EllipticCurve:
    found = _CURVES.get(name)
    if found is None:
        raise RefusedError(
            "NotSupportedError", f"there is no curve {name[:40].decode('latin-1')!r}"
        )
    return found


def _bounded(data: bytes) -> bytes:
    if len(data) > _MAX_ENCODED:
        raise RefusedError("DataError", f"no key of this kind has {len(data):,} bytes")
    return data


def _read(load: Callable[[], _T]) -> _T:
    """What a key's bytes make of it, or a DataError."""
    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RefusedError("DataError", str(error)[:200] or "it is no key") from error
