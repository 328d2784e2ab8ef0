"""Room for machine code: of everybody, and of one tenant."""

import mmap

import pytest

from isopod.engine.code_window import CodeWindow, WindowFull
from isopod.errors import MachineCodeFull

PAGE = mmap.PAGESIZE


@pytest.fixture
def window():
    made = CodeWindow(8 * PAGE, share=4 * PAGE)
    made.give_up_writing()
    return made


def test_one_tenant_cannot_take_all_of_it(window):
    assert [window.place(PAGE, "hog") for _ in range(4)] == [0, PAGE, 2 * PAGE, 3 * PAGE]
    with pytest.raises(MachineCodeFull, match="tenant 'hog'"):
        window.place(PAGE, "hog")
    assert window.place(4 * PAGE, "other") == 4 * PAGE
    with pytest.raises(WindowFull):
        window.place(PAGE, "third")


def test_what_is_free_again_is_used_again(window):
    for owner in ("a", "b"):
        window.place(4 * PAGE, owner)
    window.free(0)
    assert window.place(2 * PAGE, "c") == 0
    assert window.place(2 * PAGE, "a") == 2 * PAGE
