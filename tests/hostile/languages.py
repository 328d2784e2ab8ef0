"""One node with an attacker's app for each language, and a neighbour's, who is another tenant."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.nodes import had, messages, text, until, up
from tests.hostile.battlefield import NEXT_DOOR, Battlefield, deploy_neighbour

from isopod import runtimes
from isopod.errors import RuntimePrepareFailed
from tools.http_calls import Answer, Caller

_ATTACKERS = Path(__file__).parent / "attackers"
_COMPILED_S = 300
# Those that no node prepares by itself; before it starts.
_PREPARED = {"Go": "go", "JavaScript": "javascript", "Ruby": "ruby"}


def across(tried: str, got: str, *languages: str) -> Callable[[Any], Any]:
    """A test that an attack gets the same in each of these languages: a row of docs/hostile.md."""

    def mark(test: Any) -> Any:
        each = pytest.mark.parametrize("attacker", languages, indirect=True)
        return pytest.mark.attack(tried, got, languages)(each(test))

    return mark


class Attackers:
    """Deploys each when it is first asked for."""

    def __init__(self, field: Battlefield, folder: Path, missing: dict[str, str]) -> None:
        self.field = field
        self._folder = folder
        self._missing = missing
        self._deployed: dict[str, Attacker] = {}
        self._failed: dict[str, str] = {}

    def get(self, language: str) -> Attacker:
        if language in self._missing:
            pytest.skip(self._missing[language])
        if language in self._failed:  # a build takes minutes: not once more for each test
            pytest.fail(f"the attacker in {language} was not deployed: {self._failed[language]}")
        if language not in self._deployed:
            source = _ATTACKERS / language.lower()
            app = shutil.copytree(source, self._folder / language.lower())
            if language == "C":
                _compile(app)
            made = Attacker(self.field, f"attacker-{language.lower()}", app)
            try:
                made.deploy()
            except (RuntimeError, AssertionError) as error:
                self._failed[language] = str(error)
                raise
            self._deployed[language] = made
        return self._deployed[language]


def _compile(app: Path) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O1", "-s"]
    command.append(f"-I{_ATTACKERS.parents[2] / 'sdk' / 'c'}")
    subprocess.run([*command, "-o", "attacker.wasm", "attacker.c"], cwd=app, check=True)


class Attacker:
    """An attacker's app: `/X` has it attack in the way X, `/` answers "fine"."""

    def __init__(self, field: Battlefield, name: str, folder: Path) -> None:
        self.field, self.node, self.name, self.folder = field, field.node, name, folder

    def deploy(self, *options: str) -> None:
        self.node.cli("deploy", str(self.folder), "--name", self.name, "--env", "MINE=1", *options)
        # Its deadline is short, and its machine code or its image may still be on their way: of a
        # program in Go that takes a minute and more beside other work.
        until("it serves", lambda: self.run("").status == 200, within_s=_COMPILED_S)

    def run(self, path: str) -> Answer:

        def sent() -> Answer:
            with Caller(self.node.gateway_port, self.name) as caller:
                return caller.call(f"/{path}")

        return had(sent)

    def ask(self, path: str) -> Any:
        answer = self.run(path)
        assert answer.status == 200, (answer.status, answer.text)
        return answer.json()

    def assert_serves(self) -> None:
        """What it did was the end of an instance at most."""
        assert self.run("").text == "fine"

    def log(self) -> str:
        return messages(self.node, self.name)

    def sleep(self) -> None:
        self.node.sleep(self.name)
        until("its end", lambda: not self.instances())

    def instances(self) -> list[dict[str, Any]]:
        return [one for one in self.node.instances() if one["app"] == self.name]


def _prepare(cache_dir: Path) -> dict[str, str]:
    """Those that this machine lacks something for, and what."""
    missing = {}
    for language, name in _PREPARED.items():
        try:
            runtimes.prepare(name, cache_dir, lambda *_: None)
        except RuntimePrepareFailed as error:
            missing[language] = error.message
    return missing


@contextlib.contextmanager
def opened(path: Path, cache_dir: Path) -> Iterator[Attackers]:
    missing = _prepare(cache_dir)
    with up(path / "data", workers=1) as node:
        deploy_neighbour(node, path)
        assert text(node, "neighbour") == "fine"
        field = Battlefield(node)
        yield Attackers(field, path, missing)
        assert "starting it again" not in node.said
        lines = node.cli("logs", "neighbour", "--json", *NEXT_DOOR).splitlines()
        said = {json.loads(line)["message"] for line in lines}
        assert not {line for line in said if "flood" in line or "forged" in line}
