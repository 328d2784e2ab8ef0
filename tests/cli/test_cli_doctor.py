"""`isopod doctor`, as an operator runs it."""

import json


def test_a_secret_that_others_may_read_ends_with_status_1_and_says_what_to_do(cli, tmp_path):
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    token = folder / "token"
    token.write_text("hush-hush\n")
    token.chmod(0o644)
    done = cli("doctor", "--data-dir", str(folder), "--cache-dir", str(tmp_path / "cache"))
    assert done.returncode == 1 and done.stderr == ""
    assert f"PROBLEM  token: {token} has mode 644: others may use it" in done.stdout
    assert f"-> chmod 600 {token}" in done.stdout
    assert "hush-hush" not in done.stdout


def test_the_status_is_that_of_the_gravest_finding(cli, tmp_path):
    done = cli("doctor", "--json", "--data-dir", str(tmp_path / "none"))
    found = json.loads(done.stdout)
    statuses = {check["status"] for check in found["checks"]}
    assert found["status"] == next(s for s in ("problem", "warning", "ok") if s in statuses)
    assert done.returncode == (1 if found["status"] == "problem" else 0)
    assert not (tmp_path / "none").exists()


def test_a_wrong_settings_file_is_the_callers_fault(cli, tmp_path):
    path = tmp_path / "isopod-node.toml"
    path.write_text("[node]\nworkers = 0\n")
    for command in ("doctor", "up"):
        done = cli(command, "--config", str(path))
        assert done.returncode == 2
        assert f"error: {path}, line 2: [node] workers is wrong: workers 0 is not" in done.stderr
