"""What a guest may write to a folder of its own."""

from pathlib import Path

import pytest

from isopod.engine import files
from isopod.engine.files import Account

LIMIT = 1 << 20


class Clock:
    """Measuring a folder takes `wall_s`, of which `cpu_s` on a core."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._wall = self._cpu = 1.0
        measure = files.folder_bytes
        monkeypatch.setattr(files, "time", self)
        monkeypatch.setattr(files, "folder_bytes", lambda folder: self._measured(measure(folder)))

    def monotonic(self) -> float:
        return self._wall

    def thread_time(self) -> float:
        return self._cpu

    def let(self, seconds: float) -> None:
        self._wall += seconds

    def _measured(self, size: int) -> int:
        self._wall += self.wall_s
        self._cpu += self.cpu_s
        return size


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def nothing() -> int:
    return 0


def full(folder: Path) -> Account:
    """Of a guest that has tried to write more than fits, and then made room."""
    account = Account(folder, LIMIT, 0)
    (folder / "big").write_bytes(bytes(LIMIT))
    assert account.charge(LIMIT, nothing) and not account.charge(1, nothing)
    (folder / "big").unlink()
    return account


def test_room_that_a_guest_makes_is_its_own_at_once_though_the_machine_is_busy(tmp_path, clock):
    clock.wall_s, clock.cpu_s = 5.0, 0.0001
    assert full(tmp_path).charge(LIMIT, nothing)


def test_a_folder_that_is_long_to_measure_is_not_measured_at_every_write(tmp_path, clock):
    clock.wall_s = clock.cpu_s = 0.5
    account = full(tmp_path)
    assert not account.charge(LIMIT, nothing)
    clock.let(2.5)
    assert account.charge(LIMIT, nothing)
