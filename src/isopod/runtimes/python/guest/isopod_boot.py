"""The first code of ours in a guest: paths, streams, the app, then its server.

`main` never returns while the instance lives. What goes wrong before the app serves is told in
an R frame: kind, summary, traceback.
"""

import importlib
import os
import sys

import isopod_frames as frames
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


def main(entrypoint):
    streams.install()
    try:
        _paths()
        app = load(entrypoint)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        kind, summary, text = frames.failure(error)
        if isinstance(error, EntrypointError):
            kind, summary, text = error.kind, str(error), ""
        elif isinstance(error, SyntaxError):
            kind = "syntax"
        streams.flush()
        # A guest that lost its memory may not have enough for the whole text.
        frames.call(b"R" + f"{kind}\n{summary}\n{text}".encode("utf-8", "backslashreplace"))
        return
    streams.flush()
    import isopod_wsgi

    isopod_wsgi.serve(app)
