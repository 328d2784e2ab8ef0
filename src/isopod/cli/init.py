"""`isopod init`: a small working app, to begin with. Needs no node."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from isopod.cli import output
from isopod.cli.options import AsJson
from isopod.errors import UsageError

_SECRET = "@SECRET_KEY@"  # noqa: S105  where a new one is written


def register(cli: typer.Typer) -> None:
    cli.command(
        epilog="Examples:\n\nisopod init --template flask shop\n\n"
        "isopod init --template static\n\nisopod init --list"
    )(init)


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A new or empty folder.")] = Path(),
    template: Annotated[
        str, typer.Option("--template", "-t", metavar="T", help="What to write; see --list.")
    ] = "",
    list_them: Annotated[bool, typer.Option("--list", help="List the templates.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a small working app into an empty folder."""
    found = templates()
    if list_them:
        if as_json:
            output.print_json([{"template": name} for name in sorted(found)])
        else:
            output.table(("TEMPLATE",), ((name,) for name in sorted(found)))
        return
    names = ", ".join(sorted(found))
    if template not in found:
        why = f"there is no template {template!r}" if template else "say which template"
        raise UsageError(why, hint=f"--template takes one of {names}")
    folder = path.expanduser()
    written = write(found[template], folder)
    if as_json:
        output.print_json({"template": template, "folder": str(folder), "files": written})
        return
    for name in written:
        output.note(f"  {name}")
    where = "" if folder == Path() else f" {folder}"
    output.say(f"isopod deploy{where}")


def templates() -> dict[str, Path]:
    """Every runtime's, by name: the folders below its `templates`."""
    from isopod import runtimes

    return {
        folder.name: folder
        for base in runtimes.__path__
        for folder in sorted(Path(base).glob("*/templates/*/"))
        if folder.is_dir() and folder.name != "__pycache__"
    }


def write(template: Path, folder: Path) -> list[str]:
    """The files written, sorted. Nothing is written over."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is not a folder", hint="name a new or empty folder")
    if folder.is_dir() and (there := sorted(one.name for one in folder.iterdir())):
        raise UsageError(
            f"folder {str(folder)!r} is not empty: it holds {there[0]!r}",
            hint="name a new or empty folder",
        )
    written = []
    for source in sorted(template.rglob("*")):
        if not source.is_file() or "__pycache__" in source.parts:
            continue
        name = source.relative_to(template)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text().replace(_SECRET, secrets.token_urlsafe(48))
        with target.open("x") as out:
            out.write(text)
        written.append(name.as_posix())
    return written
