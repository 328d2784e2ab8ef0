"""`_socket` and `select` over the host: clients of TCP and UDP, pairs of sockets within the guest.

A socket is a number, which costs nothing until it connects; each operation on a connection is one
host call, which waits as long as the socket's timeout says. See `isopod.host.connections`.
"""

import contextlib
import errno
import struct
import sys
import types

import isopod_frames

_call = isopod_frames.call
_FIRST = 10_000  # above every descriptor of a file
_CHUNK = 256 * 1024
_LARGEST_DATAGRAM = 65507
_FOR_EVER = 0xFFFFFFFF
_READ, _WRITE = 1, 2
_HOST_NAME = "isopod"

SO_ERROR, SO_KEEPALIVE = 4, 9


def _builtin(name):
    """The interpreter's own module of that name: its constants and conversions."""
    import _imp
    from importlib.machinery import BuiltinImporter, ModuleSpec

    module = _imp.create_builtin(ModuleSpec(name, BuiltinImporter))
    _imp.exec_builtin(module)
    return module


_CONSTANTS = {
    "SO_DEBUG": 1,
    "SO_REUSEADDR": 2,
    "SO_ERROR": SO_ERROR,
    "SO_DONTROUTE": 5,
    "SO_BROADCAST": 6,
    "SO_SNDBUF": 7,
    "SO_RCVBUF": 8,
    "SO_KEEPALIVE": SO_KEEPALIVE,
    "SO_OOBINLINE": 10,
    "SO_LINGER": 13,
    "SO_REUSEPORT": 15,
    "SO_RCVTIMEO": 20,
    "SO_SNDTIMEO": 21,
    "MSG_OOB": 0x1,
    "MSG_DONTWAIT": 0x40,
    "MSG_NOSIGNAL": 0x4000,
    "AF_UNIX": 3,
    "IPPROTO_TCP": 6,
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 4,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 6,
    "TCP_USER_TIMEOUT": 18,
}
_SERVICES = {
    "ftp": 21,
    "ssh": 22,
    "smtp": 25,
    "domain": 53,
    "http": 80,
    "pop3": 110,
    "imap": 143,
    "ldap": 389,
    "https": 443,
    "smtps": 465,
    "submission": 587,
    "ldaps": 636,
    "imaps": 993,
    "pop3s": 995,
    "mysql": 3306,
    "postgresql": 5432,
    "amqp": 5672,
    "redis": 6379,
    "http-alt": 8080,
}
_TEXTS = {
    "EACCES": "Permission denied",
    "EAGAIN": "Resource temporarily unavailable",
    "EALREADY": "Operation already in progress",
    "EBADF": "Bad file descriptor",
    "ECONNABORTED": "Software caused connection abort",
    "ECONNREFUSED": "Connection refused",
    "ECONNRESET": "Connection reset by peer",
    "EHOSTUNREACH": "No route to host",
    "EINPROGRESS": "Operation now in progress",
    "EINVAL": "Invalid argument",
    "EISCONN": "Transport endpoint is already connected",
    "EMFILE": "Too many open files",
    "EMSGSIZE": "Message too long",
    "ENETUNREACH": "Network is unreachable",
    "ENOTCONN": "Transport endpoint is not connected",
    "EPIPE": "Broken pipe",
    "ETIMEDOUT": "Connection timed out",
}

_real = _builtin("_socket")
gaierror = _real.gaierror
herror = _real.herror
_default_timeout = None
_next = _FIRST
_pairs = {}  # number -> _Pair, of sockets that are within the guest
readable_now = set()  # numbers whose data was taken from the host already (TLS)


def _new_number():
    global _next
    _next += 1
    return _next


def failure(name, text=""):
    """The exception for what the host answered."""
    if name == "TIMEOUT":
        return TimeoutError("timed out")
    if name.startswith("EAI_"):
        return gaierror(getattr(_real, name, _real.EAI_FAIL), text or "Name or service not known")
    number = getattr(errno, name, errno.EIO)
    return OSError(number, text or _TEXTS.get(name, name))  # OSError chooses its subclass


