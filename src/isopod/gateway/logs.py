"""What apps print, and what we say of them, as JSON lines in the node's logs folder.

What an app prints beyond its rate is dropped by the line, and a line of ours says how much; what we
say of an app has a rate of its own, so that no flood hides it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from isopod.gateway.buckets import TokenBucket
from isopod.gateway.log_file import MAX_BYTES, LogFile
from isopod.model.log import Level, LogLine, Stream

MAX_LINE_BYTES = 64 << 10
# What was dropped is told once in so long.
_TELL_EVERY_S = 1.0
# Room for less than so much in a log that overflows is not worth taking the flood apart for.
_WORTH_SPLITTING_BYTES = 512


class AppLog:
    """One app's log, as one worker writes it. What a full disk costs is counted and told when
    there is room again, never raised."""

    def __init__(
        self, folder: Path, app: str, *, kib_per_s: int, max_bytes: int = MAX_BYTES
    ) -> None:
        """`kib_per_s`: of the file, so that a flood of empty lines counts too."""
        self._file = LogFile(folder / f"{app}.jsonl", max_bytes=max_bytes)
        self._app = app
        self._lost_lines = 0
        self._lost_since = 0.0
        self.kib_per_s = 0
        self.limit(kib_per_s)
        self._over_lines = 0
        self._over_bytes = 0
        self._over_since = 0.0
        self._version = 0

    def limit(self, kib_per_s: int) -> None:
        """Another version may have another limit."""
        if kib_per_s == self.kib_per_s:
            return
        self.kib_per_s = kib_per_s
        now, rate = time.monotonic(), kib_per_s << 10
        # The longest line always passes at some time.
        burst = max(rate, 2 * MAX_LINE_BYTES)
        self._printed, self._ours = TokenBucket(rate, burst, now), TokenBucket(rate, burst, now)

    def write(
        self,
        stream: Stream,
        message: str,
        *,
        version: int,
        instance: str = "",
        request_id: str = "",
        level: Level = "info",
    ) -> None:
        self.write_lines(
            stream,
            [message],
            version=version,
            instance=instance,
            request_id=request_id,
            level=level,
        )

    def write_lines(
        self,
        stream: Stream,
        messages: Sequence[str],
        *,
        version: int,
        instance: str = "",
        request_id: str = "",
        level: Level = "info",
    ) -> None:
        """One line each, in one piece: an app that prints a thousand lines must not hold up the
        loop with a thousand system calls. `level`: of what we say; what an app prints is judged
        by who reads it."""
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
            level=level if stream == "isopod" else None,
        ).to_json()
        del line["message"]
        head = json.dumps(line, separators=(",", ":"))[:-1] + ',"message":'
        self._version = version
        self.tell_dropped()
        bucket = self._ours if stream == "isopod" else self._printed
        kept = admitted(messages, len(head) + 4, bucket.left(time.monotonic()))
        if kept < len(messages):
            rest = messages[kept:]
            self.drop(len(rest), sum(map(len, rest)))
        data = "".join([f"{head}{json.dumps(message)}}}\n" for message in messages[:kept]])
        bucket.spend(len(data))
        self._append(data.encode(), kept)

    @property
    def full(self) -> bool:
        """Whether hardly a line of what the app prints would be kept now."""
        return self._printed.left(time.monotonic()) < _WORTH_SPLITTING_BYTES

    def drop(self, lines: int, size: int) -> None:
        """Count what is not written, `size` in bytes; it will be told."""
        if not self._over_lines:
            self._over_since = time.monotonic()
        self._over_lines += lines
        self._over_bytes += size

    def tell_dropped(self, *, now: bool = False) -> None:
        """Say what was dropped in the last second; `now`: even if that second is not over."""
        at = time.monotonic()
        if self._over_lines and (now or at - self._over_since >= _TELL_EVERY_S):
            lines, size = self._over_lines, self._over_bytes
            self._over_lines = self._over_bytes = 0
            self._tell(
                f"dropped {lines:,} lines, {size / (1 << 20):.2f} MiB: more than "
                f"limits.log_kib_per_s = {self.kib_per_s}",
                lines,
            )
        if self._lost_lines and (now or at - self._lost_since >= _TELL_EVERY_S):
            lines, self._lost_lines = self._lost_lines, 0
            self._tell(f"dropped {lines:,} lines: the node could not write them", lines)

    def _tell(self, message: str, lines: int) -> None:
        """That `lines` lines are not there. Where that cannot be written either, later."""
        line = LogLine(
            at=round(time.time(), 3),
            app=self._app,
            stream="isopod",
            message=message,
            version=self._version,
            level="warning",
            dropped=lines,
        )
        self._append(json.dumps(line.to_json(), separators=(",", ":")).encode() + b"\n", lines)

    def _append(self, data: bytes, lines: int) -> None:
        if not self._file.append(data):
            if not self._lost_lines:
                self._lost_since = time.monotonic()
            self._lost_lines += lines

    def close(self) -> None:
        self.tell_dropped(now=True)
        self._file.close()


def admitted(messages: Sequence[str], overhead: int, left: float) -> int:
    """How many of the messages, from the first, fit in `left` bytes, each with its `overhead`."""
    for count, message in enumerate(messages):
        left -= len(message) + overhead
        if left < 0:
            return count
    return len(messages)


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

    def skip(self, data: bytes) -> int:
        """As `feed`, for output that nobody will read: how many lines it ended. Cheap, because a
        flood is made of it."""
        head, end, rest = data.rpartition(b"\n")
        if not end:
            self._rest = (self._rest + rest)[:MAX_LINE_BYTES]
            return 0
        self._rest = rest[:MAX_LINE_BYTES]
        return head.count(b"\n") + 1

    def end(self) -> list[str]:
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest else []
