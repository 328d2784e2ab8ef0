"""`_ssl` over the host's OpenSSL: what comes out of a session goes to the socket, and back.

The host does the cryptography and no I/O; the socket's own stand-in does that, with its timeouts.
See `isopod.host.tls`.
"""

import base64
import contextlib
import json
import os
import struct
import types
import weakref

import isopod_socket
from isopod_frames import call
from isopod_ssl_names import HAS, NUMBERS

_HEAD = struct.Struct("<cIIBI")
_ANSWER = struct.Struct("<BBI")
_PIECE = 128 * 1024
_DONE, _RAISED, _UNKNOWN = 0, 1, 2
_CERT_NONE, _CERT_REQUIRED = 0, 2
_CLIENT, _SERVER = 16, 17
_next = 0


class SSLError(OSError):
    library = reason = None

    def __str__(self):
        return str(self.strerror or self.args)


class SSLZeroReturnError(SSLError):
    pass


class SSLWantReadError(SSLError):
    pass


class SSLWantWriteError(SSLError):
    pass


class SSLSyscallError(SSLError):
    pass


class SSLEOFError(SSLError):
    pass


class SSLCertVerificationError(SSLError, ValueError):
    verify_code = 0
    verify_message = ""


_ERRORS = (
    SSLError,
    SSLZeroReturnError,
    SSLWantReadError,
    SSLWantWriteError,
    SSLSyscallError,
    SSLEOFError,
    SSLCertVerificationError,
)
_BY_NAME = {kind.__name__: kind for kind in _ERRORS}
for _kind in _ERRORS:
    _kind.__module__ = "ssl"


def _raise(description):
    told = json.loads(description)
    if told["kind"] == "ValueError":
        raise ValueError(told["text"])
    kind = _BY_NAME.get(told["kind"], SSLError)
    error = kind(told["number"], told["text"])
    error.library, error.reason = told["library"], told["reason"]
    if kind is SSLCertVerificationError:
        error.verify_code, error.verify_message = told["verify_code"], told["verify_message"]
    raise error


def _ask(operation, number=0, argument=0, came=b"", rest=b"", ended=False):
    """(status, whether there is more to read, for the socket, the rest)"""
    answer = call(b"T" + _HEAD.pack(operation, number, argument, ended, len(came)) + came + rest)
    status, more, size = _ANSWER.unpack_from(answer)
    return status, more, answer[6 : 6 + size], answer[6 + size :]


class MemoryBIO:
    def __init__(self):
        self._data = bytearray()
        self._ended = False

    pending = property(lambda self: len(self._data))
    eof = property(lambda self: self._ended and not self._data)

    def read(self, size=-1):
        size = len(self._data) if size is None or size < 0 else size
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    def write(self, data):
        if self._ended:
            raise SSLError("cannot write() after write_eof()")
        self._data += data
        return len(data)

    def write_eof(self):
        self._ended = True


class SSLSession:
    pass


