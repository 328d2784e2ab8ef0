"""Reading an app's log: the workers append JSON lines, this reads and follows them.

The file is renamed to `.1` when it grows; a follower reads the renamed file to its end before
it opens the new one, so no line is lost. Half a line (a worker is writing) waits for its end.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from isopod.control.apps import find_app
from isopod.control.log_files import log_paths, open_log
from isopod.control.log_lines import Wanted, level_of
from isopod.control.node import Node
from isopod.control.turns import Seat
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.state.apps import App

_POLL_S = 0.2
_ASK_AGAIN_S = 5.0
_READ_BYTES = 2**20
_AT_A_TIME = 100  # lines; then others
# A message is 64 KiB at most, and six times that with JSON's escapes.
_LONGEST_LINE = 2**20


async def read_log(
    who: Principal, name: AppName, *, wanted: Wanted, limit: int, follow: bool, node: Node
) -> AsyncGenerator[dict[str, Any]]:
    """The last `limit` wanted lines, oldest first; with `follow`, then each new one as it comes.
    AppNotFound and TooManyRequests, before any line."""
    who.need("read")
    app = await find_app(who, name, node=node)
    # The operator's are counted apart, also where it acts for a tenant.
    seats = node.followers if follow else node.log_readers
    seat = seats.take("" if who.operator else who.tenant)
    keep_s = node.settings.log_keep_h * 3600.0
    if keep_s:
        wanted = replace(wanted, since=max(wanted.since, node.clock() - keep_s))
    return _read(who, app, wanted, limit, seat, node, follow=follow)


async def _read(
    who: Principal,
    app: App,
    wanted: Wanted,
    limit: int,
    seat: Seat,
    node: Node,
    *,
    follow: bool,
) -> AsyncGenerator[dict[str, Any]]:
    older, current = log_paths(node.settings, who.tenant, app.label)
    tail = Tail(current)

    def shown(line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "app": app.name}

    try:
        # The position is taken with the history, so that nothing falls between the two.
        for text in await asyncio.to_thread(_history, older, tail, wanted, limit):
            yield shown(orjson.loads(text))
        ask_again_at = node.clock() + _ASK_AGAIN_S
        new = tail.more()
        while follow and not node.stopping.is_set():
            some = list(islice(new, _AT_A_TIME))
            for line in some:
                if wanted.takes(line):
                    yield shown(line)
            if some:
                # An app may print more than anybody can read, to a follower that wants none of it.
                await asyncio.sleep(0)
            else:
                new = tail.more()
                await asyncio.sleep(_POLL_S)
            if node.clock() >= ask_again_at:
                # A reader of yesterday may have no right any more, or the label be another's.
                if not await asyncio.to_thread(_may_read, who, app, node):
                    return
                ask_again_at = node.clock() + _ASK_AGAIN_S
    finally:
        tail.close()
        seat.leave()


def _may_read(who: Principal, app: App, node: Node) -> bool:
    mine = node.state.of(who.tenant)
    there = mine.apps.get(app.name)
    if there is None or (there.label, there.created_at) != (app.label, app.created_at):
        return False
    if who.operator:
        return True
    token = mine.tokens.get(who.token_id)
    return token is not None and token.serves(node.clock())


def _history(older: Path, tail: Tail, wanted: Wanted, limit: int) -> list[bytes]:
    """As text, of a fifth of the size: it is held until its reader has taken it."""
    last: deque[bytes] = deque(maxlen=limit)
    before = Tail(older)
    try:
        for source in (before, tail):
            for line in source.more():
                if wanted.takes(line):
                    last.append(orjson.dumps(line))
    finally:
        before.close()
    return list(last)


class Tail:
    """Reads on in a file that grows, is renamed and made anew. Each line has its level."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._inode = 0
        self._half = b""

    def more(self) -> Iterator[dict[str, Any]]:
        """The lines that were completed since the last call."""
        while True:
            yield from self._rest()
            if not self._moved():
                return
            # Once more: a worker may have written between our read and its rename.
            yield from self._rest()
            self.close()
            if not self._open():
                return

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._half = b""

    def _rest(self) -> Iterator[dict[str, Any]]:
        if self._file is None and not self._open():
            return
        assert self._file is not None
        while chunk := self._file.read(_READ_BYTES):
            *lines, self._half = (self._half + chunk).split(b"\n")
            if len(self._half) > _LONGEST_LINE:  # no worker writes such: it is no line
                self._half = b"{"
            for line in lines:
                body = _parse(line)
                if body is not None:
                    yield {**body, "level": level_of(body)}

    def _moved(self) -> bool:
        try:
            return self._file is not None and self._path.lstat().st_ino != self._inode
        except FileNotFoundError:
            return False  # renamed, and nothing written since

    def _open(self) -> bool:
        try:
            # Kept open between calls on purpose: after a rename this is the old file.
            self._file = open_log(self._path)
        except OSError as bad:
            if bad.errno in (errno.ENOENT, errno.ELOOP):  # or what is there is no log
                return False
            raise
        self._inode = os.fstat(self._file.fileno()).st_ino
        return True


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(line)
    except ValueError:
        return None  # the end of a line that a crash cut
    return body if isinstance(body, dict) else None
