"""While an app boots for an image: who read which setting, who opened what.

The values of settings are planted then, each with one marker in it, so that a value that the app
kept can be told in its memory. An audit hook cannot be taken back; after `stop` it returns at once.
"""

import os
import sys

_watching = False
_opened = {}  # path -> "file:line" of the app's code that opened it
_read = {}  # name of a setting -> "file:line" that read it first
_names = frozenset()
_getitem = None


def start(names):
    """`names` of the settings to watch."""
    global _watching, _names, _getitem
    _watching, _names = True, frozenset(names)
    sys.addaudithook(_hook)
    _getitem = type(os.environ).__getitem__

    def getitem(environ, key):
        if key in _names and key not in _read:
            place = _place()
            if place:
                _read[key] = place
        return _getitem(environ, key)

    type(os.environ).__getitem__ = getitem


def stop():
    global _watching
    if _watching:
        _watching = False
        type(os.environ).__getitem__ = _getitem


def opened_at(path):
    return _opened.get(path, "")


def read_at():
    return dict(_read)


def _hook(event, arguments):
    if not _watching or event not in ("open", "sqlite3.connect"):
        return
    path = arguments[0]
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and len(_opened) < 1000:
        place = _place()
        if place:
            _opened[os.path.abspath(path)] = place


def _place():
    """The innermost frame that is the app's, else a dependency's; not an import of a module."""
    frame, fallback = sys._getframe(2), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("/app/"):
            return f"{name[5:]}:{frame.f_lineno}"
        if name.startswith("/site/") and not fallback:
            fallback = f"{name[6:]}:{frame.f_lineno}"
        if name.startswith("<frozen importlib"):
            return fallback
        frame = frame.f_back
    return fallback
