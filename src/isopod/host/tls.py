"""TLS for a guest: the host's OpenSSL between two buffers, without any I/O of its own.

The guest moves what comes out to its socket and what came from there in. So keys and plain text of
a tenant are in its worker only, never with the process that connects. See `guest/_ssl.py`.

A frame is the operation, u32 the session's number, u32 an argument, u8 whether the peer has closed,
u32 length of what came from the socket, that, and the rest. The answer is a status (0 done, 1 an
exception, 2 a context that is not known), u8 whether more can be read without the socket, u32
length of what is for the socket, that, and the rest.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isopod.errors import GuestProtocolError

_HEAD = struct.Struct("<cIIBI")
_ANSWER = struct.Struct("<BBI")
_MAX_SESSIONS = 96  # of one instance
_MAX_CACHED = 128  # of one worker
_MAX_DESCRIPTION = 1 << 20  # a bundle of authorities has 300 KB
_MAX_DESCRIPTIONS = 2 << 20  # of one instance: what is parsed of them takes several times as much
_MAX_INCOMING = 1 << 20  # that a session did not take yet
_MAX_PIECE = 256 << 10
_DONE, _RAISED, _UNKNOWN = 0, 1, 2
# What an app may change of a context's options: the versions, and an unexpected end.
_OPTIONS = (
    ssl.OP_NO_TLSv1_2
    | ssl.OP_NO_TLSv1_3
    | ssl.OP_NO_TICKET
    | getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    | getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)
)
# Who describes none: verified, by what the node trusts.
_DEFAULT = {
    "verify_mode": int(ssl.CERT_REQUIRED),
    "check_hostname": True,
    "options": 0,
    "verify_flags": 0x8000,  # trusted first
    "minimum": int(ssl.TLSVersion.TLSv1_2),
    "maximum": int(ssl.TLSVersion.MAXIMUM_SUPPORTED),
    "ciphers": "",
    "alpn": [],
    "system": True,
    "authorities": "",
    "certificate": "",
    "password": "",
}
_VERSIONS = {int(version): version for version in ssl.TLSVersion}


def system_trust() -> str:
    """The certificates that this machine trusts, as PEM: read before a worker is shut in."""
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    if not files and paths.capath:
        files = sorted(Path(paths.capath).glob("*.[0-9]"))
    texts = []
    for file in files:
        with suppress(OSError, UnicodeDecodeError):
            texts.append(file.read_text())
    return "\n".join(texts)


def extra_trust(path: Path) -> str:
    """The certificates of a PEM file that the node's operator adds (Path() for none). Raises
    ValueError saying what is wrong with it."""
    if not path.name:
        return ""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as bad:
        raise ValueError(f"cannot be read: {getattr(bad, 'strerror', None) or 'no text'}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError("holds no certificates in PEM") from None
    return text


class TlsContexts:
    """A worker's. Making one parses a hundred certificates (10 ms): they are kept by what they
    are made of, which says all that is in them."""

    def __init__(self, *, trust: str, extra: str, key_folder: Path) -> None:
        """`trust`: PEM. `extra`: PEM of the operator's authorities, trusted where the system's are,
        or a bundle of public ones. `key_folder`: where a client's key lies while it is read:
        OpenSSL's interface in Python takes files only."""
        self._trust, self._extra = trust, extra
        self._key_folder = key_folder
        self._made: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def get(self, digest: str, described: Mapping[str, Any]) -> ssl.SSLContext:
        """Raises ssl.SSLError, ValueError and whatever a wrong description leads to."""
        context = self._made.get(digest)
        if context is None:
            context = self._made[digest] = self._make(described)
            if len(self._made) > _MAX_CACHED:
                self._made.popitem(last=False)
        self._made.move_to_end(digest)
        return context

    def default(self) -> ssl.SSLContext:
        """For guests that leave TLS to the host."""
        return self.get("default", _DEFAULT)

    def _make(self, described: Mapping[str, Any]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.VerifyMode(int(described["verify_mode"]))
        context.check_hostname = bool(described["check_hostname"])
        context.options |= int(described["options"]) & _OPTIONS
        context.verify_flags = ssl.VerifyFlags(int(described["verify_flags"]) & 0x88034)
        lowest = _VERSIONS.get(int(described["minimum"]), ssl.TLSVersion.TLSv1_2)
        if lowest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.minimum_version = lowest
        highest = _VERSIONS.get(int(described["maximum"]))
        if highest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.maximum_version = highest
        if ciphers := str(described["ciphers"]):
            context.set_ciphers(ciphers)
        if protocols := [str(one) for one in described["alpn"]]:
            context.set_alpn_protocols(protocols)
        if described["system"] and self._trust:
            context.load_verify_locations(cadata=self._trust)
        if (described["system"] or described.get("bundle")) and self._extra:
            context.load_verify_locations(cadata=self._extra)
        if authorities := str(described["authorities"]):
            context.load_verify_locations(cadata=authorities)
        if certificate := str(described["certificate"]):
            self._load_certificate(context, certificate, str(described["password"]))
        return context

    def _load_certificate(self, context: ssl.SSLContext, pem: str, password: str) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self._key_folder, suffix=".pem") as file:
            file.write(pem)
            file.flush()
            # Never None: OpenSSL would ask for it on the terminal.
            context.load_cert_chain(file.name, password=password)


@dataclass(slots=True)
class _Session:
    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


