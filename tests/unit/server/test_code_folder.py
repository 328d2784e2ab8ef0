"""Machine code on disk: whose goes, who waits for whom, and what is not tried again."""

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from isopod.errors import ModuleInvalid, ModuleTooCostly
from isopod.server.code_folder import Bounds, CodeFolder, Kept, to_remove

BOUNDS = Bounds(seconds=10, memory_bytes=1 << 30)


@pytest.fixture
def code(tmp_path: Path) -> CodeFolder:
    return CodeFolder(tmp_path, room_bytes=100, share_bytes=40)


def put(code: CodeFolder, owner: str, module: bytes, size: int) -> Path:
    key = code.key(owner, module)
    with code.locked(key), code.temporary() as temporary:
        temporary.write_bytes(os.urandom(size))
        return code.keep(key, temporary)


def test_who_fills_its_share_loses_its_own_and_nobody_elses(code):
    others = put(code, "other", b"o", 20)
    os.utime(others, (1, 1))  # the oldest of all
    mine = [put(code, "hog", bytes([number]), 15) for number in range(6)]
    assert others.exists()
    assert [path.exists() for path in mine[-2:]] == [True, True]
    assert sum(path.exists() for path in mine) == 2


def test_without_room_the_one_that_holds_most_loses_what_it_did_not_use_for_longest():
    kept = [
        Kept(Path("old"), "small", 10, used_at=1),
        Kept(Path("hog 1"), "hog", 40, used_at=5),
        Kept(Path("hog 2"), "hog", 40, used_at=6),
    ]
    assert to_remove(kept, "new", 20, share=90, room=100) == [Path("hog 1")]
    assert to_remove(kept, "hog", 60, share=90, room=1000) == [Path("hog 1"), Path("hog 2")]


def test_a_damaged_file_is_seen_and_removed(code):
    path = put(code, "acme", b"m", 10)
    key = code.key("acme", b"m")
    assert code.find(key) == path
    path.write_bytes(b"other")
    assert code.find(key) is None and not path.exists()


def test_modules_whose_keys_begin_alike_do_not_wait_for_each_other(code):
    """Locks were by the first two digits of a key: of 257 modules two shared one."""
    keys = [code.key("acme", str(number).encode()) for number in range(257)]
    with contextlib.ExitStack() as held:
        for key in keys:
            held.enter_context(code.locked(key))
        assert len(list(code.folder.glob(".lock-*"))) == 257
    assert list(code.folder.glob(".lock-*")) == []


def test_a_tenant_has_two_compiled_at_once_beside_all_workers_together(code):
    keys = [code.key("acme", str(number).encode()) for number in range(50)]
    with contextlib.ExitStack() as held:
        for key in {key[-1] in "02468ace": key for key in keys}.values():
            held.enter_context(code.place(key))
        assert len(list(code.folder.glob(".lock-*"))) == 2
        for lock in code.folder.glob(".lock-*"):
            with lock.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = {path.name for path in code.folder.iterdir()}
        held.enter_context(code.place(code.key("globex", b"1")))
        assert len(set(code.folder.iterdir())) == len(names) + 1


def test_two_that_want_the_same_go_one_after_the_other_and_leave_no_lock(code):
    key, inside, most = code.key("acme", b"m"), 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with code.locked(key):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(code.folder.iterdir()) == []


def test_what_killed_processes_left_is_swept_and_what_somebody_holds_is_not(code):
    (code.folder / ".lock-left").touch()
    left = code.folder / ".tmp-left"
    left.touch()
    os.utime(left, (1, 1))
    (code.folder / ".tmp-new").touch()
    with code.locked("held"), code.temporary():
        assert sorted(path.name for path in code.folder.iterdir()) == [".lock-held", ".tmp-new"]


def test_a_module_that_was_too_costly_is_tried_again_later_and_each_time_later(code):
    key = code.key("acme", b"m")
    waits = []
    for _ in range(3):
        code.remember(key, ModuleTooCostly("too slow"), BOUNDS)
        error = code.failure(key, BOUNDS)
        assert isinstance(error, ModuleTooCostly) and error.message == "too slow"
        waits.append(error.details["retry_after_s"])
    assert waits == [60, 240, 960]
    assert code.failure(code.key("globex", b"m"), BOUNDS) is None
    assert code.failure(key, Bounds(20, 1 << 30)) is None  # the operator gave it more time


def test_what_failed_long_ago_is_tried_again(code, monkeypatch):
    key = code.key("acme", b"m")
    code.remember(key, ModuleTooCostly("too slow"), BOUNDS)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert code.failure(key, BOUNDS) is None


def test_a_tenant_has_so_many_failures_remembered(code):
    for number in range(70):
        key = code.key("acme", str(number).encode())
        code.remember(key, ModuleInvalid("no"), BOUNDS)
    other = code.key("globex", b"")
    code.remember(other, ModuleInvalid("no"), BOUNDS)
    assert len(list(code.folder.glob("*.failed"))) == 65
    (code.folder / f"{other}.failed").write_text('{"until": "x"}')
    assert code.failure(other, BOUNDS) is None