def ask(operation, number, wait=0, rest=b""):
    answer = _call(b"N" + struct.pack("<cII", operation, number, wait) + rest)
    if answer[0]:
        name, _, text = answer[1:].decode("utf-8", "replace").partition("\n")
        raise failure(name, text)
    return answer[1:]


def milliseconds(timeout):
    if timeout is None:
        return _FOR_EVER
    return max(0, min(int(timeout * 1000 + 0.999), _FOR_EVER - 1))


def _where(host, port):
    return port.to_bytes(4, "little") + host.encode("utf-8", "replace")


def _not_here(what, instead):
    return OSError(errno.EACCES, f"isopod: {what}: {instead}")


class _Pair:
    """One end of a pair. What is sent to the other waits in its buffer."""

    def __init__(self):
        self.data = bytearray()
        self.other = None
        self.ended = False  # nothing more will come


class socket:
    """What `_socket.socket` is, for clients."""

    __slots__ = ("_family", "_kind", "_number", "_peer", "_protocol", "_timeout")

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        self._number = -1
        self._peer = None  # of datagrams: whom they go to
        self._family = _real.AF_INET if family == -1 else int(family)
        kind = _real.SOCK_STREAM if type == -1 else int(type)
        self._kind = kind & ~(_real.SOCK_NONBLOCK | _real.SOCK_CLOEXEC)
        self._protocol = 0 if proto == -1 else int(proto)
        self._timeout = 0.0 if kind & _real.SOCK_NONBLOCK else _default_timeout
        if fileno is not None:
            if not isinstance(fileno, int):
                raise TypeError("an integer is required")
            if fileno < 0:
                raise ValueError("negative file descriptor")
            self._number = fileno
            return
        if self._family not in (_real.AF_INET, _real.AF_INET6):
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        self._number = _new_number()

    family = property(lambda self: self._family)
    type = property(lambda self: self._kind)
    proto = property(lambda self: self._protocol)
    timeout = property(lambda self: self._timeout)

    def __repr__(self):
        return f"<socket object, fd={self._number}, family={self._family}, type={self._kind}>"

    # -- its number and its timeout ---------------------------------------------------------

    def fileno(self):
        return self._number

    def detach(self):
        number, self._number = self._number, -1
        return number

    def close(self):
        number, self._number = self._number, -1
        if number >= 0:
            close(number)

    def __del__(self):
        with contextlib.suppress(Exception):
            self.close()

    def settimeout(self, value):
        if value is not None:
            value = float(value)
            if value < 0:
                raise ValueError("Timeout value out of range")
        self._timeout = value

    def gettimeout(self):
        return self._timeout

    def setblocking(self, flag):
        self._timeout = None if flag else 0.0

    def getblocking(self):
        return self._timeout != 0

    def _open(self):
        if self._number < 0:
            raise failure("EBADF")
        return self._number

    def _wait(self, flags=0):
        if flags & _CONSTANTS["MSG_DONTWAIT"]:
            return 0
        return milliseconds(self._timeout)

    # -- connecting -------------------------------------------------------------------------

    def connect(self, address):
        sys.audit("socket.connect", self, address)
        number = self._open()
        if self._kind not in (_real.SOCK_STREAM, _real.SOCK_DGRAM):
            raise _not_here("there are no such sockets", "only TCP and UDP")
        if not isinstance(address, tuple) or len(address) < 2:
            raise TypeError(f"connect(): address must be a (host, port) tuple, not {address!r}")
        host, port = address[0], address[1]
        if isinstance(host, (bytes, bytearray)):
            host = bytes(host).decode("idna")
        if not isinstance(host, str) or not isinstance(port, int):
            raise TypeError("connect(): a host is text, and a port is a number")
        if not 0 <= port <= 65535:
            raise OverflowError("connect(): port must be 0-65535.")
        if self._kind == _real.SOCK_DGRAM:
            self._send_to(host, port)
            return
        ask(b"c", number, milliseconds(self._timeout), _where(host, port))

    def _send_to(self, host, port):
        """Datagrams go to one peer at a time, whom the last `connect` or `sendto` named."""
        peer = getaddrinfo(host, port, self._family, _real.SOCK_DGRAM)[0][4]
        if peer == self._peer:
            return
        number = self._open()
        if self._peer is not None:
            ask(b"x", number)
            self._peer = None
        try:
            ask(b"u", number, milliseconds(self._timeout), _where(peer[0], port))
        except BlockingIOError:  # it is being made: what is sent until then is to be sent again
            self._peer = peer
            raise
        self._peer = peer

    def connect_ex(self, address):
        try:
            self.connect(address)
        except gaierror:
            raise
        except OSError as error:
            return error.errno or errno.EAGAIN
        return 0

    def shutdown(self, how):
        number = self._open()
        if number in _pairs:
            pair = _pairs[number]
            if how != _real.SHUT_RD and pair.other is not None:
                pair.other.ended = True
            return
        ask(b"h", number, 0, {_real.SHUT_RD: b"r", _real.SHUT_WR: b"w"}.get(how, b"b"))

    # -- data -------------------------------------------------------------------------------

    def send(self, data, flags=0):
        number = self._open()
        data = memoryview(data).cast("B")
        if number in _pairs:
            return _send_to_pair(_pairs[number], data)
        if self._peer is not None and len(data) > _LARGEST_DATAGRAM:
            raise failure("EMSGSIZE")
        if self._peer is not None and not data:
            return 0  # an empty one would end the relay
        return int.from_bytes(ask(b"s", number, self._wait(flags), bytes(data[:_CHUNK])), "little")

    def sendall(self, data, flags=0):
        data = memoryview(data).cast("B")
        deadline = None
        if self._timeout:
            import time

            deadline = time.monotonic() + self._timeout
        number, wait = self._open(), self._wait(flags)
        if number in _pairs:
            _send_to_pair(_pairs[number], data)
            return
        while True:
            sent = ask(b"s", number, wait, bytes(data[:_CHUNK]))
            data = data[int.from_bytes(sent, "little") :]
            if not data:
                return
            if deadline is not None:
                wait = milliseconds(deadline - time.monotonic())
                if wait == 0:
                    raise TimeoutError("timed out")

    def sendto(self, data, *where):
        if self._kind == _real.SOCK_DGRAM:
            self._send_to(where[-1][0], where[-1][1])
            try:
                return self.send(data)
            except OSError as error:
                if error.errno != errno.ENOTCONN or self._timeout != 0:
                    raise
                raise failure("EAGAIN") from None
        return self.send(data, where[0] if len(where) > 1 else 0)

    def sendmsg(self, buffers, *rest):
        return self.send(b"".join(bytes(one) for one in buffers))

    def recv(self, size, flags=0):
        if size < 0:
            raise ValueError("negative buffersize in recv")
        number = self._open()
        peek = flags & _real.MSG_PEEK
        if number in _pairs:
            return _receive_from_pair(_pairs[number], size, peek, self._timeout)
        if not flags & _real.MSG_WAITALL:
            return self._receive(number, size, flags)
        whole = b""
        while len(whole) < size:
            piece = self._receive(number, size - len(whole), flags)
            whole += piece
            if not piece:
                break
        return whole

    def _receive(self, number, size, flags):
        rest = min(size, _CHUNK).to_bytes(4, "little")
        return ask(
            b"r", number, self._wait(flags), rest + (b"p" if flags & _real.MSG_PEEK else b"-")
        )

    def _receive_datagram(self, size, flags):
        data = self.recv(size, flags)
        if not data and size:
            self._peer = None
            raise failure("ECONNREFUSED")  # the relay has ended: nobody listens there
        return data

    def recv_into(self, buffer, nbytes=0, flags=0):
        view = memoryview(buffer).cast("B")
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def recvfrom(self, size, flags=0):
        if self._peer is not None:
            return self._receive_datagram(size, flags), self._peer
        return self.recv(size, flags), None

    def recvfrom_into(self, buffer, nbytes=0, flags=0):
        peer = self._peer
        return self.recv_into(buffer, nbytes, flags), peer

    def recvmsg(self, size, *rest):
        return self.recv(size), [], 0, None

    # -- what is said of it -----------------------------------------------------------------

    def _names(self):
        lines = ask(b"n", self._open()).decode().split("\n")
        more = () if self._family == _real.AF_INET else (0, 0)
        return (lines[0], int(lines[1]), *more), (lines[2], int(lines[3]), *more)

    def getsockname(self):
        number = self._open()
        if number in _pairs:
            return ""
        if self._kind == _real.SOCK_DGRAM:
            return ("0.0.0.0", 0) if self._family == _real.AF_INET else ("::", 0, 0, 0)
        try:
            return self._names()[0]
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            return ("0.0.0.0", 0) if self._family == _real.AF_INET else ("::", 0, 0, 0)

    def getpeername(self):
        if self._open() in _pairs:
            return ""
        if self._kind == _real.SOCK_DGRAM:
            if self._peer is None:
                raise failure("ENOTCONN")
            return self._peer
        return self._names()[1]

    def setsockopt(self, level, option, value=None, length=None):
        number = self._open()
        if level == _real.SOL_SOCKET and option == SO_KEEPALIVE and number not in _pairs:
            with contextlib.suppress(OSError):  # it is not connected yet
                ask(b"k", number, 0, b"1" if value else b"0")
        # What else is set concerns how packets are sent, which the host does well by itself.

    def getsockopt(self, level, option, length=0):
        number = self._open()
        value = 0
        if level == _real.SOL_SOCKET:
            if option == _real.SO_TYPE:
                value = self._kind
            elif option == SO_ERROR and number not in _pairs:
                name = ask(b"e", number).decode().partition("\n")[0]
                value = getattr(errno, name, errno.EIO) if name else 0
                if name.startswith("EAI_"):
                    value = errno.EHOSTUNREACH
        elif level == _CONSTANTS["IPPROTO_TCP"] and option == _CONSTANTS["TCP_NODELAY"]:
            value = 1
        return struct.pack("<i", value)[:length] if length else value

    # -- what there is not ------------------------------------------------------------------

    def bind(self, address):
        sys.audit("socket.bind", self, address)
        if isinstance(address, tuple) and len(address) > 1 and address[1] == 0:
            return  # the source of a connection to come
        raise _not_here(
            f"cannot listen on {address!r}",
            "requests reach an app through its entrypoint, not through a socket of its own",
        )

    def listen(self, backlog=0):
        raise _not_here(
            "an app has no listening sockets",
            "requests reach it through its entrypoint; for a pair of sockets use socketpair()",
        )

    def _accept(self):
        self.listen()


