"""Bad input to `isopod deploy`: each error by its code, and the old version serves on."""

from __future__ import annotations

import os

import pytest
from tests.e2e.nodes import HELLO, Failed, folder, hello, text

from tools.node import Node

# They take half a minute to be given up, while these tests go on.
pytestmark = pytest.mark.usefixtures("slow_clients")
GOOD = HELLO % "new"
BROKEN = {
    "a syntax error": (
        {"app.py": "def app(environ, start_response)\n    return []\n"},
        ("app_syntax_error", 1, "app.py", "line 1"),
    ),
    "an exception at import": (
        {"app.py": 'raise ValueError("no settings")\n' + GOOD},
        ("app_failed_to_start", 1, "ValueError: no settings", "Traceback (most recent call last)"),
    ),
    "an import that is not there": (
        {"app.py": "import flask\n" + GOOD},
        ("app_failed_to_start", 1, "No module named 'flask'", "app.py"),
    ),
    "an exit at import": (
        {"app.py": "import os\nos._exit(3)\n" + GOOD},
        ("app_failed_to_start", 1, "", ""),
    ),
    "no module of that name": (
        {"app.py": GOOD, "isopod.toml": '[app]\nentrypoint = "missing:app"\n'},
        ("entrypoint_not_found", 1, "'missing'", ""),
    ),
    "no object of that name": (
        {"app.py": GOOD, "isopod.toml": '[app]\nentrypoint = "app:missing"\n'},
        ("entrypoint_not_found", 1, "missing", ""),
    ),
    "an object that is not callable": (
        {"app.py": "app = 7\n", "isopod.toml": '[app]\nentrypoint = "app:app"\n'},
        ("entrypoint_not_callable", 1, "int", ""),
    ),
    "health that is 500": (
        {"app.py": GOOD.replace("200 OK", "500 Oh")},
        ("health_failed", 1, "500", ""),
    ),
    "health that raises": (
        {"app.py": GOOD + '\ndef app(environ, start_response):\n    raise KeyError("health")\n'},
        ("health_failed", 1, "", "KeyError: 'health'"),
    ),
    "nothing to be found": (
        {"tool.py": "x = 1\n"},
        ("app_not_detected", 1, "", ""),
    ),
    "a manifest with an unknown key": (
        {"app.py": GOOD, "isopod.toml": "[scaling]\nidle_s = 1\nmax = 3\n"},
        ("manifest_invalid", 2, "max", "line 3"),
    ),
    "a manifest that is no TOML": (
        {"app.py": GOOD, "isopod.toml": "[app\n"},
        ("manifest_invalid", 2, "isopod.toml", ""),
    ),
    "a dependency that does not exist": (
        {"app.py": GOOD, "requirements.txt": "isopod-e2e-no-such-distribution\n"},
        ("dependency_not_found", 1, "isopod-e2e-no-such-distribution", ""),
    ),
    "a version that does not exist": (
        {"app.py": GOOD, "requirements.txt": "flask==99.0\n"},
        ("dependency_not_found", 1, "flask", ""),
    ),
    "dependencies that conflict": (
        {"app.py": GOOD, "requirements.txt": "flask==3.1.0\nwerkzeug<2\n"},
        ("dependency_conflict", 1, "werkzeug<2", "flask==3.1.0 depends on werkzeug>=3.1"),
    ),
    "native dependencies": (
        {"app.py": GOOD, "requirements.txt": "flask\npsycopg2-binary\nuvloop\n"},
        ("dependency_native_only", 1, "psycopg2-binary", "uvloop"),
    ),
    "a line that is no requirement": (
        {"app.py": GOOD, "requirements.txt": "flask ===> 3\n"},
        ("dependency_invalid", 1, "requirements.txt", ""),
    ),
}


@pytest.fixture(scope="module")
def old(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    node.cli("deploy", str(hello(tmp_path_factory.mktemp("old"), "old")), "--name", "guarded")
    return "guarded"


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_app_is_refused_and_the_old_version_serves_on(node, old, tmp_path, what):
    files, (code, status, message, shown) = BROKEN[what]
    failed = Failed(node, "deploy", str(folder(tmp_path / "app", files)), "--name", old)
    assert (failed.code, failed.status) == (code, status), failed.err
    assert message in failed.message, failed.message
    assert shown in failed.err, failed.err
    assert failed.out == ""
    assert text(node, old) == "old"
    assert [one["number"] for one in node.json("app", old)["versions"]] == [1]


def test_native_dependencies_are_reported_together_with_what_to_do(node, tmp_path):
    files, _ = BROKEN["native dependencies"]
    failed = Failed(node, "deploy", str(folder(tmp_path / "app", files)), "--name", "native")
    assert "psycopg2-binary" in failed.message and "uvloop" in failed.message
    assert failed.hint
    print(f"SEEN hint: {failed.hint}")


def test_no_such_folder_a_file_and_an_empty_folder(node, tmp_path):
    assert Failed(node, "deploy", str(tmp_path / "nowhere")).code == "folder_not_found"
    (tmp_path / "file").write_text("x")
    assert Failed(node, "deploy", str(tmp_path / "file")).code == "folder_not_found"
    (tmp_path / "empty").mkdir()
    assert Failed(node, "deploy", str(tmp_path / "empty")).code == "folder_empty"
    ignored = folder(tmp_path / "ignored", {"app.py": GOOD, ".isopodignore": "*\n"})
    assert Failed(node, "deploy", str(ignored)).code == "folder_empty"


def test_a_symlink_out_of_the_folder_is_refused_by_name(node, tmp_path):
    made = hello(tmp_path / "app")
    (made / "secret").symlink_to("/etc/passwd")
    failed = Failed(node, "deploy", str(made))
    assert failed.code == "package_unsafe" and "'secret'" in failed.message


def test_a_folder_of_too_many_files_is_refused_before_it_is_sent(node, tmp_path):
    made = hello(tmp_path / "app")
    (made / "many").mkdir()
    for number in range(20_001):
        os.close(os.open(made / "many" / str(number), os.O_CREAT))
    failed = Failed(node, "deploy", str(made))
    assert failed.code == "package_too_large" and ".isopodignore" in failed.hint


@pytest.mark.parametrize(
    "name", ["a" * 64, "Upper", "under_score", "-edge", "edge-", "two.labels", "", "ümlaut", "a b"]
)
def test_a_name_that_is_no_dns_label_is_refused(node, tmp_path, name):
    failed = Failed(node, "deploy", str(hello(tmp_path / "app")), f"--name={name}")
    assert (failed.code, failed.status) == ("name_invalid", 2), failed.err


def test_a_name_nobody_chose_does_not_replace_another_app(node, tmp_path):
    first, second = hello(tmp_path / "a" / "taken", "first"), hello(tmp_path / "b" / "taken")
    node.cli("deploy", str(first))
    failed = Failed(node, "deploy", str(second))
    assert failed.code == "name_taken" and str(first) in failed.message
    assert "--name" in failed.hint
    assert text(node, "taken") == "first"
    node.cli("deploy", str(hello(first, "first again")))  # from where it came
    assert text(node, "taken") == "first again"
    node.cli("deploy", str(second), "--name", "taken")  # as the hint says
    assert text(node, "taken") == "hello"


def test_variables_that_are_none_are_refused_without_showing_them(node, tmp_path):
    for wrong in ("JUSTASECRET", "=secret", "1A=secret"):
        failed = Failed(node, "deploy", str(hello(tmp_path / "app")), "--env", wrong)
        assert failed.code == "usage"
        assert "secret" not in failed.err.lower()