class _Session:
    """What `_ssl._SSLSocket` is: TLS on a socket, or between two buffers."""

    session = None
    session_reused = False

    def __init__(self, context, name, *, connection=None, incoming=None, outgoing=None, owner=None):
        self.context = context
        self.server_hostname = name
        self.owner = owner
        self._number = 0
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        self._unsent = b""  # of what is for the socket
        self._written = None  # how much of a write is in `_unsent`
        self._ended = False  # the socket
        self._more = 0  # whether the host holds something that came
        self._about = {}
        self._certificate = b""

    def __del__(self):
        if self._number:
            with contextlib.suppress(Exception):
                _ask(b"X", self._number)

    # -- moving what is encrypted -----------------------------------------------------------

    def _begin(self):
        global _next
        _next += 1
        name = self.server_hostname
        for _ in range(2):
            wanted = {"context": self.context._known(), "server_hostname": name}
            status, _, _, rest = _ask(b"N", _next, rest=json.dumps(wanted).encode())
            if status == _RAISED:
                _raise(rest)
            if status == _DONE:
                self._number = _next
                return
            self.context._forget()  # of the image that this instance was restored from
        raise SSLError(NUMBERS["SSL_ERROR_SSL"], "the TLS context was lost")

    def _flush(self):
        """Raises SSLWantWriteError, and what sending raises."""
        while self._unsent:
            try:
                sent = self._connection.send(self._unsent)
            except BlockingIOError:
                raise SSLWantWriteError(
                    NUMBERS["SSL_ERROR_WANT_WRITE"], "The operation did not complete (write)"
                ) from None
            self._unsent = self._unsent[sent:]

    def _fill(self):
        """More from the socket. Raises SSLWantReadError, and what receiving raises."""
        try:
            came = self._connection.recv(_PIECE)
        except BlockingIOError:
            raise SSLWantReadError(
                NUMBERS["SSL_ERROR_WANT_READ"], "The operation did not complete (read)"
            ) from None
        self._ended = not came
        return came

    def _run(self, operation, argument=0, rest=b"", came=b""):
        """`came`: of the socket already."""
        if not self._number:
            self._begin()
        if self._connection is None:
            return self._run_between(operation, argument, rest)
        while True:
            status, more, out, given = _ask(
                operation, self._number, argument, came, rest, self._ended
            )
            self._note(more)
            self._unsent += out
            if status == _DONE:
                return given
            self._flush()
            try:
                _raise(given)
            except SSLWantReadError:
                if self._ended:
                    raise SSLEOFError(
                        NUMBERS["SSL_ERROR_EOF"], "EOF occurred in violation of protocol"
                    ) from None
                came = self._fill()
            except SSLWantWriteError:
                came = b""

    def _run_between(self, operation, argument, rest):
        """Between two buffers. The host is given more only when it needs that: it keeps no more
        than it can be made to use."""
        came = b"" if self._more else self._incoming.read(4 * _PIECE)
        while True:
            status, self._more, out, given = _ask(
                operation, self._number, argument, came, rest, self._incoming.eof
            )
            self._outgoing.write(out)
            if status == _DONE:
                return given
            try:
                _raise(given)
            except SSLWantReadError:
                if not self._incoming.pending:
                    raise
                came = self._incoming.read(4 * _PIECE)

    def _note(self, more):
        number = self._connection.fileno()
        (isopod_socket.readable_now.add if more else isopod_socket.readable_now.discard)(number)

    # -- what `ssl` calls -------------------------------------------------------------------

    def do_handshake(self):
        if self._connection is not None:
            self._flush()
        if not self._about:
            given = self._run(b"H")
            size = int.from_bytes(given[:4], "little")
            self._about = json.loads(given[4 : 4 + size])
            self._certificate = given[4 + size :]
        if self._connection is not None:
            self._flush()

    def read(self, size=1024, buffer=None):
        if self._connection is not None and self._unsent:
            self._flush()
        if buffer is not None:
            size = min(size, len(buffer)) if size and size > 0 else len(buffer)
        came = b""
        if self._connection is not None and self._about and not (self._ended or self.pending()):
            came = self._fill()  # the host holds nothing, and would only say that it wants more
        data = self._run(b"R", size, came=came)
        if self._connection is not None and self._unsent:
            with contextlib.suppress(SSLWantWriteError):
                self._flush()  # an answer to the peer's update of keys
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def write(self, data):
        data = memoryview(data).cast("B")
        if self._connection is None:
            return self._write_all(data)
        if self._written is None:
            self._flush()
            piece = bytes(data[:_PIECE])
            self._written = int.from_bytes(self._run(b"W", rest=piece), "little")
        # As OpenSSL's: who is told to try again does so with the same data.
        self._flush()
        written, self._written = self._written, None
        return written

    def _write_all(self, data):
        total = 0
        while True:
            given = self._run(b"W", rest=bytes(data[total : total + _PIECE]))
            total += int.from_bytes(given, "little")
            if total >= len(data):
                return total

    def pending(self):
        if self._connection is None:
            return 0
        return int(self._connection.fileno() in isopod_socket.readable_now)

    def shutdown(self):
        if self._connection is not None:
            self._flush()
        try:
            if self._number:
                self._run(b"U")
        finally:
            if self._connection is not None and self._unsent:
                self._flush()
        return self._connection

    def getpeercert(self, binary_form=False):
        if not self._about:
            raise ValueError("handshake not done yet")
        if binary_form:
            return self._certificate or None
        found = self._about["certificate"]
        if found is None:
            return None
        return {k: _tuples(v) if isinstance(v, list) else v for k, v in found.items()}

    def get_verified_chain(self):
        return []

    def get_unverified_chain(self):
        return []

    def selected_alpn_protocol(self):
        return self._about.get("alpn")

    def version(self):
        return self._about.get("version")

    def cipher(self):
        return tuple(self._about.get("cipher") or ()) or None

    def shared_ciphers(self):
        return None

    def compression(self):
        return None

    def group(self):
        return None

    def get_channel_binding(self, kind="tls-unique"):
        given = self._run(b"B", rest=kind.encode())
        return given or None

    def verify_client_post_handshake(self):
        raise SSLError(NUMBERS["SSL_ERROR_SSL"], "isopod: TLS here is for clients")


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _number_property(key):
    def get(self):
        return self._described[key]

    def put(self, value):
        self._described[key] = int(value)
        self._forget()

    return property(get, put)


