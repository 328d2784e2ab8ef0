"""Files that the gateway serves beside an app of any language: [static] "/path" = "folder".

They are made as a site's are, all folders as one, and kept in one folder of the app's tree, so that
they live and are verified with it. The app keeps its own copies: Django reads the list of its
static files, others open a template there. There are no redirects and no page for what is missing:
the app answers that.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from isopod.errors import AppNotDetected, ManifestInvalid, PackageTooLarge, PackageUnsafe
from isopod.package import PackageLimits
from isopod.runtimes.static import building, header_rules, redirects
from isopod.runtimes.static.header_rules import HeaderRule
from isopod.runtimes.static.index import Index
from isopod.runtimes.static.patterns import Pattern

FOLDER = ".isopod-static"


def check(folder: Path, paths: Mapping[str, str]) -> None:
    """Raises AppNotDetected, ManifestInvalid or PackageUnsafe for what cannot be served; early,
    before anything is installed."""
    for path, name in paths.items():
        source = folder / name
        if not source.is_dir():
            raise AppNotDetected(
                f"[static] {path!r}: there is no folder {name!r}",
                hint="files that .gitignore lists are not deployed; see .isopodignore",
                details={"looked_at": [name]},
            )
        if source.resolve() != folder.resolve() / name:
            raise PackageUnsafe(f"the folder {name!r} is reached by a symbolic link")
        if (source / redirects.FILE_NAME).exists():
            raise ManifestInvalid(
                f"{name}/{redirects.FILE_NAME}: redirects are of static sites; beside an app, the "
                "app answers them",
                hint="remove the file",
            )
    if paths and (folder / FOLDER).exists():
        raise PackageUnsafe(f"the package holds {FOLDER!r}, which isopod makes", hint="rename it")


def build(folder: Path, paths: Mapping[str, str], made: Path, *, now: int) -> str:
    """Make the new folder `made` of what `check` passed; `folder` stays as it is. What was made,
    for people. Raises PackageUnsafe, PackageTooLarge, ManifestInvalid."""
    sources: dict[str, Path] = {}
    headers: list[HeaderRule] = []
    left_out = 0
    # Where two have a file of the same path, the longer path's is served.
    for path, name in sorted(paths.items(), key=lambda one: len(one[0])):
        source, prefix = folder / name, path.rstrip("/")
        for rule in header_rules.parse(
            building.read_rules(source / header_rules.FILE_NAME), shown=f"{name}/"
        ):
            below = Pattern.parse(f"{prefix}{rule.pattern.text}")
            headers.append(HeaderRule(below, rule.headers))
        served, others = building.served_files(source)
        left_out += others
        sources |= {f"{prefix}/{one}".lstrip("/"): source / one for one in served}
    _check_together(sources)
    files = building.make_files(sources, made, take=shutil.copyfile)
    index = Index(files=files, built_at=now, headers=tuple(headers))
    building.write_index(index, made)
    return building.Site(index, left_out).text()


def _check_together(sources: Mapping[str, Path]) -> None:
    """One folder may be served at several paths: then it counts as often."""
    both = _both_file_and_folder(sources)
    if both:
        raise ManifestInvalid(
            f"[static] {f'/{both}'!r} is a file of one folder, and another is served below it"
        )
    limits = PackageLimits()
    size = sum(source.stat().st_size for source in sources.values())
    if len(sources) > limits.max_files or size > limits.max_mib << 20:
        raise PackageTooLarge(
            f"[static] serves {len(sources):,} files of {size / (1 << 20):,.1f} MiB, of at most "
            f"{limits.max_files:,} files and {limits.max_mib} MiB"
        )


def _both_file_and_folder(paths: Iterable[str]) -> str:
    known = set(paths)
    for path in sorted(known):
        for parent in PurePosixPath(path).parents:
            if str(parent) in known:
                return str(parent)
    return ""
