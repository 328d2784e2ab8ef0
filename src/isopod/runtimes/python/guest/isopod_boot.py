"""The first code of ours in a guest: paths, streams, the app, then its server.

`main` returns when the host ends its requests; its memory can then become an image, and an
instance restored from that continues with `resume`. What goes wrong before the app serves is told
in an R frame: kind, summary, traceback.
"""

import importlib
import os
import sys

import isopod_finder
import isopod_frames as frames
import isopod_outside
import isopod_streams as streams


class EntrypointError(Exception):
    """kind: "not_found" or "not_callable"."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def paths(volumes=()):
    isopod_finder.install(volumes)
    sys.path[:0] = ["/app", "/app/src", "/site"]
    # Site initialisation is off in this runtime; .pth files of dependencies still count.
    try:
        if any(name.endswith(".pth") for name in os.listdir("/site")):
            import site

            site.addsitedir("/site")
    except OSError:
        pass
    os.chdir("/app")


def load(entrypoint):
    module_name, _, attribute = entrypoint.partition(":")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parts = module_name.split(".")
        if error.name in {".".join(parts[: i + 1]) for i in range(len(parts))}:
            raise EntrypointError("not_found", f"no module named {error.name!r}") from None
        raise
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise EntrypointError(
                "not_found", f"module {module_name!r} has no {attribute!r}"
            ) from None
    if not callable(found):
        raise EntrypointError(
            "not_callable", f"{entrypoint!r} is a {type(found).__name__}, which cannot be called"
        )
    return found


_CO_COROUTINE = 0x80  # inspect's; to import that takes longer than all of this
_app = None
_server = None  # the module that serves it


def main(entrypoint, watch=None, lifespan=True, volumes=()):
    """Boot the app and serve it. `watch`: names of settings; this boot becomes an image.
    `lifespan`: whether an ASGI app is told to start before; it is in each restored instance.
    `volumes`: where they are mounted."""
    global _app, _server
    streams.install()
    isopod_outside.install(volumes)
    try:
        if watch is not None:
            import isopod_watch

            isopod_watch.start(watch)
        paths(volumes)
        _app = load(entrypoint)
        _server = _server_of(_app)
        if watch is not None:
            isopod_watch.booted(_server)
        if lifespan:
            _server.start()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        _fail(error)
        return
    streams.flush()
    _server.serve()
    _server.stop()


def _server_of(app):
    """The module that serves it; a WSGI app loads nothing of the other."""
    if is_asgi(app):
        import isopod_asgi as server
    else:
        import isopod_wsgi as server
    server.boot(app)
    return server


def is_asgi(app):
    """Whether it is called with (scope, receive, send), as far as can be told without a call."""
    while hasattr(app, "func") and hasattr(app, "keywords"):  # functools.partial
        app = app.func
    if isinstance(app, type):
        return False
    function = app if hasattr(app, "__code__") else getattr(app, "__func__", type(app).__call__)
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    names = code.co_varnames[: code.co_argcount]
    return bool(code.co_flags & _CO_COROUTINE) or names[-3:-2] == ("scope",)


def resume():
    """Serve the app of the image that this instance was restored from."""
    import isopod_snapshot

    try:
        isopod_snapshot.restored()
        _server.start()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        _fail(error)
        return
    _server.serve()


def _fail(error):
    kind, summary, text = frames.failure(error)
    if isinstance(error, EntrypointError):
        kind, summary, text = error.kind, str(error), ""
    elif isinstance(error, SyntaxError):
        kind = "syntax"
    streams.flush()
    frames.call(b"R" + f"{kind}\n{summary}\n{text}".encode("utf-8", "backslashreplace"))
