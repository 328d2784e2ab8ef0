import http.client
import json
import os
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest


def get(port: int, path: str = "/") -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


def gone(pid: int) -> bool:
    """Ended; a container without an init leaves it as a zombie."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def wait_gone(pids: list[int]) -> None:
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            import select

            assert select.select([fd], [], [], 10)[0], f"process {pid} goes on"
        finally:
            os.close(fd)
        assert gone(pid)


def test_what_it_listens_on_is_written_and_gone_after_an_orderly_stop(node):
    found = node.file
    assert set(found) >= {"gateway_port", "control_port", "pid", "version"}
    assert found["pid"] == node.process.pid
    assert get(found["gateway_port"]).isdigit()
    assert json.loads(get(found["control_port"], "/v1/health"))["ok"]
    children = node.children()
    assert len(children) == 4
    assert node.stop() == 0
    assert not (node.data_dir / "node.json").exists()
    wait_gone(children)


def test_a_killed_worker_is_replaced_and_the_port_never_closes(node):
    port = node.file["gateway_port"]
    victim = int(get(port))
    os.kill(victim, signal.SIGKILL)
    node.until("was killed by SIGKILL; starting it again")  # what it had accepted is lost with it
    for _ in range(50):  # the other worker, or the new one; never a refused connection
        assert get(port).isdigit()
    node.until("is ready again")
    assert len(node.children()) == 4


def test_a_killed_control_is_replaced_and_knows_everything(node, app):
    node.cli("deploy", str(app))
    control = node.children()[0]
    os.kill(control, signal.SIGKILL)
    node.until("control is ready again")
    assert json.loads(node.cli("apps", "--json").stdout)[0]["name"] == "hello"


def test_a_request_in_flight_is_answered_before_the_node_stops(start):
    node = start("--workers", "1")
    with socket.create_connection(("127.0.0.1", node.file["gateway_port"])) as client:
        client.sendall(b"GET /hold HTTP/1.1\r\n\r\n")
        head = client.recv(1000)
        assert b"200 OK" in head
        node.process.send_signal(signal.SIGTERM)
        node.until("Stopping")
        client.sendall(b"x")
        assert client.recv(1000) == b"held"
    assert node.wait() == 0


def test_a_second_ctrl_c_ends_everything_at_once(start):
    node = start("--workers", "1")
    children = node.children()
    with socket.create_connection(("127.0.0.1", node.file["gateway_port"])) as client:
        client.sendall(b"GET /hold HTTP/1.1\r\n\r\n")
        assert client.recv(1000)
        node.process.send_signal(signal.SIGINT)
        node.until("Stopping")
        node.process.send_signal(signal.SIGINT)
        node.until("Stopped at once")
        assert node.process.wait(60) == 130
    wait_gone(children)


def test_a_second_node_on_the_folder_or_the_port_is_refused(node, start, cli, tmp_path):
    second = cli("up", "--data-dir", str(node.data_dir), "--port", "0")
    assert second.returncode == 3
    assert "node_already_running" in second.stderr
    assert str(node.process.pid) in second.stderr
    port = str(node.file["gateway_port"])
    third = cli("up", "--data-dir", str(tmp_path / "other"), "--port", port)
    assert third.returncode == 3
    assert "port_in_use" in third.stderr
    assert port in third.stderr
    assert get(node.file["gateway_port"])  # the first one is not disturbed


def test_a_killed_supervisor_leaves_no_process_and_the_next_start_is_consistent(start, app):
    node = start()
    node.cli("deploy", str(app))
    port = node.file["gateway_port"]
    children = node.children()
    # In the middle of a deploy, too.
    import subprocess
    import sys

    deploy = subprocess.Popen(
        [sys.executable, "-m", "isopod.cli.main", "deploy", str(app), "--env", "MODE=hold"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=node.env | {"ISOPOD_DATA_DIR": str(node.data_dir)},
    )
    with deploy:
        for line in deploy.stderr:
            if "unpack" in line:
                break
        control = Path(f"/proc/{children[0]}/task")
        builders = [
            int(pid)
            for task in control.iterdir()
            for pid in (task / "children").read_text().split()
        ]
        assert builders
        node.process.kill()
        node.process.wait()
        wait_gone([*children, *builders])
        assert deploy.wait(60) == 3
        assert "error: " in deploy.stderr.read()
    (node.data_dir / "uploads" / "half").write_bytes(b"x")
    stale = node.cli("apps")
    assert "node_not_running" in stale.stderr  # and no token went to whoever has the port now
    again = start("--port", str(port))
    found = json.loads(again.cli("app", "hello", "--json").stdout)
    assert [v["number"] for v in found["versions"]] == [1]
    assert list((node.data_dir / "uploads").iterdir()) == []
    assert again.stop() == 0


def test_a_damaged_state_is_refused_by_name_and_nothing_serves(start, app):
    node = start()
    node.cli("deploy", str(app))
    assert node.stop() == 0
    path = node.data_dir / "state.db"
    with closing(sqlite3.connect(path)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'versions'").fetchone()
        size = db.execute("PRAGMA page_size").fetchone()[0]
    data = bytearray(path.read_bytes())
    start_at = (root[0] - 1) * size
    data[start_at : start_at + size] = b"\xee" * size
    path.write_bytes(data)
    again = start(ready=False)
    assert again.wait() == 3
    text = "".join(again.seen)
    assert "state_corrupt" in text
    assert str(path) in text
    assert f"Page {root[0]}" in text
    assert not (node.data_dir / "node.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_stopping_signal_stops_in_order(start, number):
    node = start("--workers", "1")
    node.process.send_signal(number)
    node.until("Stopped.")
    assert node.process.wait(60) == 0
