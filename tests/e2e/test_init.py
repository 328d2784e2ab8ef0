"""`isopod init`: what it writes is deployed as it is, and answers."""

import json
import subprocess

import pytest
from tests.e2e.nodes import Failed, text

from tools.node import command


def init(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """No node is needed for it."""
    return subprocess.run(
        [*command(), "init", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("template", ["flask", "django", "starlette", "static"])
def test_a_template_is_deployed_as_it_is_and_answers(node, tmp_path, template):
    done = init("--template", template, str(tmp_path / "begun"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"isopod deploy {tmp_path / 'begun'}"
    node.cli("deploy", str(tmp_path / "begun"), "--name", f"begun-{template}", "--strict")
    assert "Hello from" in text(node, f"begun-{template}")


def test_the_templates_are_listed():
    listed = init("--list", "--json").stdout
    names = ["c", "django", "flask", "go", "hono", "ruby", "rust", "starlette", "static", "worker"]
    assert json.loads(listed) == [{"template": name} for name in names]


def test_nothing_is_written_over(node, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    failed = Failed(node, "init", "--template", "flask", str(tmp_path))
    assert (failed.status, failed.code) == (2, "usage")
    assert "is not empty: it holds 'mine.txt'" in failed.message
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
    failed = Failed(node, "init", "-t", "flask", str(tmp_path / "mine.txt"))
    assert "is not a folder" in failed.message


def test_a_template_that_is_not_there_is_refused_with_those_that_are(node, tmp_path):
    for arguments in (("--template", "cobol"), ()):
        failed = Failed(node, "init", *arguments, str(tmp_path / "x"))
        assert (
            failed.code == "usage"
            and "c, django, flask, go, hono, ruby, rust, starlette, static, worker" in failed.hint
        )
    assert not (tmp_path / "x").exists()


def test_each_django_app_has_a_key_of_its_own(tmp_path):
    for name in ("a", "b"):
        assert init("-t", "django", str(tmp_path / name)).returncode == 0
    one, other = ((tmp_path / name / "project/settings.py").read_text() for name in ("a", "b"))
    assert "@SECRET_KEY@" not in one and one != other