class _SSLContext:
    """Describes a context; the host makes it, once for all that say the same."""

    sni_callback = None
    _msg_callback = None
    keylog_filename = None
    post_handshake_auth = False
    _host_flags = 4
    num_tickets = 2
    security_level = 2

    def __new__(cls, protocol=_CLIENT):
        self = object.__new__(cls)
        self._protocol = int(protocol)
        client = self._protocol == _CLIENT
        self._described = {
            "verify_mode": _CERT_REQUIRED if client else _CERT_NONE,
            "check_hostname": client,
            "options": NUMBERS["OP_ALL"] | NUMBERS["OP_NO_COMPRESSION"],
            "verify_flags": NUMBERS["VERIFY_X509_TRUSTED_FIRST"],
            "minimum": NUMBERS["PROTO_TLSv1_2"],
            "maximum": NUMBERS["PROTO_MAXIMUM_SUPPORTED"],
            "ciphers": "",
            "alpn": [],
            "system": False,
            "bundle": False,
            "authorities": "",
            "certificate": "",
            "password": "",
        }
        self._digest = ""
        return self

    options = _number_property("options")
    verify_flags = _number_property("verify_flags")
    minimum_version = _number_property("minimum")
    maximum_version = _number_property("maximum")
    protocol = property(lambda self: self._protocol)

    def _known(self):
        """What the host knows it by."""
        if not self._digest:
            body = json.dumps(self._described, sort_keys=True).encode()
            status, _, _, rest = _ask(b"C", rest=body)
            if status == _RAISED:
                _raise(rest)
            self._digest = rest.decode()
        return self._digest

    def _forget(self):
        self._digest = ""

    def _set(self, **values):
        self._described.update(values)
        self._forget()

    @property
    def verify_mode(self):
        return self._described["verify_mode"]

    @verify_mode.setter
    def verify_mode(self, value):
        if value not in (0, 1, 2):
            raise ValueError("invalid value for verify_mode")
        if value == _CERT_NONE and self._described["check_hostname"]:
            raise ValueError("Cannot set verify_mode to CERT_NONE when check_hostname is enabled.")
        self._set(verify_mode=int(value))

    @property
    def check_hostname(self):
        return self._described["check_hostname"]

    @check_hostname.setter
    def check_hostname(self, value):
        if value and self._described["verify_mode"] == _CERT_NONE:
            self._set(verify_mode=_CERT_REQUIRED)
        self._set(check_hostname=bool(value))

    def _set_alpn_protocols(self, data):
        names, data = [], bytes(data)
        while data:
            names.append(data[1 : 1 + data[0]].decode("ascii"))
            data = data[1 + data[0] :]
        self._set(alpn=names)

    def set_ciphers(self, ciphers):
        self._set(ciphers=ciphers)

    def set_ciphersuites(self, ciphersuites):
        pass

    def get_ciphers(self):
        return []

    def set_ecdh_curve(self, name):
        pass

    set_groups = set_client_sigalgs = set_server_sigalgs = set_ecdh_curve

    def set_default_verify_paths(self):
        self._set(system=True)

    def load_verify_locations(self, cafile=None, capath=None, cadata=None):
        if cafile is None and capath is None and cadata is None:
            raise TypeError("cafile, capath and cadata cannot be all omitted")
        texts = []
        if cafile is not None:
            texts.append(_read(cafile))
            # Public authorities as a dependency ships them (certifi, and who carries a copy of it):
            # it means "whom everybody trusts", and cannot know whom this node trusts beside them.
            # A file of the app's own means these and no others.
            path = os.path.abspath(os.fsdecode(cafile))
            if path.startswith("/site/") and path.endswith("/cacert.pem"):
                self._set(bundle=True)
        if capath is not None:
            for name in sorted(os.listdir(capath)):
                texts.append(_read(os.path.join(os.fsdecode(capath), name)))
        if isinstance(cadata, str):
            if not cadata.isascii():
                raise TypeError("cadata should be an ASCII string or a bytes-like object")
            texts.append(cadata)
        elif cadata is not None:
            texts += map(_pem, _der_certificates(bytes(cadata)))
        text = "\n".join(texts)
        if "-----BEGIN" not in text:
            error = SSLError(NUMBERS["SSL_ERROR_SSL"], "no certificate or crl found")
            error.library, error.reason = "X509", "NO_CERTIFICATE_OR_CRL_FOUND"
            raise error
        self._set(authorities=f"{self._described['authorities']}\n{text}")

    def load_cert_chain(self, certfile, keyfile=None, password=None):
        text = _read(certfile)
        if keyfile is not None:
            text = f"{text}\n{_read(keyfile)}"
        if callable(password):
            password = password()
        if isinstance(password, (bytes, bytearray)):
            password = bytes(password).decode()
        self._set(certificate=text, password=password or "")
        self._known()  # a wrong one is told here

    def load_dh_params(self, path):
        pass

    def cert_store_stats(self):
        count = len(self.get_ca_certs(True)) + 100 * self._described["system"]
        return {"x509": count, "crl": 0, "x509_ca": count}

    def get_ca_certs(self, binary_form=False):
        if not binary_form:
            return []
        return [_der(one) for one in _pem_certificates(self._described["authorities"])]

    def session_stats(self):
        return {}

    def _wrap_socket(self, sock, server_side, server_hostname=None, *, owner=None, session=None):
        self._check(server_side)
        return _Session(
            self,
            _name(server_hostname),
            connection=_Loan(owner if owner is not None else sock),
            owner=owner,
        )

    def _wrap_bio(
        self, incoming, outgoing, server_side, server_hostname=None, *, owner=None, session=None
    ):
        self._check(server_side)
        return _Session(
            self, _name(server_hostname), incoming=incoming, outgoing=outgoing, owner=owner
        )

    def _check(self, server_side):
        if server_side or self._protocol == _SERVER:
            raise SSLError(
                NUMBERS["SSL_ERROR_SSL"],
                "isopod: TLS here is for clients; visitors' TLS is the node's",
            )


