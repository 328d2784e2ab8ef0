import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
import typer

from isopod.cli.main import cli as cli_itself


def said(result, status: int, *texts: str) -> str:
    assert result.returncode == status, result.stderr
    for text in texts:
        assert text in result.stderr
    return result.stderr


def test_a_deploy_prints_its_url_alone_on_standard_output_and_the_steps_beside_it(node, app):
    done = node.cli("deploy", str(app))
    port = node.file["gateway_port"]
    assert done.stdout == f"http://hello.localhost:{port}/\n"
    said(done, 0, "pack", "upload", "unpack", "publish", "version 1 is live")
    again = node.cli("deploy", str(app), "--json")
    result = json.loads(again.stdout)
    assert (result["unchanged"], result["version"]) == (True, 1)
    assert "has it already" in again.stderr


def test_listings_are_tables_for_people_and_json_alone_for_programs(node, app):
    assert node.cli("apps").stdout == ""
    node.cli("deploy", str(app), "--env", "API_KEY=hunter2")
    assert node.cli("apps").stdout.split()[:2] == ["NAME", "URL"]
    for command in (
        ("apps",),
        ("app", "hello"),
        ("status",),
        ("runtimes",),
        ("open", "hello"),
        ("sleep", "hello"),
        ("version",),
        ("delete", "hello", "--yes"),
    ):
        found = node.cli(*command, "--json")
        assert found.returncode == 0, found.stderr
        json.loads(found.stdout)
        assert "hunter2" not in found.stdout + found.stderr


def test_a_failed_build_shows_the_guests_traceback_and_exits_1(node, app):
    failed = node.cli("deploy", str(app), "--env", "MODE=fail")
    shown = said(failed, 1, "boom", "error: no", "whose: app  code: app_syntax_error")
    assert shown.index("boom") < shown.index("error:")


def test_a_killed_builder_is_the_nodes_fault_and_exits_3(node, app):
    node.cli("deploy", str(app))
    said(node.cli("deploy", str(app), "--env", "MODE=die"), 3, "SIGKILL", "previous version")
    assert json.loads(node.cli("app", "hello", "--json").stdout)["app"]["version"] == 1


def test_rollback_says_what_serves(node, app):
    node.cli("deploy", str(app))
    node.cli("deploy", str(app), "--env", "MORE=1")
    assert "serves version 1" in node.cli("rollback", "hello").stdout
    assert "serves version 2" in node.cli("rollback", "hello", "2").stdout
    said(node.cli("rollback", "hello", "7"), 2, "no version 7", "isopod app NAME")


def test_what_is_left_out_of_a_package_is_told(node, app):
    (app / ".env").write_text("SECRET=hunter2")
    (app / "__pycache__").mkdir()
    shown = said(node.cli("deploy", str(app)), 0, "left out by default: .env")
    assert "__pycache__" not in shown
    assert "hunter2" not in shown


def test_delete_asks_and_without_a_terminal_needs_yes(node, app):
    node.cli("deploy", str(app))
    said(node.cli("delete", "hello", stdin="y\n"), 2, "cannot be undone", "--yes")
    assert node.cli("delete", "hello", "--yes").stdout == "app 'hello' is deleted\n"
    said(node.cli("delete", "hello", "--yes"), 2, "app_not_found")


def test_logs_are_shown_filtered_and_as_json(node, app):
    node.cli("deploy", str(app))
    log = node.data_dir / "logs" / "hello.jsonl"
    lines = [
        {"at": at, "app": "hello", "stream": "stderr", "message": text}
        for at, text in ((time.time() - 3600, "old"), (4e9, "new"))
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line[-3:] for line in node.cli("logs", "hello").stdout.splitlines()] == ["old", "new"]
    found = node.cli("logs", "hello", "--since", "10m", "--json").stdout.splitlines()
    assert [json.loads(line)["message"] for line in found] == ["new"]
    said(node.cli("logs", "hello", "--since", "soon"), 2, "'soon'", "10m")


def test_following_a_log_shows_lines_as_they_come_and_ctrl_c_exits_130(node, app):
    node.cli("deploy", str(app))
    log = node.data_dir / "logs" / "hello.jsonl"

    def append(text: str) -> None:
        with log.open("a") as file:
            line = {"at": time.time(), "stream": "stdout", "message": text}
            file.write(json.dumps(line) + "\n")

    append("one")
    with node.running("logs", "hello", "-f") as follower:
        assert follower.stdout.readline().endswith("one\n")
        append("two")
        assert follower.stdout.readline().endswith("two\n")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 130
        assert follower.stderr.read() == ""


