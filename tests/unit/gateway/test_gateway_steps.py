import asyncio
import time

import pytest

from isopod.gateway.steps import Steps


def burn(cpu_s: float) -> None:
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        pass


def test_only_its_own_steps_are_counted_while_others_run_between_them():
    async def work() -> None:
        burn(0.01)
        await asyncio.sleep(0.001)
        burn(0.01)

    async def main() -> None:
        one, other = Steps(work()), Steps(work())

        async def run(steps: Steps) -> None:
            await steps.run()

        began = time.thread_time()
        await asyncio.gather(run(one), run(other))
        spent = time.thread_time() - began
        assert 0.02 <= one.cpu_ns / 1e9 < 0.03
        assert 0.02 <= other.cpu_ns / 1e9 < 0.03
        assert one.cpu_ns + other.cpu_ns <= spent * 1e9

    asyncio.run(main())


def test_the_step_under_way_is_in_it():
    seen = []

    async def work() -> None:
        burn(0.005)
        seen.append(steps.cpu_ns)

    steps = Steps(work())

    async def main() -> None:
        await steps.run()

    asyncio.run(main())
    assert 0.005 <= seen[0] / 1e9 <= steps.cpu_ns / 1e9


def test_errors_cancellation_and_results_pass_through():
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    caught = []

    async def patient() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            caught.append("cancelled")
            raise

    async def late() -> None:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            caught.append("late")

    async def main() -> None:
        with pytest.raises(ValueError, match="no"):
            await Steps(failing()).run()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await Steps(patient()).run()
        await Steps(late()).run()
        left = Steps(patient()).run()
        left.send(None)
        left.close()

    asyncio.run(main())
    assert caught == ["cancelled", "late"]  # the one that was left was closed, not cancelled
