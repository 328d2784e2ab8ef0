"""`crypto.subtle` of an app: the host's OpenSSL, in pieces that the guest waits for.

Each piece is a host call that is answered at once, so a guest pays for it as for its own CPU, and
others have their turn between two pieces. An operation has one state, whatever the length of its
data. What only a broken guest sends is a GuestProtocolError; what an app may ask and does not get
is an answer with the name of a DOMException.

A call: u8 of flags (1 begins an operation, 2 is its last piece); if it begins, u8 count of fields
and each as u32 length and bytes, the operation's name first; then data. An answer: \\0 and what
came out, or \\1, a DOMException's name, a line break and a text.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from isopod.errors import GuestProtocolError
from isopod.runtimes.javascript import keys
from isopod.runtimes.javascript.keys import RefusedError

_BEGINS, _LAST = 1, 2
_MAX_FIELDS = 8
_MAX_ED25519 = 1 << 20  # its message is read twice, so it is kept
_TAGS = frozenset({4, 8, 12, 13, 14, 15, 16})  # bytes; Web Cryptography, AES-GCM
_HASHES: dict[bytes, tuple[str, hashes.HashAlgorithm]] = {
    b"SHA-1": ("sha1", hashes.SHA1()),  # noqa: S303  Web Cryptography has it
    b"SHA-256": ("sha256", hashes.SHA256()),
    b"SHA-384": ("sha384", hashes.SHA384()),
    b"SHA-512": ("sha512", hashes.SHA512()),
}
_TRUE, _FALSE = b"\1", b"\0"


class _Work(Protocol):
    """An operation under way."""

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class Subtle:
    """One guest's."""

    def __init__(self) -> None:
        self._work: _Work | None = None

    def call(self, frame: bytes) -> bytes:
        """Raises GuestProtocolError."""
        try:
            return b"\0" + self._call(frame)
        except RefusedError as error:
            self._work = None
            return f"\1{error.name}\n{error}".encode()
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, InvalidTag) as error:
            self._work = None
            return f"\1OperationError\n{error or 'it does not authenticate'}"[:400].encode()

    def _call(self, frame: bytes) -> bytes:
        flags, data = frame[:1], frame[1:]
        if not flags:
            raise GuestProtocolError("the guest sent an empty operation of crypto.subtle")
        if flags[0] & _BEGINS:
            (name, *fields), data = _fields(data)
            begin = _OPERATIONS.get(name)
            if begin is None or begin[0] != len(fields):
                raise GuestProtocolError(f"the guest sent the operation {name[:40]!r}")
            self._work = begin[1](*fields)
        work = self._work
        if work is None:
            raise GuestProtocolError("the guest goes on with an operation that is none")
        out = work.feed(data)
        if flags[0] & _LAST:
            self._work = None
            out += work.end()
        return out


def _fields(data: bytes) -> tuple[list[bytes], bytes]:
    count, at = data[0] if data else 0, 1
    if not 1 <= count <= _MAX_FIELDS:
        raise GuestProtocolError("the guest sent an operation without a name")
    found = []
    for _ in range(count):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            raise GuestProtocolError("the guest sent half an operation")
        found.append(data[at + 4 : end])
        at = end
    return found, data[at:]


def _hash(name: bytes) -> tuple[str, hashes.HashAlgorithm]:
    found = _HASHES.get(name)
    if found is None:
        raise RefusedError("NotSupportedError", f"there is no hash {name[:40].decode('latin-1')!r}")
    return found


class _Digest:
    def __init__(self, name: bytes) -> None:
        self.feeds = hashlib.new(_hash(name)[0], usedforsecurity=False)

    def feed(self, data: bytes) -> bytes:
        self.feeds.update(data)
        return b""

    def end(self) -> bytes:
        return self.feeds.digest()


class _Hmac:
    def __init__(self, name: bytes, key: bytes, expected: bytes | None = None) -> None:
        self._feeds = hmac.new(key, digestmod=_hash(name)[0])
        self._expected = expected

    def feed(self, data: bytes) -> bytes:
        self._feeds.update(data)
        return b""

    def end(self) -> bytes:
        made = self._feeds.digest()
        if self._expected is None:
            return made
        return _TRUE if hmac.compare_digest(made, self._expected) else _FALSE


class _GcmEncrypt:
    def __init__(self, key: bytes, iv: bytes, also: bytes, tag_bytes: bytes) -> None:
        self._tag_bytes = int.from_bytes(tag_bytes, "little")
        _check_tag(self._tag_bytes)
        self._cipher = Cipher(algorithms.AES(key), modes.GCM(iv)).encryptor()
        self._cipher.authenticate_additional_data(also)

    def feed(self, data: bytes) -> bytes:
        return self._cipher.update(data)

    def end(self) -> bytes:
        return self._cipher.finalize() + self._cipher.tag[: self._tag_bytes]


