"""While an app boots for an image: who read which setting, who opened what, who drew entropy.

The values of settings are planted then, each with one marker in it, so that a value that the app
kept can be told in its memory. An audit hook cannot be taken back; after `stop` it returns at once.
"""

import os
import sys
import time

_watching = False
_turn = 0  # 0: the import; then the number of the warm-up request
_opened = {}  # path -> "file:line" of the app's code that opened it
_read = {}  # name of a setting -> "file:line" that read it first
_names = frozenset()
_getitem = None
_initial = {}  # the environment before the app
_reached = {}  # where the app tried to connect to, or what it looked up -> "file:line"
_drawn = []  # (entropy, "file:line", turn)
_flush = None
_server = None  # the module that serves the app
_began = 0.0  # the wall clock's
_at_start = frozenset()  # descriptors
MAX_DRAWN = 2000


class _Urandom:
    """In the place of os.urandom while an app boots. Not a function: in a class, it would become a
    method."""

    def __init__(self, real):
        self._real = real

    def __call__(self, size, /):
        data = self._real(size)
        if _watching and len(_drawn) < MAX_DRAWN:
            _drawn.append((data[:4096], _place(), _turn))
        return data


def start(names):
    """`names` of the settings to watch."""
    global _watching, _names, _getitem, _began, _at_start
    _watching, _names = True, frozenset(names)
    _initial.update(os.environ)
    _began = time.time()
    _at_start = frozenset(descriptors())
    sys.addaudithook(_hook)
    _getitem = type(os.environ).__getitem__

    def getitem(environ, key):
        name = os.fsdecode(key) if isinstance(key, bytes) else key
        if name in _names and not _read.get(name):
            _read[name] = _place(through_imports=True)
        return _getitem(environ, key)

    type(os.environ).__getitem__ = getitem
    os.urandom = _Urandom(os.urandom)
    random = sys.modules.get("random")
    if random:
        random._urandom = os.urandom


def booted(server):
    """What follows are the requests of the warm-up, each of which ends with `server.flush`."""
    global _turn, _flush, _server
    _turn, _flush, _server = 1, server.flush, server

    def flush():
        global _turn
        _turn += 1
        _flush()

    server.flush = flush


def stop():
    global _watching
    if _watching:
        _watching = False
        if _flush:
            _server.flush = _flush
        type(os.environ).__getitem__ = _getitem
        os.urandom = os.urandom._real
        random = sys.modules.get("random")
        if random:
            random._urandom = os.urandom


def opened_at(path):
    return _opened.get(path, "")


def read_at():
    return dict(_read)


def take_drawn():
    """The entropy, and no memory of it here."""
    drawn = list(_drawn)
    _drawn.clear()
    return drawn


def began():
    return _began


def environment_changes():
    """What the app itself set, and the names that it removed. After `stop`."""
    changed = {k: v for k, v in os.environ.items() if _initial.get(k) != v}
    removed = [name for name in _initial if name not in os.environ]
    _initial.clear()
    return changed, removed


def descriptors():
    """Those that are open, without the standard ones."""
    found = []
    for number in range(3, 256):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def new_descriptors():
    """(number, path, "file:line") of what was opened since `start` and is open."""
    found = []
    for number in descriptors():
        if number in _at_start:
            continue
        there = os.fstat(number)
        for path, place in _opened.items():
            try:
                same = os.path.samestat(os.stat(path), there)
            except OSError:
                continue
            if same:
                found.append((number, path, place))
                break
        else:
            found.append((number, f"descriptor {number}", ""))
    return found


def reached():
    return dict(_reached)


def _hook(event, arguments):
    if not _watching:
        return
    if event == "socket.connect":
        _reach(arguments[1])
    elif event == "socket.getaddrinfo":
        _reach(arguments[:2])
    elif event in ("open", "sqlite3.connect"):
        _note_opened(arguments)


def _reach(where):
    # The guest's own name says nothing of the world.
    if isinstance(where, tuple) and where[0] not in (None, "", "isopod") and len(_reached) < 100:
        host, port = where[:2]
        _reached.setdefault(f"{host}:{port}" if port else str(host), _place(through_imports=True))


def _note_opened(arguments):
    path = arguments[0]
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and len(_opened) < 1000:
        place = _place()
        if place:
            _opened[os.path.abspath(path)] = place


def _place(through_imports=False):
    """The innermost frame that is the app's, else a dependency's; not an import of a module, unless
    `through_imports`."""
    frame, fallback = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("/app/"):
            return f"{name[5:]}:{frame.f_lineno}"
        if name.startswith("/site/") and not fallback:
            fallback = f"{name[6:]}:{frame.f_lineno}"
        if name.startswith("<frozen importlib") and not through_imports:
            return fallback
        frame = frame.f_back
    return fallback
