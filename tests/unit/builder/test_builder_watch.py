import os
import subprocess
import sys

from isopod.builder.watch import family, own_bytes, watch
from isopod.errors import BuildMemoryExceeded, BuildTimeout

GROWS = (
    "import time\nkept = []\nfor _ in range(600): kept.append(b'x' * (1 << 20)); time.sleep(.002)"
)
BY_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GROWS!r}])"


def started(code: str) -> int:
    """The process id; `watch` waits for it."""
    process = subprocess.Popen([sys.executable, "-c", code])
    process.returncode = 0  # nobody else shall
    return process.pid


def watched(code: str, *, mib: int = 1000, seconds: float = 30.0):
    return watch(
        started(code),
        memory_bytes=mib << 20,
        seconds=seconds,
        too_much=lambda: BuildMemoryExceeded("too much"),
        too_long=lambda: BuildTimeout("too long"),
    )


def test_one_that_ends_by_itself_keeps_its_status():
    status, verdict = watched("raise SystemExit(7)")
    assert (os.waitstatus_to_exitcode(status), verdict) == (7, None)


def test_one_that_takes_too_much_memory_is_ended():
    assert watched(GROWS, mib=100)[1].code == "build_memory_exceeded"


def test_the_memory_of_what_it_starts_counts():
    assert watched(BY_A_CHILD, mib=100)[1].code == "build_memory_exceeded"


def test_one_that_hears_no_signal_is_ended_when_its_time_is_over():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert watched(code, seconds=0.5)[1].code == "build_timeout"


def test_one_whose_processor_time_is_over_took_too_long():
    code = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass"
    assert watched(code)[1].code == "build_timeout"


def test_a_process_that_is_gone_uses_nothing():
    assert own_bytes(2**22 + 1) == 0
    assert list(family(2**22 + 1)) == [2**22 + 1]
    assert own_bytes(os.getpid()) > 1 << 20
