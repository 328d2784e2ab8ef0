"""What a Python file defines at its top level, found without importing it.

The host's Python may be older than the guest's: a file that only the newer one can parse is read
by pattern instead, and only what is surely a mistake in every version becomes an error here.
"""

from __future__ import annotations

import ast
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isopod.errors import AppSyntaxError

_MAX_FILE_BYTES = 4 << 20
# wsgi: may be an app, of either kind. asgi: is one surely. other: a constant, a module...
Kind = Literal["wsgi", "asgi", "factory", "other"]

_ASGI_MAKERS = frozenset({"fastapi", "starlette", "quart", "litestar", "blacksheep", "sanic"})
_ASGI_CALLS = frozenset({"get_asgi_application"})
# Syntax of 3.12 to 3.15 that an older parser rejects (PEPs 695, 696, 701, 750, 758, 798, 810...).
_NEWER_SYNTAX = re.compile(
    r"""^\s*type\s+\w+[\s\[=] | ^\s*(async\s+)?def\s+\w+\s*\[ | ^\s*class\s+\w+\s*\[
      | ^\s*except\*?\s+[^(:\n]*, | \b[tT][rR]?["'] | \b[rR][tT]["'] | ^\s*lazy\s+(import|from)\b
      | [\[({]\s*\*\*?[^)\]}]*\bfor\b | \b(f|F|fr|rf|fR|Rf|rF|FR|Fr)["']""",
    re.MULTILINE | re.VERBOSE,
)
_TOP_LEVEL = re.compile(
    r"^(?:(?P<assigned>\w+)\s*(?::[^=\n]+)?=(?!=)|(?:async\s+)?def\s+(?P<function>\w+)|"
    r"class\s+(?P<class>\w+)|(?:lazy\s+)?from\s+\S+\s+import\s+(?P<imported>.+))",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Definitions:
    """The names that a file binds at its top level; the last binding of a name counts."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    open_ended: bool = False  # `from x import *` or `__getattr__`: there may be more names

    def of_kind(self, *kinds: Kind) -> list[str]:
        return [name for name, kind in self.kinds.items() if kind in kinds]


def definitions(path: Path, shown: str) -> Definitions:
    """What `path` defines. Raises `AppSyntaxError` naming it as `shown`."""
    with path.open("rb") as file:
        data = file.read(_MAX_FILE_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes are the app's business
            tree = ast.parse(data, filename=shown)
        return _from_tree(tree)
    except SyntaxError as error:
        text = data.decode("utf-8", "replace")
        if _NEWER_SYNTAX.search(text):
            return _from_text(text)
        raise syntax_error(error, shown) from error
    except (ValueError, RecursionError, MemoryError):
        # A NUL byte, or nested deeper than this parser goes: the guest's own will judge.
        return _from_text(data.decode("utf-8", "replace"))


def syntax_error(error: SyntaxError, shown: str) -> AppSyntaxError:
    """Our error, with the lines that Python shows in a traceback."""
    error.filename = shown
    at = f"{shown}, line {error.lineno}" if error.lineno else shown
    return AppSyntaxError(
        f"{at}: {error.msg}",
        hint="fix it; `python -m py_compile FILE` shows the same",
        details={
            "file": shown,
            "line": error.lineno or 0,
            "text": (error.text or "").rstrip("\n"),
            "traceback": "".join(traceback.format_exception_only(error)),
        },
    )


# -- from the syntax tree -------------------------------------------------------------------


def _from_tree(tree: ast.Module) -> Definitions:
    found: dict[str, Kind] = {}
    origins: dict[str, str] = {}  # imported name -> the top package it came from
    open_ended = False
    for node in _top_level(tree.body):
        for name, kind in _bound(node, origins, found):
            found.pop(name, None)
            found[name] = kind
        if isinstance(node, ast.ImportFrom):
            open_ended |= any(alias.name == "*" for alias in node.names)
        elif isinstance(node, ast.FunctionDef):
            open_ended |= node.name == "__getattr__"
    return Definitions(found, open_ended)


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, also those under `if` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.TryStar):
            if isinstance(node, ast.If) and _is_main_guard(node.test):
                yield from _top_level(node.orelse)
                continue
            yield from _top_level(node.body)
            yield from _top_level(getattr(node, "orelse", []))
            yield from _top_level(getattr(node, "finalbody", []))
            for handler in getattr(node, "handlers", []):
                yield from _top_level(handler.body)
        elif isinstance(node, ast.Match):
            for case in node.cases:
                yield from _top_level(case.body)


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and "__main__" in ast.dump(test)


def _bound(
    node: ast.stmt, origins: dict[str, str], known: dict[str, Kind]
) -> Iterator[tuple[str, Kind]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            for name in _names(target):
                single = isinstance(target, ast.Name)
                yield name, _kind_of(node.value, origins, known) if single else "wsgi"
    elif isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
        yield node.target.id, _kind_of(node.value, origins, known)
    elif isinstance(node, ast.AsyncFunctionDef):
        yield node.name, "asgi" if len(node.args.args) == 3 else "other"
    elif isinstance(node, ast.FunctionDef):
        yield node.name, _kind_of_function(node)
    elif isinstance(node, ast.ClassDef):
        yield node.name, "wsgi"
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            name = alias.asname or alias.name
            origins[name] = (node.module or "").partition(".")[0]
            yield name, "other" if alias.name == "*" else "wsgi"
    elif isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            origins[name] = alias.name.partition(".")[0]
            yield name, "other"
    elif isinstance(node, ast.With):
        for item in node.items:
            if item.optional_vars is not None:
                for name in _names(item.optional_vars):
                    yield name, "wsgi"


def _names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Tuple | ast.List):
        for item in target.elts:
            yield from _names(item)
    elif isinstance(target, ast.Starred):
        yield from _names(target.value)


def _kind_of(value: ast.expr, origins: dict[str, str], known: dict[str, Kind]) -> Kind:
    if isinstance(value, ast.Constant | ast.Dict | ast.List | ast.Tuple | ast.Set | ast.JoinedStr):
        return "other"
    if isinstance(value, ast.Name):
        return known.get(value.id, "wsgi")
    if isinstance(value, ast.Call):
        function = value.func
        last = function.attr if isinstance(function, ast.Attribute) else ""
        while isinstance(function, ast.Attribute):
            function = function.value
        if isinstance(function, ast.Name):
            name = last or function.id
            if name in _ASGI_CALLS:
                return "asgi"
            # `FastAPI()`, `fastapi.FastAPI()`; not `a2wsgi.ASGIMiddleware(app)`.
            if origins.get(function.id) in _ASGI_MAKERS and name[:1].isupper():
                return "asgi"
    return "wsgi"


def _kind_of_function(node: ast.FunctionDef) -> Kind:
    given = node.args
    positional = len(given.posonlyargs) + len(given.args)
    required = positional - len(given.defaults)
    # WSGI calls with two positional arguments.
    takes_two = required <= 2 and (positional >= 2 or given.vararg is not None)
    missing = any(default is None for default in given.kw_defaults)
    if (takes_two and not missing) or node.decorator_list:
        return "wsgi"
    return "factory" if required == 0 and not missing else "other"


# -- from the text --------------------------------------------------------------------------


def _from_text(text: str) -> Definitions:
    found: dict[str, Kind] = {}
    for match in _TOP_LEVEL.finditer(text):
        if match["imported"]:
            for part in re.split(r"[,()]", match["imported"].partition("#")[0]):
                words = part.split()
                if words:
                    found[words[-1]] = "wsgi"
        else:
            found[match["assigned"] or match["function"] or match["class"]] = "wsgi"
    return Definitions(found, open_ended=True)