# -- pairs within the guest -----------------------------------------------------------------


def socketpair(family=None, type=None, proto=0):
    one, other = socket(), socket()
    ends = _Pair(), _Pair()
    ends[0].other, ends[1].other = ends[1], ends[0]
    _pairs[one._number], _pairs[other._number] = ends
    return one, other


def _send_to_pair(pair, data):
    if pair.other is None or pair.other.ended:
        raise failure("EPIPE")
    pair.other.data += data
    return len(data)


def _receive_from_pair(pair, size, peek, timeout):
    if not pair.data and not pair.ended:
        if timeout == 0:
            raise failure("EAGAIN")
        if timeout is None:
            raise OSError(
                errno.EDEADLK,
                "isopod: nothing will come from a pair of sockets while its only thread waits",
            )
        import time

        time.sleep(timeout)
        raise TimeoutError("timed out")
    data = bytes(pair.data[:size])
    if not peek:
        del pair.data[:size]
    return data


# -- functions ------------------------------------------------------------------------------


def close(number):
    readable_now.discard(number)
    pair = _pairs.pop(number, None)
    if pair is not None:
        if pair.other is not None:
            pair.other.ended = True
            pair.other.other = None
    elif number >= _FIRST:
        ask(b"x", number)
    else:
        raise failure("EBADF")


