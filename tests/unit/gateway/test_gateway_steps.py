import asyncio
import time

import pytest

from isopod.gateway.steps import Steps


def burn(wall_s: float) -> None:
    end = time.monotonic() + wall_s
    while time.monotonic() < end:
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

        began = time.monotonic_ns()
        await asyncio.gather(run(one), run(other))
        spent_ns = time.monotonic_ns() - began
        assert one.spent_ns >= 0.02e9 and other.spent_ns >= 0.02e9
        assert one.spent_ns + other.spent_ns <= spent_ns

    asyncio.run(main())


def test_waiting_is_not_counted():
    steps = Steps(asyncio.sleep(0.5))

    async def main() -> None:
        await steps.run()

    asyncio.run(main())
    assert steps.spent_ns < 0.4e9


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
