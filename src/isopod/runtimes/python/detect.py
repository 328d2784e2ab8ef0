"""Which object of a folder is its WSGI or ASGI application. Nothing of the app is imported for it:
which of the two it is shows when a guest has.

Order: isopod.toml's entrypoint; `app` or `application` in app.py, main.py, wsgi.py or asgi.py;
Django's wsgi.py, then its asgi.py. Each is looked for in the folder and then in its `src/`, as the
guest imports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from isopod.errors import (
    AppNotDetected,
    EntrypointNotCallable,
    EntrypointNotFound,
    IsopodError,
)
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim
from isopod.runtimes.python.sources import Definitions, Kind, definitions

_MODULES = ("app", "main", "wsgi", "asgi")
_OBJECTS = ("app", "application")
_SERVED: tuple[Kind, ...] = ("wsgi", "asgi")
_ROOTS = ("", "src")
_ENTRYPOINT = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_DJANGO_SETTINGS = re.compile(r"DJANGO_SETTINGS_MODULE['\"]\s*(?:,|\]\s*=)\s*['\"]([\w.]+)['\"]")
_HINT = (
    "name the object `app` or `application` in app.py, main.py or wsgi.py, or write "
    'isopod.toml with [app] entrypoint = "module:object"'
)
_FACTORY_HINT = "a factory is not called: write `app = {0}()` below it and name that object"


@dataclass
class _Looked:
    """What was seen on the way, for the message when nothing was found."""

    at: list[str] = field(default_factory=list)
    factories: list[str] = field(default_factory=list)


def detect(folder: Path, manifest: Manifest) -> str:
    """The entrypoint "pkg.module:object" of the app in `folder`.

    Raises `AppNotDetected`, `EntrypointNotFound`, `EntrypointNotCallable`, `AppSyntaxError`.
    """
    if manifest.entrypoint is not None:
        return _checked(folder, manifest.entrypoint)
    looked = _Looked()
    for module in _MODULES:
        found = _application_in(folder, module, looked)
        if found is not None:
            return found
    return _django(folder, looked) or _nothing(folder, looked)


def claim(folder: Path, manifest: Manifest) -> Claim:
    """MAYBE: an app of Python's with a mistake in it, which `detect` names."""
    try:
        detect(folder, manifest)
    except AppNotDetected:
        names = ("manage.py", *(f"{module}.py" for module in _MODULES))
        some = any((folder / root / name).is_file() for root in _ROOTS for name in names)
        return Claim.MAYBE if some else Claim.NO
    except IsopodError:
        return Claim.MAYBE
    return Claim.SURE


def module_file(folder: Path, module: str) -> Path | None:
    """The file that `import module` would load from the app's own folder."""
    for root in _ROOTS:
        base = folder / root / Path(*module.split("."))
        for path in (base / "__init__.py", base.with_name(base.name + ".py")):
            if path.is_file():
                return path
    return None


def _application_in(folder: Path, module: str, looked: _Looked) -> str | None:
    path = module_file(folder, module)
    if path is None:
        return None
    shown = path.relative_to(folder).as_posix()
    looked.at.append(shown)
    found = definitions(path, shown)
    for name in _OBJECTS:
        if found.kinds.get(name) in _SERVED:
            return f"{module}:{name}"
    looked.factories += [
        f"{module}:{name}" for name in found.of_kind("factory") if name.endswith(("_app", "_wsgi"))
    ]
    return None


# -- an entrypoint that was named -----------------------------------------------------------