def dup(number):
    raise OSError(errno.ENOTSUP, "isopod: a socket cannot be duplicated")


def getdefaulttimeout():
    return _default_timeout


def setdefaulttimeout(value):
    global _default_timeout
    _default_timeout = None if value is None else float(value)


def _port(port):
    if port is None:
        return 0
    if isinstance(port, (bytes, bytearray)):
        port = bytes(port).decode()
    if isinstance(port, str):
        if port.isascii() and port.isdigit():
            port = int(port)
        elif port in _SERVICES:
            port = _SERVICES[port]
        else:
            raise gaierror(_real.EAI_SERVICE, "Servname not supported for ai_socktype")
    return port & 0xFFFF


def _family_of(host):
    """Of an address in its usual form, else 0."""
    for family in (_real.AF_INET, _real.AF_INET6):
        try:
            _real.inet_pton(family, host)
            return family
        except OSError:
            pass
    return 0


def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    sys.audit("socket.getaddrinfo", host, port, family, type, proto)
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii")
    number = _port(port)
    if host is None or host == "":
        if host is None and port is None:
            raise gaierror(_real.EAI_NONAME, "Name or service not known")
        passive = flags & _real.AI_PASSIVE
        found = ["0.0.0.0", "::"] if passive else ["127.0.0.1", "::1"]
    elif _family_of(host):
        found = [host]
    elif host == _HOST_NAME:
        found = ["127.0.0.1"]
    elif flags & _real.AI_NUMERICHOST:
        raise gaierror(_real.EAI_NONAME, "Name or service not known")
    else:
        found = ask(b"d", 0, _FOR_EVER, _where(host, number)).decode().split("\n")
    kinds = [type] if type else [_real.SOCK_STREAM]
    answers = []
    for address in found:
        its = _family_of(address)
        if family and its != family:
            continue
        where = (address, number) if its == _real.AF_INET else (address, number, 0, 0)
        for kind in kinds:
            protocol = proto or (6 if kind == _real.SOCK_STREAM else 17)
            name = host if flags & _real.AI_CANONNAME and not answers else ""
            answers.append((its, kind, protocol, name or "", where))
    if not answers:
        raise gaierror(_real.EAI_NONAME, "Name or service not known")
    return answers


