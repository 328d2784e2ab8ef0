"""The runtimes there are, and which of them a folder is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from isopod.errors import AppNotDetected, RuntimeNotFound
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim, Runtime

_HINT = "deploy the folder that holds the app; `isopod init --list` names small ones to begin with"


class Registry:
    """Makes each runtime when it is first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Runtime]]) -> None:
        self._makers = dict(sorted(makers.items()))
        self._made: dict[str, Runtime] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(self._makers)

    def get(self, name: str) -> Runtime:
        """Raises RuntimeNotFound."""
        if name not in self._makers:
            there_are = ", ".join(self._makers)
            raise RuntimeNotFound(f"there is no runtime {name!r}; there are: {there_are}")
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[Runtime]:
        return (self.get(name) for name in self._makers)

    def choose(self, folder: Path, manifest: Manifest) -> Runtime:
        """The runtime that the manifest names, else the one that is surest of the folder.

        Raises RuntimeNotFound, or AppNotDetected: nobody wants it, or more than one is sure.
        """
        if manifest.runtime is not None:
            return self.get(manifest.runtime)
        claims = [(one.claim(folder, manifest), one) for one in self]
        best = max((claim for claim, _ in claims), default=Claim.NO)
        chosen = [one for claim, one in claims if claim == best]
        if best is Claim.NO:
            raise self._nobody(folder, manifest)
        if best is Claim.SURE and len(chosen) > 1:
            names = [one.name for one in chosen]
            raise AppNotDetected(
                f"the folder holds an app for each of these runtimes: {', '.join(names)}",
                hint=f'write isopod.toml with [app] runtime = "{names[0]}"',
                details={"runtimes": names},
            )
        return chosen[0]

    def _nobody(self, folder: Path, manifest: Manifest) -> AppNotDetected:
        """What each of them misses."""
        said: list[AppNotDetected] = []
        for one in self:
            try:
                one.detect(folder, manifest)
            except AppNotDetected as error:
                said.append(error)
        details = {key: value for error in said for key, value in error.details.items()}
        return AppNotDetected(
            f"found no app in the folder: {'; '.join(error.message for error in said)}",
            hint=next((error.hint for error in said if error.hint), _HINT),
            details=details,
        )
