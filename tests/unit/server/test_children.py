import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from isopod.errors import IsopodError, StateCorrupt
from isopod.server.children import Child, ChildSpec, pause_before_restart

READY = "import os; os.write(int(os.environ['ISOPOD_READY_FD']), b'ready\\n')\n"


@pytest.fixture
def child(tmp_path):
    """A child that runs the given code; what it reports is in `.said`."""

    def make(code: str, handed=b"", stall_s=0.0, **options) -> Child:
        (tmp_path / "the_child.py").write_text(code)
        said = asyncio.Queue()
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
        }
        spec = ChildSpec("child", "the_child", env, handed=handed, stall_s=stall_s)
        made = Child(spec, report=said.put_nowait, **options)
        made.said = said
        return made

    return make


def test_a_killed_child_is_started_again_at_once(child):
    async def main():
        one = child(READY + "import signal; signal.pause()")
        await one.start()
        first = one.pid
        os.kill(first, signal.SIGKILL)
        assert "was killed by SIGKILL; starting it again" in await one.said.get()
        assert "ready again" in await one.said.get()
        assert one.pid != first
        assert await one.stop(60)
        assert not Path(f"/proc/{one.pid}").exists()

    asyncio.run(main())


def test_a_child_says_why_it_cannot_start(child):
    code = (
        "import json, os\nfrom isopod.errors import StateCorrupt\n"
        "error = StateCorrupt('state.db is damaged').to_wire()\n"
        "os.write(int(os.environ['ISOPOD_READY_FD']), json.dumps({'error': error}).encode())\n"
    )
    with pytest.raises(StateCorrupt, match="damaged"):
        asyncio.run(child(code).start())


def test_a_child_that_ends_before_it_is_ready_is_told(child):
    with pytest.raises(IsopodError, match="status 7 before it was ready"):
        asyncio.run(child("raise SystemExit(7)").start())


def test_a_child_that_never_gets_ready_is_ended(child):
    one = child("import signal; signal.pause()", ready_s=0.5)
    with pytest.raises(IsopodError, match="not ready within"):
        asyncio.run(one.start())


def test_a_child_that_ignores_sigterm_is_killed(child):
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY
    code += "while True: signal.pause()"

    async def main():
        one = child(code)
        await one.start()
        assert not await one.stop(0.1)
        assert not Path(f"/proc/{one.pid}").exists()

    asyncio.run(main())


def test_quick_deaths_are_followed_by_longer_and_bounded_pauses():
    pauses = [pause_before_restart(n) for n in range(40)]
    assert pauses[:4] == [0.0, 0.0, 0.1, 0.2]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0


def test_a_child_reads_what_it_is_handed_on_its_standard_input(child):
    code = "import sys\nassert sys.stdin.read() == 'settings'\n" + READY
    code += "import signal; signal.pause()"

    async def main():
        one = child(code, handed=b"settings")
        await one.start()
        assert await one.stop(60)

    asyncio.run(main())


BEATING = READY.replace("import os; ", "import os, time\n") + (
    "fd = int(os.environ['ISOPOD_READY_FD'])\n"
    "def beat(seconds):\n"
    "    end = time.monotonic() + seconds\n"
    "    while time.monotonic() < end:\n"
    "        os.write(fd, b'.'); time.sleep(0.1)\n"
)


def test_a_child_whose_loop_stands_still_is_replaced(child):
    async def main():
        one = child(BEATING + "beat(0.5)\nimport signal; signal.pause()", stall_s=1.0)
        await one.start()
        first = one.pid
        assert "has stood still for" in await one.said.get()
        assert "was killed by SIGKILL" in await one.said.get()
        assert "ready again" in await one.said.get()
        assert one.pid != first
        await one.stop(60)

    asyncio.run(main())


def test_a_child_that_computes_without_a_beat_is_replaced_too(child):
    async def main():
        one = child(BEATING + "while True: pass", stall_s=1.0)
        await one.start()
        assert "has stood still for" in await one.said.get()
        await one.stop(60)

    asyncio.run(main())


def test_a_child_that_beats_is_left_alone(child):
    async def main():
        one = child(BEATING + "beat(60)", stall_s=2.0)
        await one.start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.said.get(), 4.5)
        assert await one.stop(60)

    asyncio.run(main())
