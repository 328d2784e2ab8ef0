"""What a fuzz target is, and how inputs are changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path


class Finding(Exception):
    """An input did what no input may do."""


@dataclass(frozen=True, slots=True)
class Target:
    """`generate` makes an input. `open` gives the function that runs one; it raises (anything)
    when the input found something, and is used from one thread. `every_s`: a run that takes
    longer is a finding as well."""

    name: str
    generate: Callable[[random.Random], bytes]
    open: Callable[[Path], AbstractContextManager[Callable[[bytes], None]]]
    longest_s: float


INTERESTING = (0, 1, 2, 4, 7, 8, 16, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 2**31 - 1, 2**31,
               2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


def mutate(chance: random.Random, data: bytes, words: Sequence[bytes], most: int = 6) -> bytes:
    """A few changes: bits, bytes, words of the format, pieces removed, doubled and moved."""
    body = bytearray(data)
    for _ in range(chance.randint(1, most)):
        at = chance.randint(0, len(body))
        length = chance.choice((1, 1, 2, 4, 16, chance.randint(0, 300)))
        what = chance.randrange(8)
        if what == 0 and at < len(body):
            body[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            body[at : at + length] = chance.randbytes(length)
        elif what == 2:
            del body[at : at + length]
        elif what == 3:
            body[at:at] = body[at : at + length] * chance.choice((1, 2, 50))
        elif what == 4:
            body[at:at] = chance.choice(words)
        elif what == 5:
            word = chance.choice(words)
            body[at : at + len(word)] = word
        elif what == 6:
            piece = body[at : at + length]
            del body[at : at + length]
            to = chance.randint(0, len(body))
            body[to:to] = piece
        else:
            number = chance.choice(INTERESTING)
            raw = number.to_bytes(8, chance.choice(("little", "big")))
            body[at:at] = chance.choice((raw, raw[:4], raw[4:], str(number).encode()))
    return bytes(body)
