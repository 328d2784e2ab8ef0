"""What apps print, and what we say of them, as JSON lines in the node's logs folder.

Several workers append to one file, each line in one `write`. A file that has grown past
`MAX_BYTES` becomes `.1` and a new one begins, so an app that floods its log costs two files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from isopod.model.log import LogLine, Stream

MAX_BYTES = 8 << 20
MAX_LINE_BYTES = 64 << 10
# Between two looks at whether the file is full, or another worker has rotated it.
_RECHECK_S = 1.0
_RECHECK_BYTES = MAX_BYTES // 8


class AppLog:
    """One app's log file, as one worker writes it. Losing a line is better than losing the app:
    a full disk is counted in `dropped`, never raised."""

    def __init__(self, folder: Path, app: str) -> None:
        self._path = folder / f"{app}.jsonl"
        self._app = app
        self._fd = -1
        self._checked = 0.0
        self._since_check = 0
        self.dropped = 0

    def write(
        self,
        stream: Stream,
        message: str,
        *,
        version: int,
        instance: str = "",
        request_id: str = "",
    ) -> None:
        self.write_lines(
            stream, [message], version=version, instance=instance, request_id=request_id
        )

    def write_lines(
        self,
        stream: Stream,
        messages: Sequence[str],
        *,
        version: int,
        instance: str = "",
        request_id: str = "",
    ) -> None:
        """One line each, in one piece: an app that prints a thousand lines must not hold up the
        loop with a thousand system calls."""
        if not messages:
            return
        line = LogLine(
            at=round(time.time(), 3),
            app=self._app,
            stream=stream,
            message="",
            version=version,
            instance=instance,
            request_id=request_id,
        ).to_json()
        del line["message"]
        head = json.dumps(line, separators=(",", ":"))[:-1] + ',"message":'
        data = "".join([f"{head}{json.dumps(message)}}}\n" for message in messages]).encode()
        self._since_check += len(data)
        try:
            written = os.write(self._descriptor(), data)
        except OSError:
            written = 0
        if written < len(data):
            self.dropped += 1

    def _descriptor(self) -> int:
        now = time.monotonic()
        recent = now - self._checked < _RECHECK_S and self._since_check < _RECHECK_BYTES
        if self._fd >= 0 and recent:
            return self._fd
        self._checked, self._since_check = now, 0
        if self._fd >= 0:
            ours = os.fstat(self._fd)
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == ours.st_ino and ours.st_size < MAX_BYTES:
                    return self._fd
            self.close()
        self._rotate()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._fd

    def _rotate(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size < MAX_BYTES:
                return
            # Not made if it is absent: another worker may have renamed it just now.
            with self._path.open("r") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                ours, there = os.fstat(held.fileno()), self._path.stat()
                # Else another worker was first, and `.1` holds what was written until then.
                if there.st_ino == ours.st_ino and ours.st_size >= MAX_BYTES:
                    self._path.rename(self._path.with_name(self._path.name + ".1"))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LineSplitter:
    """Pieces of output to whole lines; a line without an end is cut at `MAX_LINE_BYTES`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        return [
            line[start : start + MAX_LINE_BYTES].decode("utf-8", "replace")
            for line in lines
            for start in range(0, max(len(line), 1), MAX_LINE_BYTES)
        ]

    def end(self) -> list[str]:
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest else []