def gethostbyname(host):
    sys.audit("socket.gethostbyname", host)
    return getaddrinfo(host, 0, _real.AF_INET)[0][4][0]


def gethostbyname_ex(host):
    sys.audit("socket.gethostbyname", host)
    return host, [], [one[4][0] for one in getaddrinfo(host, 0, _real.AF_INET)]


def gethostbyaddr(host):
    raise herror(1, "Unknown host")


def getnameinfo(address, flags):
    return address[0], str(address[1])


def getservbyname(name, protocol="tcp"):
    try:
        return _SERVICES[name]
    except KeyError:
        raise OSError("service/proto not found") from None


def getservbyport(port, protocol="tcp"):
    for name, number in _SERVICES.items():
        if number == port:
            return name
    raise OSError("port/proto not found")


def getprotobyname(name):
    found = {"icmp": 1, "tcp": 6, "udp": 17}.get(name)
    if found is None:
        raise OSError("protocol not found")
    return found


def gethostname():
    return _HOST_NAME


# -- select ---------------------------------------------------------------------------------


def _number_of(thing):
    number = thing if isinstance(thing, int) else thing.fileno()
    if number < 0:
        raise ValueError("file descriptor cannot be a negative integer (-1)")
    return number


def ready(wanted, timeout):
    """number -> what of its mask is ready, within `timeout` seconds (None: for ever)."""
    found, outside = {}, []
    for number, mask in wanted.items():
        pair = _pairs.get(number)
        if pair is not None:
            now = mask & (_READ if pair.data or pair.ended else 0)
            now |= mask & _WRITE
        elif number < _FIRST:
            now = mask  # a file
        else:
            now = mask & _READ if number in readable_now else 0
            outside.append((number, mask))
        if now:
            found[number] = now
    if outside:
        rest = b"".join(struct.pack("<IB", *one) for one in outside)
        answer = ask(b"p", 0, 0 if found else milliseconds(timeout), rest)
        for number, mask in struct.iter_unpack("<IB", answer):
            found[number] = found.get(number, 0) | mask
    elif not found and timeout != 0:
        if timeout is None:
            raise OSError(errno.EDEADLK, "isopod: nothing that is waited for can happen")
        import time

        time.sleep(timeout)
    return found