class _GcmDecrypt:
    """Plaintext comes out before it is authenticated; the guest gives none of it to its app until
    the end was no error."""

    def __init__(self, key: bytes, iv: bytes, also: bytes, tag: bytes) -> None:
        _check_tag(len(tag))
        mode = modes.GCM(iv, tag, min_tag_length=len(tag))
        self._cipher = Cipher(algorithms.AES(key), mode).decryptor()
        self._cipher.authenticate_additional_data(also)

    def feed(self, data: bytes) -> bytes:
        return self._cipher.update(data)

    def end(self) -> bytes:
        return self._cipher.finalize()


class _CbcEncrypt:
    def __init__(self, key: bytes, iv: bytes) -> None:
        self._pad = PKCS7(128).padder()
        self._cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()

    def feed(self, data: bytes) -> bytes:
        return self._cipher.update(self._pad.update(data))

    def end(self) -> bytes:
        return self._cipher.update(self._pad.finalize()) + self._cipher.finalize()


class _CbcDecrypt:
    def __init__(self, key: bytes, iv: bytes) -> None:
        self._pad = PKCS7(128).unpadder()
        self._cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()

    def feed(self, data: bytes) -> bytes:
        return self._pad.update(self._cipher.update(data))

    def end(self) -> bytes:
        return self._pad.update(self._cipher.finalize()) + self._pad.finalize()


class _EcdsaSign(_Digest):
    def __init__(self, curve: bytes, name: bytes, key: bytes) -> None:
        super().__init__(name)
        self._how = ec.ECDSA(utils.Prehashed(_hash(name)[1]))
        self._key = keys.load_ec_private(curve, key)

    def end(self) -> bytes:
        size = -(-self._key.curve.key_size // 8)
        pair = utils.decode_dss_signature(self._key.sign(self.feeds.digest(), self._how))
        return b"".join(number.to_bytes(size, "big") for number in pair)


class _EcdsaVerify(_Digest):
    def __init__(self, curve: bytes, name: bytes, key: bytes, signature: bytes) -> None:
        super().__init__(name)
        self._how = ec.ECDSA(utils.Prehashed(_hash(name)[1]))
        self._key = keys.load_ec_public(curve, key)
        self._signature = signature

    def end(self) -> bytes:
        size = -(-self._key.curve.key_size // 8)
        if len(self._signature) != 2 * size:
            return _FALSE
        pair = (self._signature[:size], self._signature[size:])
        numbers = (int.from_bytes(half, "big") for half in pair)
        encoded = utils.encode_dss_signature(*numbers)
        try:
            self._key.verify(encoded, self.feeds.digest(), self._how)
        except InvalidSignature:
            return _FALSE
        return _TRUE


class _Ed25519:
    """Signs with a private key, or verifies with a public one."""

    def __init__(self, key: bytes, signature: bytes | None = None) -> None:
        self._key = key
        self._signature = signature
        self._data = bytearray()

    def feed(self, data: bytes) -> bytes:
        if len(self._data) + len(data) > _MAX_ED25519:
            raise ValueError(f"Ed25519 takes messages of at most {_MAX_ED25519:,} bytes here")
        self._data += data
        return b""

    def end(self) -> bytes:
        message = bytes(self._data)
        if self._signature is None:
            return keys.load_ed_private(self._key).sign(message)
        try:
            keys.load_ed_public(self._key).verify(self._signature, message)
        except InvalidSignature:
            return _FALSE
        return _TRUE


class _Key:
    """What is done with a key alone: it has no data."""

    def __init__(self, made: bytes) -> None:
        self._made = made

    def feed(self, data: bytes) -> bytes:
        if data:
            raise GuestProtocolError("the guest sent data to a key")
        return b""

    def end(self) -> bytes:
        return self._made


def _check_tag(size: int) -> None:
    if size not in _TAGS:
        raise RefusedError("OperationError", f"AES-GCM has no tag of {8 * size} bits")


def _on_key(act: Callable[..., bytes]) -> Callable[..., _Work]:
    return lambda *fields: _Key(act(*fields))


# By name: how many fields follow it, and what begins it.
_OPERATIONS: dict[bytes, tuple[int, Callable[..., _Work]]] = {
    b"digest": (1, _Digest),
    b"hmac-sign": (2, _Hmac),
    b"hmac-verify": (3, _Hmac),
    b"gcm-encrypt": (4, _GcmEncrypt),
    b"gcm-decrypt": (4, _GcmDecrypt),
    b"cbc-encrypt": (2, _CbcEncrypt),
    b"cbc-decrypt": (2, _CbcDecrypt),
    b"ecdsa-sign": (3, _EcdsaSign),
    b"ecdsa-verify": (4, _EcdsaVerify),
    b"ed25519-sign": (1, _Ed25519),
    b"ed25519-verify": (2, _Ed25519),
    b"key-generate": (1, _on_key(keys.generate)),
    b"key-import": (3, _on_key(keys.import_key)),
    b"key-join": (3, _on_key(keys.join)),
    b"key-export": (4, _on_key(keys.export)),
}
