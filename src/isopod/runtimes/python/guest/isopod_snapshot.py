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
import time

import isopod_frames as frames
import isopod_guest
import isopod_streams as streams
import isopod_unique as unique
import isopod_watch
from isopod_frames import call

_files = []  # (number, path, position) of read-only files to open again
_temporary = []  # (path, content or None for a folder) of what /tmp holds
_set = {}  # the environment as the app itself made it
_removed = []
_MAX_TEMPORARY = 64
_MAX_TEMPORARY_BYTES = 1 << 20
_MAX_TIMES = 200
_MAX_PARTS = 16  # draws that are also looked for inside of longer texts
_ARENA_BYTES = 512 << 10
_HOLE_BYTES = 256 << 10  # a larger one is a place for many objects by itself
_plugs = []


class _Search:
    """One walk over everything reachable, and what it found."""

    def __init__(self, marker, drawn):
        self.kept = False  # a text holds the marker of a planted setting
        self.found = []  # (label, object) of the types we look for
        self.drawn = set()  # places whose entropy is held
        self.times = []  # objects that are a time since the boot began
        self._marker = marker
        self._marker_bytes = marker.encode()
        self._kinds = {}
        self._classes = unique.classes()
        self._classes.append(("file", io.FileIO))
        sqlite = sys.modules.get("sqlite3")
        if sqlite:
            self._classes.append(("sqlite", sqlite.Connection))
        self._drawn = [one for one in drawn if len(one[0]) >= 16]
        self._forms = {}
        self._parts = {}
        self._since, self._until = isopod_watch.began(), time.time()
        self._datetime = getattr(sys.modules.get("datetime"), "datetime", ())

    def run(self, hidden):
        """`hidden`: objects of ours that are not looked at."""
        seen = {id(thing) for thing in (self, vars(self), *vars(self).values(), *hidden, hidden)}
        stack = gc.get_objects()
        stack.append(sys.modules)
        seen |= {id(seen), id(stack)}
        # After the stack was made: what is new now is not in it.
        self._forms = _forms(self._drawn)
        for form, place in _forms(self._drawn[:_MAX_PARTS]).items():
            self._parts.setdefault(type(form), []).append((form, place))
        while stack:
            thing = stack.pop()
            number = id(thing)
            if number in seen:
                continue
            seen.add(number)
            self._look(thing)
            stack.extend(gc.get_referents(thing))

    def _look(self, thing):
        kind = type(thing)
        if kind is str or kind is bytes:
            self._look_at_text(thing, kind)
        elif kind is int:
            if thing >> 60 and thing in self._forms:
                self.drawn.add(self._forms[thing])
            elif self._is_time(thing) or (
                50 <= thing.bit_length() < 64 and self._is_time(thing / 1e9)
            ):
                self.times.append(thing)
        elif kind is float:
            if self._is_time(thing):
                self.times.append(thing)
        elif kind is bytearray:
            self._look_at_text(bytes(thing), bytes)
        elif kind is self._datetime:
            self._look_at_datetime(thing)
        else:
            label = self._kinds.get(kind)
            if label is None:
                label = self._kinds[kind] = self._label(kind)
            if label:
                self.found.append((label, thing))

    def _is_time(self, value):
        return int(self._since) <= value <= self._until and len(self.times) < _MAX_TIMES

    def _look_at_datetime(self, thing):
        try:
            value = thing.timestamp()
        except (OverflowError, ValueError, OSError):
            return
        if self._is_time(value):
            self.times.append(thing)

    def _look_at_text(self, thing, kind):
        if self._marker:
            marker = self._marker if kind is str else self._marker_bytes
            if marker in thing and thing != marker:
                self.kept = True
        if self._forms and 16 <= len(thing) <= 1024:
            place = self._forms.get(thing)
            if place is not None:
                self.drawn.add(place)
            else:
                for form, place in self._parts.get(kind, ()):
                    if form in thing:
                        self.drawn.add(place)

    def _label(self, kind):
        for label, wanted in self._classes:
            if issubclass(kind, wanted):
                return label
        return ""