class _Loan:
    """The connection below an `ssl.SSLSocket`, which owns its number and its timeout."""

    def __init__(self, sock):
        self._number = sock.fileno()
        self._socket = weakref.ref(sock)  # it owns the session

    def fileno(self):
        return self._number

    def _wait(self):
        sock = self._socket()
        return isopod_socket.milliseconds(None if sock is None else sock.gettimeout())

    def send(self, data):
        piece = bytes(data[:_PIECE])
        return int.from_bytes(isopod_socket.ask(b"s", self._number, self._wait(), piece), "little")

    def recv(self, size):
        rest = size.to_bytes(4, "little") + b"-"
        return isopod_socket.ask(b"r", self._number, self._wait(), rest)


def _name(text):
    if isinstance(text, (bytes, bytearray)):
        return bytes(text).decode("idna")
    return text


def _read(path):
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


def _pem_certificates(text):
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return [part.partition(end)[0] for part in text.split(begin)[1:]]


def _der(body):
    return base64.b64decode("".join(body.split()))


def _pem(data):
    text = base64.encodebytes(data).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def _der_certificates(data):
    """Each of those that follow each other; an ASN.1 sequence says how long it is."""
    while data[:1] == b"\x30" and len(data) > 4:
        size, head = data[1], 2
        if size & 0x80:
            head = 2 + (size & 0x7F)
            size = int.from_bytes(data[2:head], "big")
        yield data[: head + size]
        data = data[head + size :]
    if data:
        raise SSLError(
            NUMBERS["SSL_ERROR_SSL"], "not enough data: cadata does not contain a certificate"
        )


_OBJECTS = {
    "1.3.6.1.5.5.7.3.1": (129, "serverAuth", "TLS Web Server Authentication"),
    "1.3.6.1.5.5.7.3.2": (130, "clientAuth", "TLS Web Client Authentication"),
}


def txt2obj(text, name=False):
    for oid, (number, short, long) in _OBJECTS.items():
        if text == oid or (name and text in (short, long)):
            return number, short, long, oid
    raise ValueError(f"unknown object {text[:100]!r}")


def nid2obj(number):
    for oid, (known, short, long) in _OBJECTS.items():
        if known == number:
            return number, short, long, oid
    raise ValueError(f"unknown NID {number}")


def make_module():
    module = types.ModuleType("_ssl")
    for name, value in {**NUMBERS, **HAS}.items():
        setattr(module, name, value)
    for kind in _ERRORS:
        setattr(module, kind.__name__, kind)
    module.OPENSSL_VERSION = "OpenSSL 3.0.0 (of the host, by isopod)"
    module.OPENSSL_VERSION_INFO = module._OPENSSL_API_VERSION = (3, 0, 0, 0, 0)
    module.OPENSSL_VERSION_NUMBER = 0x30000000
    module._DEFAULT_CIPHERS = ""
    module._SSLContext, module.MemoryBIO, module.SSLSession = _SSLContext, MemoryBIO, SSLSession
    module._SSLSocket = _Session
    module.txt2obj, module.nid2obj = txt2obj, nid2obj
    module.RAND_status, module.RAND_add = lambda: True, lambda data, entropy: None
    module.RAND_bytes = os.urandom
    module.get_sigalgs = module.get_groups = lambda *a, **k: []
    module.get_default_verify_paths = lambda: ("SSL_CERT_FILE", "", "SSL_CERT_DIR", "")
    return module
