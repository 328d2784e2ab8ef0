"""How our processes start their children, so that none outlives its parent.

The child (`python -m isopod.control.child PARENT MODULE`) asks the kernel for SIGKILL at its
parent's death, checks that the parent is still the one that started it, and only then becomes
the module. This needs no `preexec_fn`, which is unsafe in a process with threads. The kernel
watches the *thread* that started the child: start children from the main thread only.
"""

from __future__ import annotations

import os
import signal
import sys


def child_argv(module: str, *args: str) -> list[str]:
    """The command that runs `python -m module args...` and dies with this process.

    `-P`: the current folder is an operator's, it must not shadow our imports.
    """
    return [sys.executable, "-P", "-m", __name__, str(os.getpid()), module, *args]


def how_it_ended(status: int) -> str:
    """An exit status, for people."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-status}"


def _become(parent: int, module: str, args: list[str]) -> None:
    import runpy

    from isopod.sandbox import kernel

    kernel.end_with_parent()
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
