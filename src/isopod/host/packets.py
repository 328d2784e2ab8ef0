"""JSON messages with open files beside them, between two processes of a node.

One message is one packet, so nothing has to be put together and a damaged one damages no other.
What is in a message is chosen by the process at the other end: each user checks it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from typing import Any

_MAX_PACKET = 64 << 10


class Packets:
    """One end of a pair of sockets of packets (SOCK_SEQPACKET). Sends packets in their order, and
    gives those that come to `_take`, whose descriptors are closed after it unless it takes them out
    of the list."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._channel.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._loop.add_reader(channel.fileno(), self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        for _, handed in self._unsent:
            if handed is not None:
                handed.close()
        self._unsent.clear()
        self._channel.close()

    def _take(self, body: dict[str, Any], handed: list[int]) -> None:
        raise NotImplementedError

    def _ended(self) -> None:
        """Nobody holds the other end any more."""

    def _read(self) -> None:
        for _ in range(64):  # then others
            try:
                data, handed, _, _ = socket.recv_fds(
                    self._channel, _MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, handed = b"", []
            if not data:
                self._loop.remove_reader(self._channel.fileno())
                self._ended()
                return
            try:
                body = json.loads(data)
                self._take(body if isinstance(body, dict) else {}, handed)
            except (ValueError, LookupError, TypeError, RecursionError):
                pass  # a packet that is none says nothing
            finally:
                for fd in handed:
                    os.close(fd)
                handed.clear()

    def _send(self, body: dict[str, Any], handed: socket.socket | None = None) -> None:
        self._unsent.append((json.dumps(body).encode(), handed))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            data, handed = self._unsent[0]
            try:
                if handed is None:
                    self._channel.send(data)
                else:
                    socket.send_fds(self._channel, [data], [handed.fileno()])
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._flush)
                return
            except OSError:
                pass  # who asks for it asks again, or is gone
            self._unsent.popleft()
            if handed is not None:
                handed.close()
        self._loop.remove_writer(self._channel.fileno())