def _forms(drawn):
    """What entropy looks like where it is kept -> the place that drew it."""
    if not drawn:
        return {}
    import base64

    forms = {}
    for data, place, _ in drawn:
        number = int.from_bytes(data, "big")
        known = [
            data,
            data.hex(),
            base64.b64encode(data).rstrip(b"="),
            base64.b64encode(data).rstrip(b"=").decode(),
            base64.urlsafe_b64encode(data).rstrip(b"="),
            base64.urlsafe_b64encode(data).rstrip(b"=").decode(),
            number,
            int.from_bytes(data, "little"),
        ]
        if len(data) == 16:
            # RFC 9562, version 4.
            bits = number & ~(0xF000 << 64) & ~(0xC000 << 48) | 4 << 76 | 2 << 62
            text = f"{bits:032x}"
            dashed = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
            known += [bits, text, dashed]
        forms.update(dict.fromkeys(known, place))
    return forms


def prepare(before="", *marker):
    """Before the image is taken, in a turn of its own. Ends with an R frame: a JSON report."""
    report = {"error": "", "findings": [], "kept": False, "read": {}, "entropy": [], "time": []}
    try:
        _prepare(before, "".join(marker), report)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        report["error"] = frames.failure(error)[2]
    call(b"R" + json.dumps(report).encode())


def _prepare(before, marker, report):
    for function in [*isopod_guest._before, *_named(before)]:
        function()
    streams.flush()
    isopod_watch.stop()
    report["read"] = isopod_watch.read_at()
    changed, removed = isopod_watch.environment_changes()
    _set.update(changed)
    _removed.extend(removed)
    for name in list(os.environ):
        del os.environ[name]
    for name in ("linecache",):
        clear = getattr(sys.modules.get(name), "clearcache", None)
        if clear:
            clear()
    unique.forget()
    gc.collect()
    drawn = isopod_watch.take_drawn()
    search = _Search(marker, drawn)
    search.run([drawn, *drawn])
    report["kept"] = search.kept
    report["entropy"] = _entropy(search, drawn)  # before NumPy's seeds are renewed
    report["findings"] = _inspect(search.found)
    report["time"] = _held_in_app(search.times)
    del search, drawn
    gc.collect()
    # Collections after the restore leave these objects, and so their pages, alone.
    gc.freeze()
    _send_addresses()
    _fill_holes()


def _entropy(search, drawn):
    """Places that drew what the app may have kept. A value can be made of it that does not look
    like it: so all that is drawn at the import counts, and what one request of the warm-up drew
    and its repetition did not; and what is seen to be kept."""
    if len(drawn) >= isopod_watch.MAX_DRAWN:
        return sorted({place for _, place, _ in drawn})  # there was more than was looked at
    turns = {}
    for _, place, turn in drawn:
        turns.setdefault(place, set()).add(turn)
    seeds = {str(getattr(thing, "entropy", "")) for _, thing in search.found}
    places = set()
    for data, place, turn in drawn:
        numbers = {str(int.from_bytes(data, order)) for order in ("big", "little")}
        # NumPy seeds itself with it, and those generators are made fresh.
        once = place and (turn == 0 or len(turns[place]) == 1)
        if not numbers & seeds and (once or place in search.drawn):
            places.add(place)
    return sorted(places)


# -- what must not be shared ----------------------------------------------------------------


def _inspect(found):
    """Sort what was found; a finding is (kind, what, "file:line" of who made it)."""
    findings, named = [], set()
    for label, thing in found:
        try:
            if label == "file":
                _inspect_file(thing, findings, named)
            elif label == "sqlite":
                _inspect_connection(thing, findings, named)
            else:
                unique.remember(label, thing)
        except Exception as error:
            findings.append((label, f"{type(error).__name__}: {error}", ""))
    for number, path, place in isopod_watch.new_descriptors():
        if number not in named and path not in named:
            findings.append(("open file", path, place))
    _inspect_temporary(findings, named)
    for where, place in isopod_watch.reached().items():
        # There is no network now: what the app made of that would be in every instance.
        findings.append(("connection", f"{where} is connected to before the snapshot", place))
    return findings


