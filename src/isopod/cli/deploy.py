"""`isopod deploy` and `isopod rollback`."""

from __future__ import annotations

import hashlib
import platform
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isopod.cli import env_file, learning, output, snapshot
from isopod.cli.options import AsJson, DataDir, InTenant, Name, connect
from isopod.errors import CapabilitiesNew, FolderNotFound, IsopodError, UsageError

if TYPE_CHECKING:
    from isopod.client import Client, Json
    from isopod.package.pack import Packed

# Left out of every package and no surprise to anybody: not worth a word.
_EXPECTED = frozenset({".git", ".hg", ".svn", "__pycache__", ".DS_Store"})


def register(cli: typer.Typer) -> None:
    cli.command(
        epilog="Examples:\n\nisopod deploy\n\n"
        "isopod deploy ./shop --name shop --env DEBUG=0\n\n"
        "isopod deploy --env-file settings.env --allow-new\n\n"
        "isopod deploy --learn --learn-s 120\n\n"
        "URL=$(isopod deploy)"
    )(deploy)
    cli.command(epilog="Examples:\n\nisopod rollback hello\n\nisopod rollback hello 3")(rollback)


def deploy(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The app's folder.")] = Path(),
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="N", help="The app; replaces its live version."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="K=V", help="An environment variable of the app."),
    ] = None,
    env_files: Annotated[
        list[Path] | None,
        typer.Option("--env-file", metavar="F", help="A file of NAME=value lines; --env wins."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail unless its snapshot is sound.")
    ] = False,
    allow_new: Annotated[
        bool,
        typer.Option("--allow-new", help="It may ask for more than the live version does."),
    ] = False,
    learn: Annotated[
        bool,
        typer.Option("--learn", help="Then say which [network] list it needs, from its use."),
    ] = False,
    learn_s: Annotated[
        float,
        typer.Option("--learn-s", metavar="S", min=1, max=900, help="How long it may, for that."),
    ] = 60.0,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Pack a folder, build it on the node and let it serve; prints its URL."""
    from isopod.model.ids import AppName

    variables = {
        name: value for path in env_files or () for name, value in env_file.read(path).items()
    }
    variables.update(_variables(env or []))
    if name is not None:
        AppName.parse(name)
    folder = path.expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise FolderNotFound(f"folder {str(path)!r} {what}", hint="name the folder of the app")
    folder = folder.resolve()
    began = time.monotonic()
    steps = output.Steps()
    with (
        connect(data_dir, tenant) as client,
        tempfile.TemporaryDirectory(prefix="isopod-") as scratch,
    ):
        client.health()  # before minutes of packing
        try:
            package = Path(scratch) / "package"
            result = _deploy(
                client,
                folder,
                package,
                name=name,
                env=variables,
                strict=strict,
                allow_new=allow_new,
                steps=steps,
            )
        except CapabilitiesNew as refused:
            steps.stop()
            _show_diff(refused.details)
            raise
        finally:
            steps.stop()
        seconds = time.monotonic() - began
        if not learn:
            _show(result, seconds, as_json=as_json)
            return
        if not as_json:
            _show(result, seconds, as_json=False)
        learned = learning.learn(client, result["app"], learn_s)
    if as_json:
        _show(result | {"learned": learned}, seconds, as_json=True)
    else:
        learning.show(learned)


def rollback(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", help="Its number; none: the one before.")
    ] = None,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Let an earlier version of an app serve."""
    with connect(data_dir, tenant) as client:
        done = client.rollback(name, version)
    if as_json:
        output.print_json(done)
    else:
        output.say(f"{done['app']} serves version {done['version']} at {done['url']}")


def _deploy(
    client: Client,
    folder: Path,
    package: Path,
    *,
    name: str | None,
    env: dict[str, str],
    strict: bool,
    allow_new: bool,
    steps: output.Steps,
) -> Json:
    _tell_left_out(folder)
    packed = _pack(folder, package, steps)
    _upload(client, packed, package, steps)
    result: Json | None = None
    lines = client.deploy(
        package=packed.digest,
        name=name,
        folder_name=folder.name,
        source=f"{_machine()}:{folder}",
        env=env,
        strict=strict,
        expected_name=None if name else _expected_name(folder),
        allow_new=allow_new,
    )
    for line in lines:
        if "step" in line:
            step = line["step"]
            if (step["name"], step["state"]) == ("snapshot", "done"):
                continue  # the result says more
            steps.show(step)
        elif "result" in line:
            result = line["result"]
    if result is None:
        raise IsopodError("the node ended the deploy without a result", hint="deploy again")
    return result


def _expected_name(folder: Path) -> str | None:
    """What the node will find in the package, as far as can be told from here; it looks itself."""
    from isopod import manifest
    from isopod.model.ids import AppName

    with suppress(IsopodError):
        return manifest.load(folder).name or AppName.of_folder(folder.name)
    return None


def _pack(folder: Path, package: Path, steps: output.Steps) -> Packed:
    from isopod.package.pack import pack

    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        if done % 100 == 0:
            steps.show(_step("pack", "progress", f"{done:,} of {total:,} files", began))

    packed = pack(folder, package, progress=progress)
    files = "1 file" if packed.files == 1 else f"{packed.files:,} files"
    text = f"{files}, {_size(packed.size)}, {packed.digest.short}"
    steps.show(_step("pack", "done", text, began))
    return packed


def _upload(client: Client, packed: Packed, package: Path, steps: output.Steps) -> None:
    began = time.monotonic()
    if client.has_package(packed.digest):
        steps.show(_step("upload", "done", "the node has it already", began))
        return

    def progress(sent: int, total: int) -> None:
        steps.show(_step("upload", "progress", f"{_size(sent)} of {_size(total)}", began))

    client.upload(packed.digest, package, progress=progress)
    steps.show(_step("upload", "done", _size(packed.size), began))


def _show(result: Json, seconds: float, *, as_json: bool) -> None:
    snapshot.note(result["snapshot"], result["warmup"])
    if as_json:
        output.print_json(result | {"seconds": round(seconds, 3)})
        return
    _show_diff(result["capabilities"])
    what = "was live already" if result["unchanged"] else "is live"
    output.note(f"{result['app']} version {result['version']} {what} ({seconds:.1f} s)")
    output.say(result["url"])


def _show_diff(diff: Json) -> None:
    """What the version asks for that the one before did not, and the reverse."""
    for sign, what in (("+", "added"), ("-", "removed")):
        for text in diff.get(what, ()):
            output.note(f"  {sign} {text}")


def _variables(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            # Not quoted: a lone text may be somebody's secret.
            raise UsageError("--env takes NAME=VALUE", hint="e.g. --env DEBUG=0")
        found[key] = value
    return found


def _tell_left_out(folder: Path) -> None:
    from isopod.package.ignore import ALWAYS_LEFT_OUT

    found = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name in ALWAYS_LEFT_OUT - _EXPECTED and not entry.name.endswith("_cache")
    )
    if found:
        also = "; --env-file .env gives its values" if ".env" in found else ""
        output.note(f"  left out by default: {', '.join(found)}{also}")


def _machine() -> str:
    """Tells this machine from others, without giving its machine id away."""
    try:
        known = Path("/etc/machine-id").read_text().strip()
    except OSError:
        known = ""
    known = known or f"{platform.node()}-{uuid.getnode()}"
    return hashlib.sha256(f"isopod source {known}".encode()).hexdigest()[:12]


def _step(name: str, state: str, text: str, began: float) -> dict[str, Any]:
    return {"name": name, "state": state, "text": text, "seconds": time.monotonic() - began}


def _size(size_bytes: int) -> str:
    if size_bytes < 2**20:
        return f"{size_bytes / 1024:.1f} KiB"
    return output.mib(size_bytes)