def select(rlist, wlist, xlist, timeout=None):
    if timeout is not None and timeout < 0:
        raise ValueError("timeout must be non-negative")
    wanted = {}
    for things, mask in ((rlist, _READ), (wlist, _WRITE)):
        for thing in things:
            number = _number_of(thing)
            wanted[number] = wanted.get(number, 0) | mask
    found = ready(wanted, timeout)
    return (
        [thing for thing in rlist if found.get(_number_of(thing), 0) & _READ],
        [thing for thing in wlist if found.get(_number_of(thing), 0) & _WRITE],
        [],
    )


def make_poll(real):
    reads = real.POLLIN | real.POLLRDNORM | real.POLLPRI
    writes = real.POLLOUT | real.POLLWRNORM

    class poll:
        def __init__(self):
            self._wanted = {}

        def register(self, fd, eventmask=reads | writes):
            self._wanted[_number_of(fd)] = eventmask

        def modify(self, fd, eventmask):
            number = _number_of(fd)
            if number not in self._wanted:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            self._wanted[number] = eventmask

        def unregister(self, fd):
            del self._wanted[_number_of(fd)]

        def poll(self, timeout=None):
            wanted = {
                number: (_READ if mask & reads else 0) | (_WRITE if mask & writes else 0)
                for number, mask in self._wanted.items()
            }
            seconds = None if timeout is None or timeout < 0 else timeout / 1000
            found = ready({n: m for n, m in wanted.items() if m}, seconds)
            return [
                (
                    number,
                    self._wanted[number]
                    & ((real.POLLIN if mask & _READ else 0) | (writes if mask & _WRITE else 0)),
                )
                for number, mask in found.items()
            ]

    return poll


# -- the modules ----------------------------------------------------------------------------

_OURS = (
    "socket socketpair close dup getdefaulttimeout setdefaulttimeout getaddrinfo gethostbyname "
    "gethostbyname_ex gethostbyaddr getnameinfo getservbyname getservbyport getprotobyname "
    "gethostname gaierror herror"
)


def make_socket_module():
    module = types.ModuleType("_socket")
    for name in dir(_real):
        if name.isupper() or name in (
            *("inet_aton", "inet_ntoa", "inet_pton", "inet_ntop"),
            *("htons", "htonl", "ntohs", "ntohl"),
        ):
            setattr(module, name, getattr(_real, name))
    for name, value in _CONSTANTS.items():
        if not hasattr(module, name):
            setattr(module, name, value)
    for name in _OURS.split():
        setattr(module, name, globals()[name])
    module.SocketType = socket
    module.error, module.timeout = OSError, TimeoutError
    module.has_ipv6 = True
    return module


def make_select_module():
    real = _builtin("select")
    module = types.ModuleType("select")
    for name in dir(real):
        if name.isupper():
            setattr(module, name, getattr(real, name))
    module.error, module.select, module.poll = OSError, select, make_poll(real)
    return module