def _inspect_file(thing, findings, named):
    if thing.closed or thing.fileno() <= 2:
        return
    name = os.fsdecode(thing.name) if isinstance(thing.name, (str, bytes)) else repr(thing.name)
    path = os.path.abspath(name)
    named.add(thing.fileno())
    if (
        thing.mode == "rb"
        and path.startswith(("/app/", "/site/", "/usr/local/lib/"))
        and os.path.samestat(os.stat(path), os.fstat(thing.fileno()))
    ):
        _files.append((thing.fileno(), path, thing.tell()))
    else:
        named.add(path)
        findings.append(("open file", path, isopod_watch.opened_at(path)))


def _inspect_connection(thing, findings, named):
    try:
        rows = thing.execute("PRAGMA database_list").fetchall()
    except Exception:
        return  # closed
    paths = [row[2] for row in rows if row[2]]
    if paths:
        named.update(paths)
        findings.append(("sqlite connection", ", ".join(paths), isopod_watch.opened_at(paths[0])))


def _inspect_temporary(findings, named):
    """Small files in /tmp are the image's, and each instance gets its own; others are findings."""
    left = _MAX_TEMPORARY_BYTES
    for folder, folders, files in os.walk("/tmp"):
        _temporary.extend((os.path.join(folder, name), None) for name in folders)
        for name in files:
            path = os.path.join(folder, name)
            if path in named:
                continue
            left -= os.stat(path).st_size
            if left < 0 or len(_temporary) >= _MAX_TEMPORARY:
                findings.append(("temporary file", path, isopod_watch.opened_at(path)))
                return
            with open(path, "rb") as file:
                _temporary.append((path, file.read()))


def _held_in_app(things):
    """(name, "file:line") of the app's globals through which one of `things` is reached."""
    if not things:
        return []
    import types

    wanted = {id(thing) for thing in things}
    modules = [m for m in sys.modules.values() if isinstance(m, types.ModuleType)]
    fence = {id(vars(module)) for module in modules}
    held = []
    for module in modules:
        file = getattr(module, "__file__", None) or ""
        if not file.startswith("/app/"):
            continue
        for name, value in list(vars(module).items()):
            if not name.startswith("__") and _reaches(value, wanted, fence):
                held.append((f"{module.__name__}.{name}", _assigned_at(file, name)))
    return held


def _reaches(value, wanted, fence):
    import types

    seen, stack = set(), [value]
    while stack and len(seen) < 20_000:
        thing = stack.pop()
        if id(thing) in wanted:
            return True
        if id(thing) in seen or id(thing) in fence or isinstance(thing, types.ModuleType):
            continue
        seen.add(id(thing))
        stack.extend(gc.get_referents(thing))
    return False


def _assigned_at(file, name):
    """Where a module gives `name` its value."""
    import ast

    short = file.removeprefix("/app/")
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return short
    for node in ast.walk(tree):
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return f"{short}:{node.lineno}"
    return short


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


def _fill_holes():
    """Leave malloc no holes below the end of the heap.

    It would hand out those that the boot left, which lie all over the heap: each costs every
    instance a page of its own (a quarter of all that a first request of Flask writes). With them
    filled, what an instance allocates lies together, beginning with the arena that is made, and
    freed, here.
    """
    arena = bytes(_ARENA_BYTES)
    end = id(arena)
    size = _HOLE_BYTES
    while size > 0:
        plug = bytes(size)
        if id(plug) < end:
            _plugs.append(plug)
        else:
            # Nothing fits below: go on with smaller ones, in steps of malloc's alignment.
            size -= 16 if size <= 2048 else size // 16


def _named(entry):
    """The function of a hook given as "module:function"."""
    if not entry:
        return []
    import importlib

    module, _, name = entry.partition(":")
    return [getattr(importlib.import_module(module), name)]


# -- in each instance -----------------------------------------------------------------------


def restored():
    """The first thing in each instance that starts from the image."""
    config = json.loads(call(b"C"))
    os.environ.update(config["env"])
    os.environ.update(_set)
    for name in _removed:
        os.environ.pop(name, None)
    _reopen()
    unique.renew()
    for function in [*isopod_guest._after, *_named(config["after_restore"])]:
        function()


def _reopen():
    """Open the files of the image again under the numbers they had (WASI has no dup2)."""
    for path, content in _temporary:
        if content is None:
            os.mkdir(path, 0o700)
        else:
            with open(path, "wb") as file:
                file.write(content)
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
