"""`isopod volumes`: folders that outlive instances, and copying them in and out."""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, InTenant, connect, subcommand_follows
from isopod.errors import ArchiveInvalid, UsageError
from isopod.model.volume import DEFAULT_SIZE_MIB

_volumes = typer.Typer(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
Volume = Annotated[str, typer.Argument(metavar="NAME", help="The volume's name.")]
Size = Annotated[int, typer.Option("--size", metavar="MIB", help="The most that it may hold.")]


def register(cli: typer.Typer) -> None:
    cli.add_typer(
        _volumes,
        name="volumes",
        help="List volumes, make, resize or delete one, copy files in and out.",
        epilog="Examples:\n\nisopod volumes --json\n\nisopod volumes create data --size 2048\n\n"
        "isopod volumes backup data data.tar",
    )


@_volumes.callback()
def volumes(
    context: typer.Context,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    if not subcommand_follows(context):
        list_volumes(as_json=as_json, tenant=tenant, data_dir=data_dir)


@_volumes.command("list", epilog="Example: isopod volumes list --json")
def list_volumes(
    as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """List the volumes of the tenant."""
    with connect(data_dir, tenant) as client:
        found = client.volumes()
    if as_json:
        output.print_json(found)
        return
    output.table(
        ("VOLUME", "SIZE", "USED", "APP", "MADE"),
        (
            (
                one["name"],
                f"{one['size_mib']} MiB",
                output.mib(one["used_bytes"]),
                one["app"] or "-",
                output.ago(one["created_at"]),
            )
            for one in found
        ),
        right=frozenset({"SIZE", "USED"}),
    )


@_volumes.command(epilog="Example: isopod volumes create data --size 2048")
def create(
    name: Volume,
    size: Size = DEFAULT_SIZE_MIB,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Make an empty volume; an app mounts it by [[volumes]] in its isopod.toml."""
    with connect(data_dir, tenant) as client:
        made = client.create_volume(name, size)
    if as_json:
        output.print_json(made)
    else:
        output.say(f"volume {name!r} is there, {size} MiB; mount it in isopod.toml:")
        output.say(f'[[volumes]]\nname = "{name}"\nmount = "/data"')


@_volumes.command(epilog="Example: isopod volumes resize data --size 4096")
def resize(
    name: Volume,
    size: Size,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Change how much a volume may hold; its app's next instance has it."""
    with connect(data_dir, tenant) as client:
        done = client.resize_volume(name, size)
    if as_json:
        output.print_json(done)
    else:
        output.say(
            f"volume {name!r} may hold {size} MiB; it holds {output.mib(done['used_bytes'])}"
        )


@_volumes.command(epilog="Example: isopod volumes delete data")
def delete(
    name: Volume, as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """Delete a volume that no app mounts, with all that it holds, for ever."""
    with connect(data_dir, tenant) as client:
        done = client.delete_volume(name)
    if as_json:
        output.print_json(done)
    else:
        output.say(f"volume {name!r} is deleted")


@_volumes.command(
    epilog="Examples:\n\nisopod volumes backup data data.tar\n\n"
    "isopod volumes backup data - | zstd > data.tar.zst"
)
def backup(
    name: Volume,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new tar archive; - for output.")],
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Copy all that a volume holds into a tar archive, SQLite databases each as one whole file.

    The app waits meanwhile.
    """
    if file == "-":
        with connect(data_dir, tenant) as client:
            client.read_volume(name, "", os.fdopen(os.dup(1), "wb"))
        return
    with _new_file(Path(file)) as out, connect(data_dir, tenant) as client:
        done = client.read_volume(name, "", out)
    _tell(done, f"in {file!r}", as_json=as_json)


@_volumes.command(epilog="Example: isopod volumes restore data data.tar")
def restore(
    name: Volume,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The tar archive.")],
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Put a backup in the place of all that a volume holds: whole, or nothing is changed."""
    if not file.exists() or file.is_dir():
        raise UsageError(f"there is no file {str(file)!r}")
    with file.open("rb") as archive, connect(data_dir, tenant) as client:
        done = client.fill_volume(name, archive, replace=True)
    _tell(done, "all that the volume holds now", as_json=as_json)


@_volumes.command(
    "copy-in",
    epilog="Examples:\n\nisopod volumes copy-in data db.sqlite3\n\n"
    "isopod volumes copy-in data ./uploads /uploads",
)
def copy_in(
    name: Volume,
    source: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="What to copy.")],
    target: Annotated[str, typer.Argument(metavar="FOLDER", help="Where, in the volume.")] = "/",
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Copy a file, or what is in a folder, into a folder of a volume, over what is there."""
    if not source.exists():
        raise UsageError(f"{str(source)!r} is not there")
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(source.iterdir()) if source.is_dir() else (source,):
                tar.add(path, arcname=path.name)
        archive.seek(0)
        with connect(data_dir, tenant) as client:
            done = client.fill_volume(name, archive, path=target)
    _tell(done, f"in {target!r} of the volume", as_json=as_json)


@_volumes.command(
    "copy-out",
    epilog="Examples:\n\nisopod volumes copy-out data /db.sqlite3 .\n\n"
    "isopod volumes copy-out data /uploads ./uploads",
)
def copy_out(
    name: Volume,
    source: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder in the volume.")],
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; made if need be.")],
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Copy a file, or what is in a folder of a volume, to a folder here; nothing is replaced."""
    with tempfile.TemporaryFile() as archive:
        with connect(data_dir, tenant) as client:
            done = client.read_volume(name, source, archive)
        archive.seek(0)
        target.mkdir(parents=True, exist_ok=True)
        _extract(archive, target)
    _tell(done, f"in {str(target)!r}", as_json=as_json)


def _extract(archive: BinaryIO, target: Path) -> None:
    """What a guest wrote must not lead out of `target`, nor replace what is there."""
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        for member in tar:
            if member.isreg() and (target / member.name).exists():
                raise UsageError(f"{str(target / member.name)!r} is there already")
            if member.issym():
                output.note(f"the link {member.name!r} to {member.linkname!r} is left out")
                continue
            try:
                safe = tarfile.data_filter(member, str(target))
            except tarfile.FilterError as error:
                raise ArchiveInvalid(f"the node sent a path that leads out: {error}") from None
            tar.extract(safe, target, filter="data")


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Whole or not there."""
    if path.exists():
        raise UsageError(f"{str(path)!r} is there already", hint="name another file")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {str(path.parent)!r}")
    part = path.with_name(f".{path.name}.{os.getpid()}-{int(time.time())}")
    try:
        with part.open("xb") as file:
            yield file
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _tell(done: dict[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(done)
        return
    databases = f", {done['databases']} of them databases" if done["databases"] else ""
    files = f"files: {done['files']}, {output.mib(done['bytes'])}{databases}"
    output.say(f"{files}; they are {what}")
    for path in done["raw"]:
        output.note(f"{path!r} looks like a database and SQLite cannot read it: copied as it is")
    for path in done["left_out"]:
        output.note(f"{path!r} is no file, folder or link: left out")
