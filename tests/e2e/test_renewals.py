"""Snapshots that no longer fit, or that a disk damaged: plain boots serve, new ones are made."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.e2e.nodes import copied, folder, messages, text, until, up

from isopod.control.former import FormerSnapshots
from isopod.model.ids import Digest
from isopod.state.database import open_state
from tools.node import Node

# Answers with the time of its import: instances that were restored from one image agree.
APP = """
import time
IMPORTED = str(time.time_ns())
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [IMPORTED.encode()]
"""


def image_of(node: Node, app: str) -> str:
    return str(json.loads(node.cli("app", app, "--json"))["snapshot"]["image"])


def rebuilt(node: Node) -> tuple[int, int, int]:
    made = json.loads(node.cli("status", "--json"))["snapshots"]
    return made["rebuilt"], made["total"], made["failed"]


def restores(node: Node, app: str) -> bool:
    """Whether two new instances of it have one memory."""
    said = set()
    for _ in range(2):
        node.cli("sleep", app)
        said.add(text(node, app))
    return len(said) == 1


@dataclass(frozen=True)
class Before:
    """A stopped node whose "app", from `folder`, has an image, and what that says."""

    data_dir: Path
    folder: Path
    image: str
    said: str


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    base = tmp_path_factory.mktemp("before")
    app = folder(base / "app", {"app.py": APP})
    with up(base / "data") as node:
        node.cli("deploy", str(app), "--name", "app")
        assert restores(node, "app")
        return Before(base / "data", app, image_of(node, "app"), text(node, "app"))


def test_after_an_upgrade_plain_boots_serve_until_the_snapshots_are_back(data_dir, before):
    copied(before.data_dir, data_dir)
    with up(data_dir) as node:
        node.cli("deploy", str(before.folder), "--name", "twin")
        assert restores(node, "app")
    state = open_state(data_dir / "state.db")
    for tenant, version in state.node.live():  # as an isopod with another runtime took them
        taken = replace(version.snapshot, runtime=Digest("0" * 64))
        assert state.of(tenant).versions.set_snapshot(version, taken)
    state.close()
    with up(data_dir) as node:
        assert text(node, "app")  # at once
        until("both are rebuilt", lambda: rebuilt(node) == (2, 2, 0))
        assert "2 of 2 rebuilt" in node.cli("status")
        assert "control: snapshots  2 of 2 rebuilt" in node.said
        assert image_of(node, "app") == image_of(node, "twin") != ""
        assert restores(node, "app") and restores(node, "twin")
    with up(data_dir) as node:  # nothing is left to do
        assert restores(node, "app")
        assert rebuilt(node) == (0, 0, 0)


def test_going_back_to_an_engine_takes_its_images_back_and_builds_nothing(data_dir, before):
    copied(before.data_dir, data_dir)
    state, former = open_state(data_dir / "state.db"), FormerSnapshots(data_dir / "former")
    for tenant, version in state.node.live():  # another engine ran meanwhile, and made its own
        former.keep(tenant, version)
        other = replace(version.snapshot, runtime=Digest("0" * 64), image=Digest("1" * 64))
        assert state.of(tenant).versions.set_snapshot(version, other)
    state.close()
    with up(data_dir) as node:
        until("it is back", lambda: rebuilt(node) == (1, 1, 0))
        assert "1 taken back from when this engine ran before" in node.said
        assert "to be rebuilt" not in node.said
        assert image_of(node, "app") == before.image
        node.cli("sleep", "app")
        assert text(node, "app") == before.said  # restored: it was not imported again


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted"])
def test_an_image_that_is_damaged_under_a_running_node_is_taken_anew(data_dir, before, damage):
    image = before.image
    with up(copied(before.data_dir, data_dir)) as node:
        shutil.rmtree(data_dir / "images" / image)  # so the blob is needed
        blob = data_dir / "blobs" / image[:2] / image
        whole = blob.read_bytes()
        if damage == "deleted":
            blob.unlink()
        elif damage == "truncated":
            blob.write_bytes(whole[:1000])
        else:
            blob.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
        assert text(node, "app")  # by plain boot
        until("it is rebuilt", lambda: rebuilt(node) == (1, 1, 0))
        assert restores(node, "app")
        log = messages(node, "app")
        assert "starting without it" in log
        print(f"SEEN {damage}: {log}")
