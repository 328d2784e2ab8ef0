"""A worker that answers with its process id, and its admin socket with fixed numbers.

It stands in for the real one where a test is about the supervisor or control, not about guests.
"""

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

index = int(os.environ["ISOPOD_WORKER_INDEX"])
settings = json.load(sys.stdin)["settings"]
gateway = socket.socket(fileno=int(os.environ["ISOPOD_GATEWAY_FD"]))
draining = threading.Event()
in_flight = threading.Semaphore(1)


def answer_admin() -> None:
    path = Path(settings["data_dir"]) / "run" / f"worker-{index}.sock"
    path.unlink(missing_ok=True)
    admin = socket.socket(socket.AF_UNIX)
    admin.bind(str(path))
    admin.listen()
    while True:
        connection, _ = admin.accept()
        asked = json.loads(connection.makefile("rb").readline())
        if asked["op"] == "status":
            said = {
                "pid": os.getpid(),
                "worker": index,
                "instances": [],
                "apps": {},
                "memory_bytes": 0,
                "rss_bytes": 1,
            }
        else:
            said = {"revision": 1} if asked["op"] == "refresh" else {"ended": 0}
        connection.sendall(json.dumps(said).encode() + b"\n")
        connection.close()


def stop(*_: object) -> None:
    # A request in flight is answered first.
    in_flight.acquire()
    os._exit(0)


threading.Thread(target=answer_admin, daemon=True).start()
signal.signal(signal.SIGTERM, stop)
ready = int(os.environ["ISOPOD_READY_FD"])
os.write(ready, b"ready\n")
os.close(ready)


def serve() -> None:
    gateway.setblocking(True)
    while True:
        connection, _ = gateway.accept()
        with in_flight:
            asked = connection.recv(65536)
            if b"GET /hold" in asked:  # until the client sends one byte more
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
                connection.recv(1)
                connection.sendall(b"held")
            else:
                body = str(os.getpid()).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                connection.sendall(head % len(body) + body)
            connection.close()


threading.Thread(target=serve, daemon=True).start()
while True:
    signal.pause()
