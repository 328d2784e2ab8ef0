"""How our processes start their children, so that none outlives its parent.

The child asks the kernel for SIGKILL at its parent's death before it imports anything, and then
checks that the parent is still the one that started it. This needs no `preexec_fn`, which is
unsafe in a process with threads. The kernel watches the *thread* that started the child: start
children from the main thread only.
"""

from __future__ import annotations

import os
import sys

_BOOT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): os._exit(1)
import runpy
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def child_argv(module: str, *args: str) -> list[str]:
    """The command that runs `python -m module args...` and dies with this process.

    `-P`: the current folder is an operator's, it must not shadow our imports.
    """
    return [sys.executable, "-P", "-c", _BOOT, str(os.getpid()), module, *args]
