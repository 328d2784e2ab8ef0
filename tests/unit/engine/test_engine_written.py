"""Pages that were written, and those of them that are again what their image holds."""

import asyncio
import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from isopod.engine import folding
from isopod.engine.folding import Folding
from isopod.engine.image import PAGE, Image, map_over
from isopod.engine.instance import State
from isopod.engine.memory import WASM_PAGE
from isopod.engine.written import WrittenPages, give_back

SIZE = 2 * WASM_PAGE
CONTENT = bytes(1 + number // PAGE % 7 for number in range(SIZE))


@pytest.fixture
def written() -> Iterator[WrittenPages]:
    opened = WrittenPages.open()
    assert opened is not None
    yield opened
    opened.close()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[int]:
    """Where an image is mapped."""
    (tmp_path / "image").write_bytes(CONTENT)
    room = mmap.mmap(-1, SIZE)
    held = ctypes.c_char.from_buffer(room)
    with (tmp_path / "image").open("rb") as file:
        map_over(Image(file.fileno(), SIZE, 0), ctypes.addressof(held))
    yield ctypes.addressof(held)
    del held
    room.close()


def write(base: int, page: int, data: bytes) -> None:
    ctypes.memmove(base + page * PAGE + 100, data, len(data))


def test_only_pages_that_were_written_are_told(written, base):
    assert ctypes.string_at(base, SIZE) == CONTENT  # reading is not writing
    assert list(written.of(base, SIZE)) == []
    for page in (3, 4, 9, SIZE // PAGE - 1):
        write(base, page, b"x")
    runs = [(3 * PAGE, 2 * PAGE), (9 * PAGE, PAGE), (SIZE - PAGE, PAGE)]
    assert list(written.of(base, SIZE)) == runs


def test_what_is_as_in_the_image_is_given_back_and_the_rest_kept(written, base):
    for page in (3, 4, 5, 9):
        write(base, page, b"mine")
    before = ctypes.string_at(base, SIZE)
    write(base, 4, CONTENT[4 * PAGE : 4 * PAGE + 4])
    write(base, 20, CONTENT[20 * PAGE : 20 * PAGE + 4])
    assert give_back(written, base, SIZE) == 2 * PAGE
    kept = [(3 * PAGE, PAGE), (5 * PAGE, PAGE), (9 * PAGE, PAGE)]
    assert list(written.of(base, SIZE)) == kept
    write(base, 4, b"mine")
    assert ctypes.string_at(base, SIZE) == before


def test_where_pages_are_in_the_machine_is_not_told(written, base):
    write(base, 0, b"x")
    entry = written._entries(base, PAGE)[0]
    assert entry & ((1 << 55) - 1) == 0


@dataclass
class _Spec:
    folds: bool = True


@dataclass(eq=False)
class Resting:
    """What `Folding` asks of an instance."""

    spec: _Spec = field(default_factory=_Spec)
    image_bytes: int = SIZE
    state: State = State.ENDED
    given: asyncio.Event = field(default_factory=asyncio.Event)

    def give_back(self, _written: WrittenPages) -> None:
        self.given.set()


def test_who_rests_gives_back_once_and_who_runs_or_never_folds_does_not(written, monkeypatch):
    monkeypatch.setattr(folding, "AFTER_S", 0.0)
    monkeypatch.setattr(folding, "_LOOK_EVERY_S", 0.0)

    async def rounds() -> None:
        busy = True
        folds = Folding(written, busy=lambda: busy)
        never, runs, last = Resting(_Spec(folds=False)), Resting(state=State.READY), Resting()
        for one in (never, runs, last):
            folds.rests(one)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not last.given.is_set()
        busy = False
        await asyncio.wait_for(last.given.wait(), 10)
        assert not never.given.is_set() and not runs.given.is_set()
        last.given.clear()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not last.given.is_set()
        folds.close()

    asyncio.run(rounds())