def test_ctrl_c_in_a_deploy_ends_its_build_and_the_next_may_start(node, app):
    with node.running("deploy", str(app), "--env", "MODE=hold") as deploy:
        for line in deploy.stderr:
            if "unpack" in line:
                break
        said(node.cli("deploy", str(app)), 2, "deploy_in_progress", "under way")
        deploy.send_signal(signal.SIGINT)
        assert deploy.wait(60) == 130
    while "deploy_in_progress" in (again := node.cli("deploy", str(app))).stderr:
        pass  # the node has not noticed yet
    assert again.returncode == 0, again.stderr


def test_a_reader_that_has_enough_is_no_error(node, app):
    node.cli("deploy", str(app))
    lines = json.dumps({"at": time.time(), "stream": "stdout", "message": "x" * 1000}) + "\n"
    (node.data_dir / "logs" / "hello.jsonl").write_text(lines * 5000)
    command = f"{sys.executable} -m isopod.cli.main logs hello --limit 5000 | head -1"
    env = node.env | {"ISOPOD_DATA_DIR": str(node.data_dir)}
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_connections_that_ask_nothing_and_followed_logs_do_not_stop_the_api(node, app):
    node.cli("deploy", str(app))
    line = json.dumps({"at": time.time(), "message": "one"}) + "\n"
    (node.data_dir / "logs" / "hello.jsonl").write_text(line)
    port, token = node.file["control_port"], (node.data_dir / "token").read_text().strip()
    request = (
        f"GET /v1/apps/hello/logs?follow=true HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()
    with ExitStack() as held:

        def connect(sent: bytes) -> socket.socket:
            found = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            found.sendall(sent)
            return found

        for _ in range(200):  # more than the server's own bound was
            connect(request[:20])
        followers = [connect(request) for _ in range(17)]
        statuses = sorted(one.recv(12)[-3:] for one in followers)
        assert statuses == [b"200"] * 16 + [b"429"]
        assert node.cli("apps", "--json").returncode == 0


def test_login_checks_the_token_and_keeps_it_private(node, cli, tmp_path):
    url = f"http://127.0.0.1:{node.file['control_port']}"
    token = (node.data_dir / "token").read_text()
    kept = tmp_path / ".config" / "isopod" / "login.json"
    said(cli("login", url, "--token-stdin", stdin="wrong\n"), 2, "unauthorized")
    said(cli("login", url), 2, "--token-stdin")
    assert not kept.exists()
    done = cli("login", url, "--token-stdin", stdin=token)
    assert done.returncode == 0, done.stderr
    assert kept.stat().st_mode & 0o777 == 0o600
    assert token.strip() not in done.stdout + done.stderr
    assert cli("apps", "--json").stdout == "[]\n"
    # A folder that was named wins over the login.
    said(cli("apps", "--data-dir", str(tmp_path / "none")), 3, "node_not_running")


def test_url_and_token_from_the_environment_find_a_node(node, cli):
    url = f"127.0.0.1:{node.file['control_port']}"
    token = (node.data_dir / "token").read_text().strip()
    assert cli("apps", "--json", ISOPOD_URL=url, ISOPOD_TOKEN=token).stdout == "[]\n"
    said(cli("apps", ISOPOD_URL=url, ISOPOD_TOKEN="x"), 2, "isopod login")
    gateway = f"127.0.0.1:{node.file['gateway_port']}"
    said(cli("apps", ISOPOD_URL=gateway, ISOPOD_TOKEN=token), 3, "in a way no isopod node does")


@pytest.mark.parametrize(
    ("args", "status", "texts"),
    [
        (("apps",), 3, ("node_not_running", "isopod up")),
        (("deploy", "/no/such/folder"), 2, ("folder_not_found", "'/no/such/folder'")),
        (("deploy", "/etc/hostname"), 2, ("is not a folder",)),
        (("deploy", "--name", "Not_A_Label", "/"), 2, ("name_invalid",)),
        (("deploy", "--env", "hunter2", "/"), 2, ("NAME=VALUE",)),
        (("volumes", "restore", "data", "/no/such/file"), 2, ("'/no/such/file'",)),
        (("volumes", "restore", "data", "/etc"), 2, ("'/etc'",)),
        (("volumes", "backup", "data", "/no/such/file"), 2, ("'/no/such'",)),
        (("volumes", "backup", "data", "/etc/hostname"), 2, ("is there already",)),
        (("volumes", "copy-in", "data", "/etc/hostname/x"), 2, ("usage", "'/etc/hostname/x'")),
        (("deploi",), 2, ("deploy",)),
        (("apps", "--nope"), 2, ("--nope", "isopod apps --help")),
        (("app",), 2, ("NAME",)),
        (("rollback", "a", "b"), 2, ("usage",)),
        (("login", "ftp://x", "--token-stdin"), 2, ("usage",)),
        (("tenants", "set", "acme"), 2, ("usage", "nothing to set")),
        (("tenants", "create", "acme", "--quota", "cats"), 2, ("usage", "NAME=NUMBER")),
        (("tenants", "create", "acme", "--quota", "apps=-1"), 2, ("usage", "NAME=NUMBER")),
        (
            ("tokens", "create", "--member", "a", "--scope", "read", "--expires", "soon"),
            2,
            ("usage", "30d"),
        ),
        (("tenants", "--json", "frob"), 2, ("usage", "frob")),
        (("usage", "--tenant", "bb", "key"), 2, ("usage", "--tenant", "'key'", "no such option")),
        (("usage", "--csv", "statement", "--month", "2026-11"), 2, ("usage", "--csv")),
        (("usage", "--app", "a", "verify", "f", "--key", "k"), 2, ("usage", "--app", "'verify'")),
        (("tokens", "revoke", "ip_0123_secret"), 2, ("usage", "the token itself")),
        (("up", "--workers", "0"), 2, ("workers",)),
        (("up", "--data-dir", "/proc/x"), 3, ("data_dir_unusable", "/proc/x")),
    ],
)
def test_each_mistake_is_told_with_its_code_and_exit_status(cli, args, status, texts):
    result = cli(*args, stdin="token\n")
    shown = said(result, status, "error: ", "whose: ", "code: ", *texts)
    assert result.stdout == ""
    assert "Traceback" not in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("group", "command"),
    [
        ("members", ("remove", "alice")),
        ("members", ("add", "alice")),
        ("members", ("list",)),
        ("tokens", ("list",)),
        ("tokens", ("create", "--member", "a", "--scope", "read")),
        ("tokens", ("revoke", "0123456789abcdef")),
        ("tenants", ("list",)),
        ("tenants", ("show", "acme")),
        ("tenants", ("create", "acme")),
        ("tenants", ("delete", "acme", "--yes")),
        ("runtimes", ("prepare", "python")),
        ("usage", ("key",)),
        ("usage", ("statement", "--month", "2026-11")),
    ],
)
def test_a_node_named_before_a_subcommand_is_the_one_that_is_asked(cli, tmp_path, group, command):
    named, other = str(tmp_path / "named"), str(tmp_path / "other")
    done = cli(group, "--data-dir", named, *command, ISOPOD_DATA_DIR=other)
    said(done, 3, "node_not_running", named)


