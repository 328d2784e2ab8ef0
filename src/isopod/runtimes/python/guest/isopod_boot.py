"""The first code of ours in a guest: paths, streams, the app, then its server.

`main` returns when the host ends its requests; its memory can then become an image, and an
instance restored from that continues with `resume`. What goes wrong before the app serves is told
in an R frame: kind, summary, traceback.
"""

import importlib
import os
import sys

import isopod_frames as frames
import isopod_outside
import isopod_streams as streams


class EntrypointError(Exception):
    """kind: "not_found" or "not_callable"."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def _paths():
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


_app = None


def main(entrypoint, watch=None):
    """Boot the app and serve it. `watch`: names of settings; this boot becomes an image."""
    global _app
    streams.install()
    isopod_outside.install()
    try:
        if watch is not None:
            import isopod_watch

            isopod_watch.start(watch)
        _paths()
        _app = load(entrypoint)
        if watch is not None:
            isopod_watch.booted()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        _fail(error)
        return
    streams.flush()
    import isopod_wsgi

    isopod_wsgi.serve(_app)


def resume():
    """Serve the app of the image that this instance was restored from."""
    import isopod_snapshot
    import isopod_wsgi

    try:
        isopod_snapshot.restored()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        _fail(error)
        return
    isopod_wsgi.serve(_app)


def _fail(error):
    kind, summary, text = frames.failure(error)
    if isinstance(error, EntrypointError):
        kind, summary, text = error.kind, str(error), ""
    elif isinstance(error, SyntaxError):
        kind = "syntax"
    streams.flush()
    frames.call(b"R" + f"{kind}\n{summary}\n{text}".encode("utf-8", "backslashreplace"))
