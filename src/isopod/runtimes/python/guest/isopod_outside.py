"""Stand-ins for what CPython for WASI lacks: sockets, TLS, key derivation, threads.

They take their modules' places when these are first imported, so that the standard library above
them stays as it is, and an app that needs none of them pays nothing.
"""

import sys

_STAND_INS = {
    "_socket": ("isopod_socket", "make_socket_module"),
    "select": ("isopod_socket", "make_select_module"),
    "_ssl": ("isopod_ssl", "make_module"),
    "_multiprocessing": ("isopod_loop", "make_multiprocessing_module"),
}
# What is done to a module once it is there.
_COMPLETED = {
    "hashlib": ("isopod_digests", "complete"),
    "asyncio": ("isopod_loop", "complete_asyncio"),
    "threading": ("isopod_loop", "complete_threads"),
    "concurrent.futures.thread": ("isopod_loop", "complete_executor"),
    "anyio._backends._asyncio": ("isopod_loop", "complete_anyio"),
    "asgiref.sync": ("isopod_loop", "complete_asgiref"),
}


class _Loader:
    def __init__(self, module, function):
        self._module = module
        self._function = function

    def create_module(self, spec):
        import importlib

        module = getattr(importlib.import_module(self._module), self._function)()
        module.__spec__ = spec
        return module

    def exec_module(self, module):
        pass


class _Completed:
    """A module's own loader, and then what it lacks."""

    def __init__(self, loader, module, function):
        self._loader = loader
        self._module = module
        self._function = function

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        import importlib

        self._loader.exec_module(module)
        getattr(importlib.import_module(self._module), self._function)(module)

    def __getattr__(self, name):
        return getattr(self._loader, name)


class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name in _STAND_INS:
            from importlib.machinery import ModuleSpec

            return ModuleSpec(name, _Loader(*_STAND_INS[name]), origin="isopod")
        completed = _COMPLETED.get(name)
        if completed is None:
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None and "isopod" not in str(spec.origin):
                        spec.loader = _Completed(spec.loader, *completed)
                    return spec
        return None


def install(volumes=()):
    """Before the app is imported. `volumes`: where they are mounted."""
    if volumes:
        import isopod_sqlite

        isopod_sqlite.use(volumes)
        _COMPLETED["sqlite3.dbapi2"] = ("isopod_sqlite", "complete")
    sys.meta_path.insert(0, _Finder())
    for name, (module, function) in _COMPLETED.items():
        if name in sys.modules:  # our own code, or the interpreter's, wanted it already
            import importlib

            getattr(importlib.import_module(module), function)(sys.modules[name])
