"""Around a memory image: what is undone before it is taken, and made fresh after each restore.

Two instances of one image would else draw the same random numbers, make the same temporary names
and UUIDs, and hold files that are open only in the image. `prepare` walks everything reachable
once, so that `restored` need not search.
"""

import gc
import io
import json
import os
import sys

import isopod_frames as frames
import isopod_guest
import isopod_watch
from isopod_frames import call

_generators = []  # random.Random and numpy bit generators
_files = []  # (number, path, mode, position) of read-only files to open again
_connections = []  # sqlite3 connections to memory


def _classes():
    """Types to look for, of modules that the app has loaded."""

    def of(module, name):
        return getattr(sys.modules.get(module), name, None) or ()

    return {
        "random": of("random", "Random"),
        "system": of("random", "SystemRandom"),
        "numpy": of("numpy.random.bit_generator", "BitGenerator"),
        "sqlite": of("sqlite3", "Connection"),
        "file": io.FileIO,
    }


def _walk(classes, marker):
    """(The objects of the types we look for, whether a text holds the marker of a planted
    setting)."""
    marked = False
    marker_bytes = marker.encode()
    seen = set()
    stack = gc.get_objects()
    stack.append(sys.modules)
    found = []
    kinds = {}
    own = {id(seen), id(stack), id(found), id(kinds)}
    while stack:
        thing = stack.pop()
        number = id(thing)
        if number in seen or number in own:
            continue
        seen.add(number)
        kind = type(thing)
        label = kinds.get(kind)
        if label is None:
            label = kinds[kind] = _label(kind, classes)
        if label:
            found.append((label, thing))
        elif marker and (
            (kind is str and marker in thing and thing != marker)
            or (kind is bytes and marker_bytes in thing and thing != marker_bytes)
        ):
            marked = True
        stack.extend(gc.get_referents(thing))
    return found, marked


def _label(kind, classes):
    for label in ("file", "sqlite", "numpy"):
        if classes[label] and issubclass(kind, classes[label]):
            return label
    if classes["random"] and issubclass(kind, classes["random"]):
        return "" if classes["system"] and issubclass(kind, classes["system"]) else "random"
    return ""


def _inspect(found):
    """Sort what was found; a finding is (kind, what, "file:line" of who made it)."""
    findings = []
    for label, thing in found:
        try:
            if label in ("random", "numpy"):
                _generators.append((label, thing))
            elif label == "file":
                _inspect_file(thing, findings)
            elif label == "sqlite":
                _inspect_connection(thing, findings)
        except Exception as error:
            findings.append((label, f"{type(error).__name__}: {error}", ""))
    return findings


def _inspect_file(thing, findings):
    if thing.closed or thing.fileno() <= 2:
        return
    name = os.fsdecode(thing.name) if isinstance(thing.name, (str, bytes)) else repr(thing.name)
    path = os.path.abspath(name)
    if thing.mode == "rb" and path.startswith(("/app/", "/site/", "/usr/local/lib/")):
        _files.append((thing.fileno(), path, thing.tell()))
    else:
        findings.append(("open file", path, isopod_watch.opened_at(path)))


def _inspect_connection(thing, findings):
    try:
        rows = thing.execute("PRAGMA database_list").fetchall()
    except Exception:
        return  # closed
    paths = [row[2] for row in rows if row[2]]
    if paths:
        findings.append(("sqlite connection", ", ".join(paths), isopod_watch.opened_at(paths[0])))
    else:
        _connections.append(thing)


def prepare(before="", *marker):
    """Before the image is taken, in a turn of its own. Ends with an R frame: a JSON report."""
    report = {"error": "", "findings": [], "kept": False, "read": {}}
    try:
        _prepare(before, "".join(marker), report)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        report["error"] = frames.failure(error)[2]
    call(b"R" + json.dumps(report).encode())


def _prepare(before, marker, report):
    isopod_watch.stop()
    report["read"] = isopod_watch.read_at()
    for function in [*isopod_guest._before, *_named(before)]:
        function()
    for name in list(os.environ):
        del os.environ[name]
    for name in ("linecache", "functools"):
        clear = getattr(sys.modules.get(name), "clearcache", None)
        if clear:
            clear()
    _forget_names()
    gc.collect()
    found, report["kept"] = _walk(_classes(), marker)
    report["findings"] = _inspect(found)
    del found
    gc.collect()
    # Collections after the restore leave these objects, and so their pages, alone.
    gc.freeze()
    _send_addresses()


def _send_addresses():
    """Tell the host where every reachable object is, for it to make their counts immortal. All
    that is named must be alive until the host has done it: so the calls are made in here."""
    import array

    seen = set()
    stack = gc.get_objects()
    own = {id(seen), id(stack)}
    while stack:
        thing = stack.pop()
        number = id(thing)
        if number in seen or number in own:
            continue
        seen.add(number)
        stack.extend(gc.get_referents(thing))
    numbers = array.array("I", seen)
    for start in range(0, len(numbers), 1 << 18):
        call(b"I" + numbers[start : start + (1 << 18)].tobytes())


def _named(entry):
    """The function of a hook given as "module:function"."""
    if not entry:
        return []
    import importlib

    module, _, name = entry.partition(":")
    return [getattr(importlib.import_module(module), name)]


def _forget_names():
    """Caches that make two processes look like one."""
    uuid = sys.modules.get("uuid")
    if uuid:
        uuid._node = None
        for name in ("_last_timestamp", "_last_timestamp_v7"):
            if hasattr(uuid, name):
                setattr(uuid, name, None)
        if hasattr(uuid, "_last_counter_v7"):
            uuid._last_counter_v7 = 0
    tempfile = sys.modules.get("tempfile")
    if tempfile:
        tempfile._name_sequence = None


def restored():
    """The first thing in each instance that starts from the image."""
    config = json.loads(call(b"C"))
    os.environ.update(config["env"])
    _reopen()
    for label, generator in _generators:
        if label == "random":
            generator.seed()
        else:
            generator.state = type(generator)().state
    for connection in _connections:
        connection.create_function("randomblob", 1, lambda n: os.urandom(max(1, n or 1)))
        connection.create_function("random", 0, _random_integer)
    _forget_names()
    for function in [*isopod_guest._after, *_named(config["after_restore"])]:
        function()


def _random_integer():
    return int.from_bytes(os.urandom(8), "little", signed=True)


def _reopen():
    """Open the files of the image again under the numbers they had (WASI has no dup2)."""
    extra = []
    try:
        for number, path, position in sorted(_files):
            while True:
                opened = os.open(path, os.O_RDONLY)
                if opened == number:
                    os.lseek(opened, position, 0)
                    break
                extra.append(opened)
                if opened > number:
                    raise OSError(f"cannot open {path!r} again as descriptor {number}")
    finally:
        for opened in extra:
            os.close(opened)
