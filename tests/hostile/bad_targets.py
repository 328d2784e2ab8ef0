"""Fuzz targets that find something, each in its way, in every seventh input."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.fuzz.target import Finding, Target


def _generate(chance: random.Random) -> bytes:
    return chance.randbytes(4)


def _hurts(data: bytes) -> bool:
    return data[0] % 7 == 3


@contextlib.contextmanager
def _raising(_work: Path) -> Iterator[Callable[[bytes], None]]:
    def run(data: bytes) -> None:
        if _hurts(data):
            raise Finding("ouch")

    yield run


@contextlib.contextmanager
def _dying(_work: Path) -> Iterator[Callable[[bytes], None]]:
    def run(data: bytes) -> None:
        if _hurts(data):
            os.abort()

    yield run


@contextlib.contextmanager
def _hanging(_work: Path) -> Iterator[Callable[[bytes], None]]:
    def run(data: bytes) -> None:
        while _hurts(data):
            pass

    yield run


RAISES = Target("raises", _generate, _raising, longest_s=10)
DIES = Target("dies", _generate, _dying, longest_s=10)
HANGS = Target("hangs", _generate, _hanging, longest_s=1)