def test_a_tenant_named_before_a_subcommand_is_the_one_that_changes(node):
    for tenant in ("aa", "bb"):
        assert node.cli("tenants", "create", tenant).returncode == 0
        for name in ("alice", "bob"):
            assert node.cli("members", "--tenant", tenant, "add", name).returncode == 0
    assert node.cli("members", "--tenant", "bb", "remove", "alice").returncode == 0
    # What stands later wins, as it does for an option that is given twice.
    assert node.cli("members", "--tenant", "aa", "remove", "bob", "--tenant", "bb").returncode == 0
    made = node.cli(
        "tokens", "--json", "--tenant", "aa", "create", "--member=alice", "--scope=read"
    )
    token = json.loads(made.stdout)["id"]
    assert node.cli("tokens", "--tenant", "bb", "revoke", token).returncode == 2

    def listed(noun: str, tenant: str) -> list[dict]:
        return json.loads(node.cli(noun, "--json", "--tenant", tenant, "list").stdout)

    assert [one["name"] for one in listed("members", "aa")] == ["alice", "bob"]
    assert listed("members", "bb") == listed("members", "default") == []
    assert [one["revoked_at"] for one in listed("tokens", "aa")] == [None]


def test_a_node_that_is_not_there_is_told(cli):
    said(cli("apps", ISOPOD_URL="http://127.0.0.1:1", ISOPOD_TOKEN="x"), 3, "node_unreachable")


def commands(command, path=()):
    """Every command of the command line with its words, groups too."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


def test_every_command_has_an_example_and_all_but_a_few_print_json():
    without_json = set()
    for path, command in commands(typer.main.get_command(cli_itself)):
        assert "isopod " in (command.epilog or ""), path
        if "--json" not in {name for option in command.params for name in option.opts}:
            without_json.add(" ".join(path))
    # What runs until it is stopped, what asks for a token, and groups that are no commands.
    assert without_json == {"", "up", "login", "secrets", "jobs"}


def test_help_shows_an_example(cli):
    shown = cli("deploy", "--help")
    assert shown.returncode == 0
    assert "isopod deploy ./shop" in shown.stdout


def test_a_command_that_asks_no_node_is_quick_to_load(env):
    code = (
        "import sys\nfrom isopod.cli.main import run\nrun(['version'])\n"
        "print('httpx' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert ran.stdout.endswith("\nFalse\n")


def test_commands_do_not_load_what_only_the_server_needs(env):
    code = (
        "import sys\nfrom isopod.cli import main\n"
        "main.run(['apps', '--data-dir', '/nowhere'])\n"
        "heavy = {'sqlalchemy', 'alembic', 'fastapi', 'granian', 'wasmtime', 'starlette'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert ran.stdout == "[]\n"
