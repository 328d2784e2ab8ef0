"""A language that comes from one folder alone: nothing of isopod's own names it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.nodes import Failed, folder, get, hello, text, up

from tools.node import Node

TOY = Path(__file__).with_name("toy_runtime")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data_dir = tmp_path_factory.mktemp("runtimes") / "data"
    with up(data_dir, extra_env={"PYTHONPATH": str(TOY)}) as node:
        yield node


def test_a_toy_runtime_is_listed_detected_built_and_serves(node, tmp_path):
    assert {one["name"] for one in node.json("runtimes")} == {
        *("go", "javascript", "python", "reactor", "ruby", "static", "toy", "wasi")
    }
    for one in node.json("runtimes"):
        assert len(one["digest"]) == 64 and len(one["module"]) in (0, 64), one
        assert one["version"] and one["licence"] and one["size_bytes"] >= 0, one
        assert isinstance(one["prepared"], bool), one
    app = folder(tmp_path / "hi", {"greeting.toy": "good morning\n"})
    node.cli("deploy", str(app), "--env", "WHO=Ada")
    assert text(node, "hi", "/x") == "GOOD MORNING /x Ada"
    shown = node.json("app", "hi")
    assert (shown["app"]["runtime"], shown["entrypoint"]) == ("toy", "greeting.toy")
    assert shown["app"]["instances"] == 1 and shown["app"]["cold_starts"] == 1
    assert "hi" in {one["app"] for one in node.json("status")["instance_list"]}


def test_its_own_mistakes_are_told_as_its_own(node, tmp_path):
    failed = Failed(node, "deploy", str(folder(tmp_path / "mute", {"greeting.toy": " "})))
    assert (failed.code, failed.message) == ("app_syntax_error", "greeting.toy: says nothing")


def test_other_languages_serve_beside_it(node, tmp_path):
    node.cli("deploy", str(hello(tmp_path / "beside")))
    assert get(node, "beside").text == "hello"


def test_a_folder_for_two_languages_has_to_say_which(node, tmp_path):
    both = hello(tmp_path / "both")
    (both / "greeting.toy").write_text("hi")
    failed = Failed(node, "deploy", str(both))
    assert failed.code == "app_not_detected" and "python, toy" in failed.message
    (both / "isopod.toml").write_text('[app]\nruntime = "toy"\n')
    node.cli("deploy", str(both))
    assert text(node, "both").startswith("HI")


def test_a_folder_for_no_language_hears_from_each(node, tmp_path):
    failed = Failed(node, "deploy", str(folder(tmp_path / "none", {"README": "x"})))
    for what in (
        "no WSGI or ASGI",
        "no JavaScript module",
        "no index.html",
        "no greeting.toy",
        "no WebAssembly",
    ):
        assert what in failed.message
    failed = Failed(
        node, "deploy", str(folder(tmp_path / "odd", {"isopod.toml": '[app]\nruntime = "cobol"'}))
    )
    assert (
        failed.code == "runtime_not_found"
        and "go, javascript, python, reactor, ruby, static, toy, wasi" in failed.message
    )
