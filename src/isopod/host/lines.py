"""One connection of a guest's, plain or through TLS, as its descriptor sees it: nothing waits, and
nothing is read before the guest wants it, so what a peer sends waits in the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import ssl
from contextlib import suppress

MAX_PIECE = 256 << 10
READ, WRITE = 1, 2
_RECORD = 16 << 10  # of TLS


class Line:
    """TCP as it is. What its methods raise is OSError; BlockingIOError: not now."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self.sent_bytes = 0

    def receive(self, most: int, *, peek: bool) -> bytes:
        return self.socket.recv(min(most, MAX_PIECE), socket.MSG_PEEK if peek else 0)

    def send(self, data: bytes) -> int:
        sent = self.socket.send(data[:MAX_PIECE])
        self.sent_bytes += sent
        return sent

    def shut(self, how: int) -> None:
        self.socket.shutdown(how)

    def waits_for(self, mask: int) -> int:
        """What has to happen to the socket before `mask` may."""
        return mask

    def ready(self, mask: int) -> bool:
        return bool(self._polled(mask))

    def _polled(self, mask: int) -> int:
        poll = select.poll()
        reads = select.POLLIN if mask & READ else 0
        poll.register(self.socket, reads | (select.POLLOUT if mask & WRITE else 0))
        return sum(event for _, event in poll.poll(0))

    def close(self) -> None:
        self.socket.close()


class TlsLine(Line):
    """The host's OpenSSL between the guest and its peer. A record that did not go out whole goes
    before anything else."""

    def __init__(self, made: socket.socket, context: ssl.SSLContext, host: str) -> None:
        super().__init__(made)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._plain = b""  # came, and the guest has not taken it
        self._unsent = b""
        self._ended = False

    async def handshake(self) -> None:
        """Raises OSError; ssl.SSLError is one."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            else:
                return
            finally:
                if out := self._outgoing.read():
                    self.sent_bytes += len(out)
                    await loop.sock_sendall(self.socket, out)
            if not (came := await loop.sock_recv(self.socket, _RECORD)):
                raise OSError(errno.ECONNRESET, "")
            self._incoming.write(came)

    def receive(self, most: int, *, peek: bool) -> bytes:
        self._pull()
        if not self._plain and not self._ended:
            raise BlockingIOError
        data = self._plain[:most]
        if not peek:
            self._plain = self._plain[most:]
        return data

    def send(self, data: bytes) -> int:
        self._flush()
        if self._unsent:
            raise BlockingIOError
        taken = self._tls.write(data[:_RECORD])
        self._unsent = self._outgoing.read()
        self._flush()
        return taken

    def shut(self, how: int) -> None:  # noqa: ARG002
        """A half-closed connection is nothing that TLS has."""
        raise OSError(errno.EOPNOTSUPP, "")

    def waits_for(self, mask: int) -> int:
        return mask | (WRITE if self._unsent else 0)

    def ready(self, mask: int) -> bool:
        try:
            self._flush()
            if mask & READ:
                self._pull()
        except OSError:
            return True  # and the call says why
        if mask & READ and (self._plain or self._ended):
            return True
        return bool(mask & WRITE and not self._unsent and self._polled(WRITE))

    def close(self) -> None:
        with suppress(OSError):
            self._flush()
            self._tls.unwrap()  # says that it is over, and waits for nothing
        with suppress(OSError):
            self._unsent += self._outgoing.read()
            self._flush()
        super().close()

    def _pull(self) -> None:
        """Some of what came, if the guest has taken what came before."""
        while not self._plain and not self._ended:
            try:
                self._plain = self._tls.read(_RECORD)
                self._ended = not self._plain
            except ssl.SSLZeroReturnError:
                self._ended = True
            except ssl.SSLWantReadError:
                self._unsent += self._outgoing.read()  # an answer to an update of keys
                self._flush()
                try:
                    came = self.socket.recv(_RECORD)
                except BlockingIOError:
                    return
                if came:
                    self._incoming.write(came)
                else:
                    self._incoming.write_eof()

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self.socket.send(self._unsent)
            except BlockingIOError:
                return
            self.sent_bytes += sent
            self._unsent = self._unsent[sent:]