class TlsSessions:
    """One instance's."""

    def __init__(self, contexts: TlsContexts) -> None:
        self._contexts = contexts
        self._known: dict[str, ssl.SSLContext] = {}
        self._described_bytes = 0
        self._sessions: dict[int, _Session] = {}
        self._operations: dict[bytes, Callable[[_Session, int, bytes], bytes]] = {
            b"H": _handshake,
            b"R": _read,
            b"W": _write,
            b"U": _unwrap,
            b"B": _binding,
        }

    def close(self) -> None:
        self._sessions.clear()
        self._known.clear()

    def call(self, frame: bytes) -> bytes:
        """`frame` without its first byte. Raises GuestProtocolError."""
        try:
            operation, number, argument, ended, size = _HEAD.unpack_from(frame)
        except struct.error:
            raise GuestProtocolError("the guest sent a TLS call that is none") from None
        rest = frame[_HEAD.size :]
        try:
            if operation == b"C":
                return self._describe(rest)
            if operation == b"N":
                return self._begin(number, rest)
            if operation == b"X":
                self._sessions.pop(number, None)
                return _answer()
            run = self._operations.get(operation)
            if run is None:
                raise GuestProtocolError(f"the guest sent the TLS operation {operation!r}")
            session = self._sessions.get(number)
            if session is None:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the TLS session is not open")
        except (ssl.SSLError, ValueError, OSError) as error:
            return _raised(error)
        except (LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
            raise GuestProtocolError("the guest sent a TLS call that is none") from error
        return _step(session, run, argument, rest[:size], rest[size:], ended=bool(ended))

    def _describe(self, rest: bytes) -> bytes:
        if len(rest) > _MAX_DESCRIPTION:
            raise GuestProtocolError("the guest described too large a TLS context")
        digest = hashlib.sha256(rest).hexdigest()
        if digest not in self._known:
            if self._described_bytes + len(rest) > _MAX_DESCRIPTIONS:
                raise ssl.SSLError(
                    ssl.SSL_ERROR_SSL,
                    "isopod: an instance's TLS contexts may hold 2 MiB of certificates in all",
                )
            self._described_bytes += len(rest)
            self._known[digest] = self._contexts.get(digest, json.loads(rest))
        return _answer(rest=digest.encode())

    def _begin(self, number: int, rest: bytes) -> bytes:
        wanted = json.loads(rest)
        context = self._known.get(str(wanted["context"]))
        if context is None:
            return _answer(_UNKNOWN)
        if len(self._sessions) >= _MAX_SESSIONS:
            raise ssl.SSLError(
                ssl.SSL_ERROR_SSL, f"isopod: an instance may have {_MAX_SESSIONS} TLS sessions open"
            )
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = wanted["server_hostname"]
        tls = context.wrap_bio(
            incoming, outgoing, server_hostname=None if name is None else str(name)
        )
        self._sessions[number] = _Session(tls, incoming, outgoing)
        return _answer()


def _step(
    session: _Session,
    run: Callable[[_Session, int, bytes], bytes],
    argument: int,
    came: bytes,
    rest: bytes,
    *,
    ended: bool,
) -> bytes:
    try:
        if came:
            if session.incoming.pending > _MAX_INCOMING:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "isopod: nobody reads what comes")
            session.incoming.write(came)
        if ended:
            session.incoming.write_eof()
        given, status = run(session, argument, rest), _DONE
    except (ssl.SSLError, ValueError, OSError) as error:
        given, status = _description(error), _RAISED
    more = session.incoming.pending or session.tls.pending()
    return _answer(status, session.outgoing.read(), given, more=bool(more))


def _handshake(session: _Session, _argument: int, _rest: bytes) -> bytes:
    tls = session.tls
    tls.do_handshake()
    certificate = tls.getpeercert(binary_form=True) or b""
    about = {
        "version": tls.version(),
        "cipher": tls.cipher(),
        "alpn": tls.selected_alpn_protocol(),
        "certificate": tls.getpeercert() if certificate else None,
    }
    text = json.dumps(about).encode()
    return struct.pack("<I", len(text)) + text + certificate


def _read(session: _Session, size: int, _rest: bytes) -> bytes:
    try:
        return session.tls.read(min(size, _MAX_PIECE))
    except ssl.SSLZeroReturnError:
        return b""


def _write(session: _Session, _argument: int, rest: bytes) -> bytes:
    return struct.pack("<I", session.tls.write(rest[:_MAX_PIECE]) if rest else 0)


def _unwrap(session: _Session, _argument: int, _rest: bytes) -> bytes:
    session.tls.unwrap()
    return b""


def _binding(session: _Session, _argument: int, rest: bytes) -> bytes:
    return session.tls.get_channel_binding(rest[:40].decode("latin-1")) or b""


def _answer(
    status: int = _DONE, outgoing: bytes = b"", rest: bytes = b"", *, more: bool = False
) -> bytes:
    return _ANSWER.pack(status, more, len(outgoing)) + outgoing + rest


def _raised(error: Exception) -> bytes:
    return _answer(_RAISED, rest=_description(error))


def _description(error: Exception) -> bytes:
    """What the guest's exception is made of. Our own mistakes look like those of OpenSSL."""
    kind = type(error).__name__ if isinstance(error, ssl.SSLError | ValueError) else "SSLError"
    return json.dumps(
        {
            "kind": kind,
            "number": getattr(error, "errno", None) or ssl.SSL_ERROR_SSL,
            "text": getattr(error, "strerror", None) or str(error),
            "library": getattr(error, "library", None),
            "reason": getattr(error, "reason", None),
            "verify_code": getattr(error, "verify_code", None),
            "verify_message": getattr(error, "verify_message", None),
        }
    ).encode()
