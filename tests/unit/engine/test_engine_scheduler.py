"""Fibers on a loop: slices, sleeps, fairness, the ticker."""

import asyncio
import gc
import struct
import time
import weakref

from isopod.engine.instance import Instance, State
from isopod.engine.scheduler import Scheduler
from isopod.errors import MemoryLimitExceeded

SECOND_NS = 1_000_000_000


async def until(condition, *, within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0)


def test_an_endless_loop_lets_the_others_answer(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            hogs = [guest("faults", [("spin", None)]) for _ in range(3)]
            for hog in hogs:
                scheduler.wake(hog.instance)
            await until(lambda: all(hog.instance.cpu_ns for hog in hogs))

            talker = guest("echo", [("turn", b"hello")])
            scheduler.wake(talker.instance)
            began = time.thread_time()
            await until(lambda: talker.frames)
            assert time.thread_time() - began < 0.5
            for hog in hogs:
                assert hog.instance.state is State.READY
                hog.instance.close()

    asyncio.run(main())


def test_computing_guests_share_the_time_in_equal_parts(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            hogs = [guest("faults", [("spin", None)]).instance for _ in range(3)]
            for hog in hogs:
                scheduler.wake(hog)
            await until(lambda: sum(hog.cpu_ns for hog in hogs) > 0.2 * SECOND_NS)
            least, *_, most = sorted(hog.cpu_ns for hog in hogs)
            assert least > most / 3
            for hog in hogs:
                hog.close()

    asyncio.run(main())


def test_a_share_with_many_guests_gets_what_one_with_a_single_guest_gets(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            many = [
                guest("faults", [("spin", None)], share=("many", "app")).instance for _ in range(9)
            ]
            one = guest("faults", [("spin", None)], share=("one", "app")).instance
            for hog in [*many, one]:
                scheduler.wake(hog)
            await until(lambda: sum(hog.cpu_ns for hog in [*many, one]) > 0.3 * SECOND_NS)
            together = sum(hog.cpu_ns for hog in many)
            assert 0.5 < one.cpu_ns / together < 2
            for hog in [*many, one]:
                hog.close()

    asyncio.run(main())


def test_woken_guests_run_in_the_order_they_were_woken(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            order: list[int] = []
            late: list[int] = []  # a tick came just then: who used up a slice goes behind

            def note(instance: Instance, number: int) -> None:
                (late if instance.computes else order).append(number)

            for number in range(6):
                instance = guest("echo", [("turn", b"x")]).instance
                instance.on_call = lambda _frame, i=instance, n=number: note(i, n)
                scheduler.wake(instance)
                scheduler.wake(instance)  # no second place in the queue
            await until(lambda: len(order) + len(late) == 6)
            assert order == sorted(order)
            assert order

    asyncio.run(main())


def test_those_who_answer_do_not_starve_one_who_computes(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:

            def talk_for_ever(told) -> None:
                # Woken again as soon as it has run, so the queue of woken guests is never empty.
                def answer(_frame: bytes) -> None:
                    asyncio.get_running_loop().call_soon(reply)

                def reply() -> None:
                    if told.instance.state is State.CALLING:
                        told.instance.reply(b"x")
                        scheduler.wake(told.instance)

                told.instance.on_call = answer
                scheduler.wake(told.instance)

            talkers = [guest("echo", [("turn", b"x")]) for _ in range(4)]
            for talker in talkers:
                talk_for_ever(talker)
            hog = guest("faults", [("spin", None)]).instance
            scheduler.wake(hog)
            await until(lambda: hog.cpu_ns > 0.05 * SECOND_NS)
            for told in talkers:
                told.instance.close()
            hog.close()

    asyncio.run(main())


def test_a_sleeping_guest_holds_nobody_up_and_wakes_in_time(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            sleeper = guest("faults", [("sleep", struct.pack("<q", 300_000_000))])
            began = time.monotonic()
            scheduler.wake(sleeper.instance)
            await until(lambda: sleeper.instance.state is State.SLEEPING)
            talker = guest("echo", [("turn", b"x")])
            scheduler.wake(talker.instance)
            await until(lambda: talker.frames)
            assert not sleeper.frames or time.monotonic() - began >= 0.3
            await until(lambda: sleeper.frames)
            assert time.monotonic() - began >= 0.3
            count, userdata = struct.unpack("<I4xQ", sleeper.frames[0])
            assert (count, userdata) == (1, 99)

    asyncio.run(main())


def test_a_guest_closed_in_its_sleep_is_forgotten_at_once(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            told = guest("faults", [("sleep", struct.pack("<q", 3600 * SECOND_NS))])
            scheduler.wake(told.instance)
            await until(lambda: told.instance.state is State.SLEEPING)
            timer = told.instance.sleep_timer
            told.instance.close()
            assert timer.cancelled()
            assert told.instance.sleep_timer is None

    asyncio.run(main())


def test_a_guest_that_sleeps_for_centuries_does_no_harm(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            told = guest("faults", [("sleep", struct.pack("<Q", 2**64 - 1))])
            scheduler.wake(told.instance)
            await until(lambda: told.instance.state is State.SLEEPING)
            talker = guest("echo", [("turn", b"x")])
            scheduler.wake(talker.instance)
            await until(lambda: talker.frames)
            told.instance.close()

    asyncio.run(main())


def test_a_guest_closed_while_it_is_queued_is_passed_over(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            first, second = (guest("echo", [("turn", b"x")]) for _ in range(2))
            scheduler.wake(first.instance)
            scheduler.wake(second.instance)
            first.instance.close()
            await until(lambda: second.frames)
            assert not first.frames
            assert not first.ended

    asyncio.run(main())


def test_an_allocator_without_end_holds_the_loop_for_a_moment_only(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            told = guest("allocators", [("be_endless", None), ("turn", b"payload")])
            scheduler.wake(told.instance)
            began = time.thread_time()
            await until(lambda: told.ended)
            assert isinstance(told.error, MemoryLimitExceeded)
            assert time.thread_time() - began < 1.0

    asyncio.run(main())


def test_a_mistake_of_ours_with_one_guest_does_not_stop_the_others(engine, guest):
    async def main() -> None:
        errors: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with Scheduler(engine) as scheduler:
            broken, fine = (guest("echo", [("turn", b"x")]) for _ in range(2))
            broken.instance.on_call = lambda _frame: 1 / 0
            scheduler.wake(broken.instance)
            scheduler.wake(fine.instance)
            await until(lambda: fine.frames and errors)
        assert isinstance(errors[0]["exception"], ZeroDivisionError)

    asyncio.run(main())


def test_a_closed_guest_is_collected(engine, guest, linkages):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            from isopod.engine.instance import Instance, InstanceSpec

            spec = InstanceSpec(argv=("x",), env=(), preopens=(), memory_bytes=1 << 20)
            instance = Instance(linkages("echo"), spec)
            instance.start([("turn", b"x")])
            scheduler.wake(instance)
            await until(lambda: instance.state is State.CALLING)  # noqa: F821
            instance.close()
            gone = weakref.ref(instance)
            del instance
            gc.collect()
            assert gone() is None

    asyncio.run(main())


def test_the_ticker_runs_during_a_slice_and_rests_otherwise(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            ticker = scheduler._ticker
            assert not ticker.armed
            hog = guest("faults", [("spin", None)]).instance
            scheduler.wake(hog)
            # Without ticks this slice would never end.
            await until(lambda: hog.cpu_ns > 0.15 * SECOND_NS)
            assert not ticker.armed
            hog.close()
            # ... and is there again for the next one, else this would never end.
            hog = guest("faults", [("spin", None)]).instance
            scheduler.wake(hog)
            await until(lambda: hog.cpu_ns)
            hog.close()

    asyncio.run(main())


def test_a_closed_scheduler_runs_nothing(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            told = guest("faults", [("spin", None)])
            scheduler.wake(told.instance)
        scheduler.wake(guest("faults", [("spin", None)]).instance)
        for _ in range(5):
            await asyncio.sleep(0)
        scheduler._ticker.close()
        assert told.instance.cpu_ns == 0

    asyncio.run(main())


def test_what_a_turn_takes_is_the_guests_or_ours(engine, guest):
    async def main() -> None:
        async with Scheduler(engine) as scheduler:
            before_ns = time.thread_time_ns()
            told = guest("echo", [("turn", b"x")])
            hog = guest("faults", [("spin", None)]).instance
            scheduler.wake(told.instance)
            scheduler.wake(hog)
            await until(lambda: hog.cpu_ns > 0.05 * SECOND_NS and told.frames)
            spent_ns = time.thread_time_ns() - before_ns
            guests = (told.instance, hog)
            assert scheduler.guest_ns == sum(one.cpu_ns for one in guests) <= spent_ns
            assert scheduler.host_ns == sum(one.host_ns for one in guests)
            assert 0 < told.instance.host_ns < 0.5 * SECOND_NS
            size, used_ns = told.instance.memory_bytes, told.instance.cpu_ns
            told.instance.close()
            hog.close()
            assert told.instance.peak_memory_bytes == size > 0
            assert told.instance.cpu_ns == used_ns

    asyncio.run(main())
