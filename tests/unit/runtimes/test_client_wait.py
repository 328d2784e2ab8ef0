"""How long an exchange waited for its client, and what goes wrong when it reads from it."""

import asyncio
import time

import pytest

from isopod.errors import ClientDisconnected, EngineError
from isopod.runtimes.client_wait import ClientWait, reading


def pass_time() -> None:
    now = time.monotonic()
    while time.monotonic() == now:
        pass


def test_only_the_time_between_the_two_ends_is_waiting() -> None:
    before = time.monotonic()
    wait = ClientWait()
    assert wait.seconds == 0
    wait.begin()
    pass_time()
    first = wait.seconds
    pass_time()
    assert 0 < first < wait.seconds
    wait.end()
    total = wait.seconds
    pass_time()
    assert wait.seconds == total <= time.monotonic() - before


def test_each_end_may_be_said_twice() -> None:
    wait = ClientWait()
    wait.end()
    wait.begin()
    pass_time()
    first = wait.seconds
    wait.begin()
    assert wait.seconds >= first, "a wait that has begun began then"
    wait.end()
    total = wait.seconds
    wait.end()
    assert wait.seconds == total > 0


def test_a_wait_that_has_begun_outlives_that_the_ones_before_are_forgotten() -> None:
    wait = ClientWait()
    wait.begin()
    pass_time()
    wait.end()
    wait.forget()
    assert wait.seconds == 0
    wait.begin()
    wait.forget()
    pass_time()
    assert wait.seconds > 0


def test_our_own_errors_pass_as_they_are() -> None:
    gone = ClientDisconnected("the client is gone")
    with pytest.raises(ClientDisconnected) as seen, reading("the request body"):
        raise gone
    assert seen.value is gone


def test_anything_else_that_goes_wrong_is_an_error_of_ours_that_names_what_was_read() -> None:
    bad = OSError("half a chunk")
    with (
        pytest.raises(EngineError, match=r"^the WebSocket could not be read$") as seen,
        reading("the WebSocket"),
    ):
        raise bad
    assert seen.value.__cause__ is bad


def test_who_is_cancelled_as_it_reads_is_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError), reading("the request body"):
        raise asyncio.CancelledError
