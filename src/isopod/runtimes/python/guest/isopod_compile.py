"""Compile the sources below a folder to `__pycache__`, for this very interpreter.

Unchecked hashes: the folder never changes after the build, so imports need not stat the source.
Reports on the way: each failed file as `kind "bad"` in an L frame would mix with output, so the
result is one R frame: count, then path and message of each file that does not compile.
"""

import os
import py_compile

from isopod_frames import call


def main(root):
    compiled, bad = 0, []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for name in sorted(files):
            if not name.endswith(".py"):
                continue
            path = folder + "/" + name
            try:
                py_compile.compile(
                    path,
                    doraise=True,
                    quiet=2,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
                compiled += 1
            except py_compile.PyCompileError as error:
                bad.append(os.path.relpath(path, root) + "\t" + " ".join(error.msg.split()))
            except (OSError, ValueError, RecursionError, MemoryError) as error:
                bad.append(os.path.relpath(path, root) + "\t" + f"{type(error).__name__}: {error}")
    call(b"R" + "\n".join([f"compiled {compiled}", *bad]).encode("utf-8", "backslashreplace"))
