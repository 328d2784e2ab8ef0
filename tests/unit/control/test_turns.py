import asyncio

import pytest

from isopod.control.turns import Seats, Turns
from isopod.errors import TooManyRequests
from isopod.model.tenant import TenantName

ACME, GLOBEX = TenantName("acme"), TenantName("globex")


class Work:
    """Something that takes a turn until it is let go."""

    def __init__(self, turns: Turns, tenant: TenantName) -> None:
        self.began, self.let_go = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._run(turns, tenant))

    async def _run(self, turns: Turns, tenant: TenantName) -> None:
        async with turns.turn(tenant):
            self.began.set()
            await self.let_go.wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_tenant_that_asks_for_everything_leaves_a_turn_to_another():
    async def main():
        turns = Turns(at_once=3, per_tenant=2, waiting=10, what="builds")
        greedy = [Work(turns, ACME) for _ in range(8)]
        await settle()
        assert [work.began.is_set() for work in greedy] == [True] * 2 + [False] * 6
        assert turns.must_wait(ACME) and not turns.must_wait(GLOBEX)
        other = Work(turns, GLOBEX)
        await settle()
        assert other.began.is_set()
        greedy[0].let_go.set()
        await settle()
        assert greedy[2].began.is_set()
        for work in (*greedy, other):
            work.let_go.set()
        await asyncio.gather(*(work.task for work in (*greedy, other)))
        assert turns._asked == turns._of == {}

    asyncio.run(main())


def test_more_than_may_wait_are_refused_and_who_gives_up_makes_room():
    async def main():
        turns = Turns(at_once=2, per_tenant=1, waiting=1, what="builds")
        first, second = Work(turns, ACME), Work(turns, ACME)
        await settle()
        with pytest.raises(TooManyRequests, match="2 builds"):
            await Work(turns, ACME).task
        second.task.cancel()
        await asyncio.wait((second.task,))
        third = Work(turns, ACME)
        await settle()
        assert not third.began.is_set()
        first.let_go.set()
        third.let_go.set()
        await asyncio.gather(first.task, third.task)
        assert turns._asked == {}

    asyncio.run(main())


def test_who_has_all_its_seats_takes_none_from_others_until_the_node_is_full():
    seats = Seats(at_once=3, per_key=2, what="followed logs")
    first, _second = seats.take(ACME), seats.take(ACME)
    with pytest.raises(TooManyRequests, match="2 of this tenant"):
        seats.take(ACME)
    other = seats.take(GLOBEX)
    with pytest.raises(TooManyRequests) as caught:
        seats.take(GLOBEX)
    assert "acme" not in caught.value.message
    first.leave()
    first.leave()
    assert seats.take(ACME).key == ACME
    other.leave()


def test_a_seat_that_nobody_holds_any_more_is_free():
    seats = Seats(at_once=1, per_key=1, what="followed logs")
    for _ in range(3):
        assert seats.take(ACME).key == ACME  # gone at the end of the line
