"""What a builder says: one JSON value a line, flushed, on the standard output it began with."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from isopod.model.build import Step


@dataclass
class Progress:
    """One step under way. Set `text` for what is shown when it is done."""

    text: str


class Report:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._ended = False

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[Progress]:
        """Tell of the start, and of the end with its seconds; nothing more if it fails."""
        began = time.monotonic()
        self._write({"step": Step(name, "start", text).to_json()})
        progress = Progress(text)
        yield progress
        seconds = round(time.monotonic() - began, 3)
        self._write({"step": Step(name, "done", progress.text, seconds).to_json()})

    def end(self, body: Mapping[str, Any]) -> bool:
        """The last line: a result or an error. Only the first one counts."""
        return self._write(body, last=True)

    def _write(self, body: Mapping[str, Any], *, last: bool = False) -> bool:
        # Surrogates in file names would not encode.
        line = json.dumps(body, ensure_ascii=True)
        with self._lock:
            if self._ended:
                return False
            self._ended = last
            self._out.write(line + "\n")
            self._out.flush()
        return True
