"""Runs one command of the app's in a guest of its own: `python manage.py migrate`, `python -m x`,
`python -c ...`, or a console script of a dependency, such as `alembic upgrade head`.

It ends like a boot: with a Q frame when the command ended well, an R frame when it did not. What it
printed is output like any other.
"""

import atexit
import os
import runpy
import sys

import isopod_boot
import isopod_frames as frames
import isopod_outside
import isopod_streams as streams

_PYTHONS = ("python", "python3")
_WITHOUT_EFFECT = ("-u", "-B", "-I", "-s", "-E")


class Usage(Exception):
    pass


def main(words, volumes=()):
    streams.install()
    isopod_outside.install(volumes)
    isopod_boot.paths(volumes)
    status, memory = 0, False
    try:
        _run(words)
    except SystemExit as ended:
        status = _status(ended.code)
    except Usage as wrong:
        sys.stderr.write(f"{wrong}\n")
        status = 2
    except (Exception, KeyboardInterrupt) as error:
        memory = isinstance(error, MemoryError)
        frames.log(b"e", frames.failure(error)[2].encode("utf-8", "backslashreplace"))
        status = 1
    atexit._run_exitfuncs()
    streams.flush()
    if status:
        kind = "memory" if memory else "command"
        frames.call(b"R" + f"{kind}\nthe command ended with status {status}\n".encode())
    else:
        frames.call(b"Q")


def _status(code):
    """As the interpreter turns SystemExit's code into a status."""
    if code is None or isinstance(code, int):
        return code or 0
    sys.stderr.write(f"{code}\n")
    return 1


def _run(words):
    name, *rest = words
    if name not in _PYTHONS:
        _script_of_a_dependency(name, rest)
        return
    while rest and rest[0] in _WITHOUT_EFFECT:
        rest.pop(0)
    if not rest:
        raise Usage("python without a script: there is no terminal to talk to")
    first, *more = rest
    if first == "-c" and more:
        sys.argv = ["-c", *more[1:]]
        exec(compile(more[0], "<command>", "exec"), {"__name__": "__main__"})
    elif first == "-m" and more:
        sys.argv = more
        runpy.run_module(more[0], run_name="__main__", alter_sys=True)
    elif first.startswith("-"):
        raise Usage(f"python {first}: this option is not supported here")
    else:
        sys.argv = rest
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        runpy.run_path(first, run_name="__main__")


def _script_of_a_dependency(name, rest):
    from importlib import metadata

    found = list(metadata.entry_points(group="console_scripts", name=name))
    if not found:
        raise Usage(f"{name}: no console script of a dependency has this name; say python SCRIPT")
    sys.argv = [name, *rest]
    raise SystemExit(found[0].load()())
