"""Imports from folders that never change: what is in one is read once.

CPython's finder asks for a folder's time at each look, to see whether it changed. A guest pays half
a millisecond for that, and some libraries try to import what is not there at every request.
"""

import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)

# Nothing in them can be written by a guest.
_READ_ONLY = ("/app", "/site", "/isopod", "/usr")


class Finder(FileFinder):
    _names = None

    def invalidate_caches(self):
        self._names = None
        super().invalidate_caches()

    def find_spec(self, fullname, target=None):
        if self._names is None:
            self._names = {name.partition(".")[0] for name in os.listdir(self.path)}
        if fullname.rpartition(".")[2] not in self._names:
            return None
        return super().find_spec(fullname, target)


def install(volumes):
    """`volumes`: where they are mounted, which may be in one of these folders."""
    find = Finder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (SourceFileLoader, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )

    def hook(path):
        if not _within(path, _READ_ONLY) or _within(path, volumes):
            raise ImportError("a folder that may change", path=path)
        return find(path)

    sys.path_hooks.insert(0, hook)
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, FileFinder):
            del sys.path_importer_cache[path]


def _within(path, folders):
    path = os.path.normpath(path)
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
