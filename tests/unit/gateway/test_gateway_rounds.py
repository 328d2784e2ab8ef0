"""What is looked at again and again."""

import asyncio
import logging

import pytest

from isopod.gateway.rounds import go_round


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_a_round_that_fails_is_logged_and_the_next_one_comes(caplog, in_a_thread):
    rounds: list[int] = []

    def look() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise OSError("once")

    def pause_s() -> float:
        if len(rounds) == 3:
            raise asyncio.CancelledError
        return 0.0

    looks = (lambda: asyncio.to_thread(look)) if in_a_thread else look
    with caplog.at_level(logging.ERROR), pytest.raises(asyncio.CancelledError):
        asyncio.run(go_round(looks, every_s=pause_s, failed="it was not seen"))
    assert rounds == [0, 1, 2]
    assert [one.getMessage() for one in caplog.records] == ["it was not seen; trying again"]