def _checked(folder: Path, entrypoint: str) -> str:
    parsed = _ENTRYPOINT.fullmatch(entrypoint)
    if parsed is None:
        raise EntrypointNotFound(f"entrypoint {entrypoint!r} is not of the form 'module:object'")
    module, name = parsed[1], parsed[2].partition(".")[0]
    path = module_file(folder, module)
    if path is None:
        raise EntrypointNotFound(
            f"entrypoint {entrypoint!r}: there is no module {module!r} in the app's folder"
            + _but_there_is(candidates(folder)),
            details={"entrypoint": entrypoint, "candidates": candidates(folder)},
        )
    shown = path.relative_to(folder).as_posix()
    found = definitions(path, shown)
    kind = found.kinds.get(name)
    if kind is None and not found.open_ended and not _is_submodule(path, name):
        others = [f"{module}:{other}" for other in _likely(found)]
        raise EntrypointNotFound(
            f"entrypoint {entrypoint!r}: {shown!r} defines no {name!r}" + _but_there_is(others),
            details={"entrypoint": entrypoint, "candidates": others},
        )
    if "." in parsed[2]:
        return entrypoint  # an attribute: what it is shows when the guest imports it
    if kind == "factory":
        raise EntrypointNotCallable(
            f"entrypoint {entrypoint!r} takes no arguments, so it is no application",
            hint=_FACTORY_HINT.format(name),
        )
    return entrypoint


def _is_submodule(path: Path, name: str) -> bool:
    return path.name == "__init__.py" and (path.parent / f"{name}.py").is_file()


def _likely(found: Definitions) -> list[str]:
    """Names that could be meant, the most likely first."""
    served = [name for kind in _SERVED for name in found.of_kind(kind)]
    return sorted(served, key=lambda name: (name not in _OBJECTS, "app" not in name))[:8]


def candidates(folder: Path) -> list[str]:
    """Entrypoints that exist in the usual places."""
    looked = _Looked()
    found = []
    for module in (*_MODULES, *_server_modules(folder)):
        try:
            found.append(_application_in(folder, module, looked))
        except Exception:  # noqa: S112  a hint only: a broken file is another error's matter
            continue
    return sorted({one for one in found if one is not None})


def _but_there_is(names: list[str]) -> str:
    return f"; there is {', '.join(repr(name) for name in names)}" if names else ""


# -- Django ---------------------------------------------------------------------------------


def _django(folder: Path, looked: _Looked) -> str | None:
    for root in _ROOTS:
        manage = folder / root / "manage.py"
        if not manage.is_file():
            continue
        looked.at.append(manage.relative_to(folder).as_posix())
        settings = _DJANGO_SETTINGS.search(manage.read_text(errors="replace"))
        if settings:
            # "config.settings" and "config.settings.local" both have config/wsgi.py.
            package = re.split(r"\.settings\b", settings[1])[0].removesuffix(".settings")
            for name in _SERVED:
                found = _application_in(folder, f"{package}.{name}", looked)
                if found is not None:
                    return found
    for module in _server_modules(folder):
        found = _application_in(folder, module, looked)
        if found is not None:
            return found
    return None


def _server_modules(folder: Path) -> Iterator[str]:
    """Modules `pkg.wsgi` and `pkg.sub.wsgi` whose packages can be imported, the outer first; then
    those named `asgi`."""
    for pattern in ("*/wsgi.py", "*/*/wsgi.py", "*/asgi.py", "*/*/asgi.py"):
        for root in _ROOTS:
            for path in sorted((folder / root).glob(pattern)):
                parts = path.relative_to(folder / root).with_suffix("").parts
                if all(part.isidentifier() for part in parts) and parts[0] != "src":
                    yield ".".join(parts)


# -- nothing --------------------------------------------------------------------------------


def _nothing(folder: Path, looked: _Looked) -> str:
    details = {"looked_at": looked.at}
    if looked.factories:
        module, _, name = looked.factories[0].partition(":")
        raise AppNotDetected(
            f"there is no `app` or `application`, but a factory {looked.factories[0]!r}",
            hint=f"add `app = {name}()` at the end of module {module!r}",
            details=details,
        )
    where = (
        f"looked at {', '.join(looked.at)}"
        if looked.at
        else "there is no app.py, main.py, wsgi.py, asgi.py or Django project"
    )
    below = sorted(
        {
            p.parent.relative_to(folder).as_posix()
            for name in ("manage.py", *(f"{module}.py" for module in _MODULES))
            for p in folder.glob(f"*/{name}")
        }
        - {"src"}
    )
    hint = _HINT if looked.at else ""
    if below:
        hint = f"deploy the folder {below[0]!r} if the app is there"
    raise AppNotDetected(
        f"found no WSGI or ASGI application: {where}",
        hint=hint,
        details={**details, "below": below},
    )
