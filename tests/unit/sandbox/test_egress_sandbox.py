"""The process that connects, tried from inside: a process that is shut in like it, and attempts."""

import json
import subprocess
import sys
from pathlib import Path

from isopod.sandbox.features import probe

ATTEMPTS = """
import errno, json, os, socket, sys, threading
from pathlib import Path
from isopod.sandbox import egress
from isopod.sandbox.features import Features

body = json.loads(sys.stdin.read())
secret, routes, port = Path(body["secret"]), Path(body["routes"]), body["port"]
sandbox = egress.shut_in(routes, features=Features.from_json(body["features"]))
sandbox.forbid()

def met(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def listen():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()

def pause():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

print(json.dumps({
    "read a secret": met(secret.read_bytes),
    "write a secret": met(lambda: secret.write_bytes(b"x")),
    "read /etc/shadow": met(lambda: Path("/etc/shadow").read_bytes()),
    "list /": met(lambda: os.listdir("/")),
    "write the routes": met(lambda: (routes / "new").write_bytes(b"x")),
    "read the routes": met((routes / "routes.db").read_bytes),
    "run a program": met(lambda: os.execv("/bin/true", ["true"])),
    "fork": met(os.fork),
    "listen": met(listen),
    "signal its parent": met(lambda: os.kill(os.getppid(), 15)),
    "start a thread": met(pause),
    "connect": met(lambda: socket.create_connection(("127.0.0.1", port)).close()),
    "look up": met(lambda: socket.getaddrinfo("localhost", 80)),
}))
"""


def test_it_connects_and_looks_up_and_does_nothing_else(tmp_path, unused_server):
    (tmp_path / "routes").mkdir()
    (tmp_path / "routes" / "routes.db").write_bytes(b"routes")
    (tmp_path / "secret").write_bytes(b"secret")
    features = probe()
    body = {
        "secret": str(tmp_path / "secret"),
        "routes": str(tmp_path / "routes"),
        "port": unused_server,
        "features": features.to_json(),
    }
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    works = {"read the routes", "start a thread", "connect", "look up"}
    assert {name for name, got in found.items() if got == "done"} == works
    assert found["run a program"] == found["fork"] == "EPERM"
    assert found["read a secret"] == found["read /etc/shadow"] == "EACCES"
