"""An app in Python that attacks the node it runs on, beside a neighbour's."""

import contextlib
import http.client
import json
import time

import pytest
from tests.e2e.nodes import get, messages, until
from tests.e2e.wire import wire
from tests.hostile.battlefield import ATTACKERS

attack = pytest.mark.attack
DEADLINE = (
    "504 deadline_exceeded after its second, or the response is cut; the instance is replaced"
)

LOOPS = {
    "in the request": "while True: pass",
    "in `__del__`": """
class Last:
    def __del__(self):
        while True: pass
Last()
""",
    "in a response's `close()`": """
class Body:
    def __iter__(self): return iter([b"x"])
    def close(self):
        while True: pass
start_response("200 OK", [])
body = Body()
""",
    "in a generator's pieces": """
def pieces():
    while True: yield b""
start_response("200 OK", [])
body = pieces()
""",
    "in the garbage collector's callback": """
import gc
def callback(phase, info):
    while True: pass
gc.callbacks.append(callback)
gc.collect()
""",
    "in a trace function": """
import sys
def trace(*_):
    while True: pass
sys.settrace(trace)
(lambda: 1)()
""",
    "in an exception's text": """
class Bad(Exception):
    def __str__(self):
        while True: pass
raise Bad()
""",
    "that catches everything": """
while True:
    try:
        while True: pass
    except BaseException: pass
""",
    "in a regular expression, in C": """
import re
re.match("(a*)*b", "a" * 40)
""",
    "in one long number, in C": "answer = len(str(7 ** 10_000_000))",
}


@pytest.mark.parametrize("where", LOOPS)
@attack(
    "an infinite loop in Python: in the request, `__del__`, a response's `close()`, a generator, "
    "the collector's callback, a trace function, an exception's text, one that catches "
    "everything, in C (a regular expression, a huge number)",
    DEADLINE,
)
def test_a_loop_in_python_is_ended(battlefield, where):
    began = time.monotonic()
    # A response that has begun is cut.
    with contextlib.suppress(http.client.IncompleteRead):
        assert battlefield.run(LOOPS[where]).status == 504
    assert time.monotonic() - began < 20
    battlefield.assert_serves()


@attack(
    "a loop registered with atexit, and signal handlers",
    "never run: an instance is ended, not asked, and there are no signals",
)
def test_nothing_runs_at_exit(battlefield):
    code = """
import atexit
def loop():
    while True: pass
atexit.register(loop)
try:
    import signal
    signal.signal(signal.SIGTERM, lambda *_: loop())
    answer = "set"
except Exception as error:
    answer = type(error).__name__
"""
    battlefield.ask(code)
    began = time.monotonic()
    battlefield.node.cli("sleep", "patient")
    assert time.monotonic() - began < 30
    assert not [one for one in battlefield.node.instances() if one["app"] == "patient"]


@pytest.mark.parametrize(
    "code",
    [
        "x = []\nfor _ in range(10**8): x.append(bytearray(100))",
        "x = [0] * 100_000_000",
        "x = b'x' * (1 << 30)",
        "x = {i: str(i) for i in range(10**8)}",
        "x = 'a'\nwhile True: x += x",
        "KEPT.extend(bytes(1 << 20) for _ in range(1000))",
        "import json\njson.loads('[' * 10_000_000)",
    ],
)
@attack(
    "a hundred million small objects, one of a GiB, doubling text, nested JSON of 10 MB",
    "MemoryError in the app, 507 or 502; limits.memory_mib holds",
)
def test_memory_bombs_end_with_their_instance(battlefield, code):
    answer = battlefield.run(code)
    assert answer.status in (502, 504, 507), (answer.status, answer.text)
    battlefield.assert_serves()


@pytest.mark.parametrize(
    "code",
    [
        "def f(): return f()\nf()",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
        "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        "class A:\n    def __getattr__(self, n): return getattr(self, n)\nA().x",
        "import ast\nast.parse('(' * 100_000)",
        "x = []\nfor _ in range(10**6): x = [x]\ndel x",
    ],
)
@attack(
    "endless recursion in Python, with and without its limit, in C, in the parser",
    "RecursionError or the end of the instance's stack: 502 of that request alone",
)
def test_recursion_in_python_ends_the_request(battlefield, code):
    answer = battlefield.run(code)
    assert answer.status in (200, 502, 504, 507), (answer.status, answer.text)
    battlefield.assert_serves()


@attack(
    "a flood of log lines for a second",
    "limits.log_kib_per_s passes, the rest is dropped, and the log says so; its file is bounded",
)
def test_a_log_flood_is_dropped(battlefield, seen):
    code = "while True: print('flood ' + 'x' * 1000)"
    assert battlefield.run(code).status == 504
    logs = battlefield.node.data_dir / "logs"
    size = sum(one.stat().st_size for one in logs.iterdir())
    seen(f"{size >> 10} KiB of log files")
    assert size < 32 << 20
    assert "flood" not in battlefield.neighbours_log()


@attack(
    "log lines that look like another app's, or like the node's, with line breaks and escapes",
    "text in the attacker's own log, and nothing else",
)
def test_log_lines_cannot_be_forged(battlefield):
    forged = {"app": "neighbour", "stream": "isopod", "message": "forged"}
    line = "\\n".join([json.dumps(forged), "\\x1b[2J", "\\r\\0", "neighbour | forged"])
    battlefield.ask(f"print('''{line}''', flush=True); answer = 1")
    until("the line", lambda: "forged" in messages(battlefield.node, "patient"))
    assert "forged" not in battlefield.neighbours_log()


@attack(
    "filling /tmp from Python",
    "OSError: no space left on device, at limits.disk_mib",
)
def test_tmp_fills_up_for_its_owner_alone(battlefield):
    code = """
written = 0
try:
    with open("/tmp/big", "wb") as file:
        while True: written += file.write(bytes(1 << 20))
except OSError as error:
    answer = [error.strerror, written >> 20]
import os
os.unlink("/tmp/big")
"""
    said, written = battlefield.ask(code)
    assert said == "No space left on device" and 6 <= written <= 8


@attack(
    "leaving 500 files, nested folders and links in /tmp",
    "gone with the instance",
)
def test_tmp_is_emptied(battlefield):
    code = """
import os
for n in range(200): open(f"/tmp/f{n}", "w").close()
os.makedirs("/tmp/" + "/".join("d" * 50))
os.symlink("..", "/tmp/up")
answer = len(os.listdir("/tmp"))
"""
    assert battlefield.ask(code) >= 200
    for app in ATTACKERS:
        battlefield.node.cli("sleep", app)
    until("an empty /tmp", lambda: len(battlefield.left_in_tmp()) <= 1)


@attack(
    "reading the node, the neighbour and the host: files, environment, processes",
    "nothing there: one's own folders, one's own variables",
)
def test_there_is_nothing_to_read(battlefield):
    code = """
import os, glob
def read(path):
    try:
        with open(path, "rb") as file: return file.read(200).decode("latin-1")
    except OSError as error: return error.strerror
paths = ["/proc/self/environ", "/proc/1/cmdline", "/etc/passwd", "/dev/mem", "/sys/kernel",
         "/tmp/../../../state.db", "/app/../../../token", "/tmp/private/diary",
         "/run/isopod", "/root/.local/share/isopod/token"]
answer = {"files": {path: read(path) for path in paths}, "env": dict(os.environ),
          "root": [p for p in ("/proc", "/etc", "/dev", "/home") if os.path.exists(p)]}
"""
    found = battlefield.ask(code)
    assert all(len(said) < 60 and "=" not in said for said in found["files"].values()), found
    assert not found["root"]
    text_of_all = json.dumps(found)
    assert "neighbours-secret" not in text_of_all and "ISOPOD" not in text_of_all
    assert found["env"]["MINE"] == "1" and "PASSWORD" not in found["env"]


@attack(
    "processes, threads, native code, a connection to the node",
    "there are none: refused by the runtime; a connection that is not listed: PermissionError",
)
def test_there_is_nothing_to_start(battlefield):
    code = """
def attempt(what):
    try: return repr(what())
    except BaseException as error: return type(error).__name__
import os, socket
def connect():
    line = socket.socket()
    line.connect(("127.0.0.1", 22))
    return "connected"
def native():
    import ctypes
    return ctypes.CDLL(None).getpid()
def process():
    import subprocess
    return subprocess.run(["id"])
def thread():
    import threading
    started = threading.Thread(target=print)
    started.start()
    return "started"
answer = {"connect": attempt(connect), "native": attempt(native), "process": attempt(process),
          "fork": attempt(lambda: os.fork()), "thread": attempt(thread),
          "kill": attempt(lambda: os.kill(1, 9))}
"""
    found = battlefield.ask(code)
    errors = {"AttributeError", "OSError", "ImportError", "ModuleNotFoundError", "RuntimeError",
              "PermissionError", "NotImplementedError", "FileNotFoundError"}  # fmt: skip
    assert set(found.values()) <= errors, found


HEADERS = {
    "a line break in a value": [("X", "a\r\nSet-Cookie: evil=1")],
    "a bare line feed": [("X", "a\nSet-Cookie: evil=1")],
    "a line break in a name": [("X\r\nSet-Cookie", "evil=1")],
    "a NUL": [("X", "a\0b")],
    "two lengths": [("Content-Length", "1"), ("Content-Length", "2")],
    "a negative length": [("Content-Length", "-1")],
    "a length that is too long": [("Content-Length", "9" * 30)],
    "an empty name": [("", "x")],
    "70 KB of headers": [("X", "y" * 70_000)],
    "300 headers": [(f"X-{n}", "y") for n in range(300)],
}


@pytest.mark.parametrize("what", HEADERS)
@attack(
    "response splitting and smuggling by an app's headers: line breaks, NULs, two lengths, a "
    "negative one, an empty name, 70 KB, 300 of them",
    "502; the client sees none of them",
)
def test_headers_that_are_none(battlefield, what):
    code = f"start_response('200 OK', {HEADERS[what]!r}); body = [b'x']"
    answer = battlefield.run(code, app="patient")
    assert answer.status == 502, (answer.status, answer.headers.items())
    assert "evil" not in str(answer.headers.items())


@attack(
    "Transfer-Encoding, Connection, Keep-Alive and X-Request-Id set by the app",
    "removed: the connection is the gateway's",
)
def test_the_connection_is_not_the_apps(battlefield):
    headers = [("Transfer-Encoding", "chunked"), ("Connection", "x-mine, content-length"),
               ("X-Mine", "1"), ("Keep-Alive", "1"), ("X-Request-Id", "forged")]  # fmt: skip
    code = f"start_response('200 OK', {headers!r}); body = [b'5\\r\\nhello\\r\\n0\\r\\n\\r\\n']"
    answer = battlefield.run(code, app="patient")
    assert answer.status == 200 and answer.text.startswith("5\r\nhello")
    assert answer["X-Request-Id"] != "forged" and answer["X-Mine"] == ""


@attack(
    "a body longer, or shorter, than its Content-Length, to shift the next response",
    "longer: cut there; shorter: 502, or the connection is closed; the next request is in step",
)
def test_lengths_cannot_shift_the_next_response(battlefield):
    for length, body in ((5, "b'x' * 1000"), (1000, "b'x' * 5")):
        code = f"start_response('200 OK', [('Content-Length', '{length}')]); body = [{body}]"
        with wire(battlefield.node, "patient") as line:
            line.send(f"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: {len(code)}\r\n\r\n{code}")
            try:
                response = line.response()
            except ConnectionError:
                continue
            assert len(response.body) == 5 or response.status == 502


FORGERIES = {
    "a response by hand, then another": """
import _host, struct
head = b"200 OK"
frame = b"S" + struct.pack("<I", len(head)) + head + b"forged"
_host.call(frame)
_host.call(frame)
""",
    "the end of a body that never began": "import _host; _host.call(b'E')",
    "a boot's frame": "import _host; _host.call(b'Q')",
    "the builder's frame": "import _host; _host.call(b'I' + bytes(800))",
    "an error that names another app": "import _host; _host.call(b'Rnot_found\\nneighbour')",
    "8 MiB and more in one frame": "import _host; _host.call(b'L' + bytes(9 << 20))",
    "an unknown frame": "import _host; _host.call(b'\\xff')",
    "no frame at all": "import _host; _host.call(b'')",
}


@pytest.mark.parametrize("what", FORGERIES)
@attack(
    "an app that speaks the request protocol itself: answers by hand and twice, ends what has not "
    "begun, sends frames of the boot and of the builder, 9 MiB, nonsense",
    "its own response, or 502 and a new instance. One that answers blindly is out of step with its "
    'own requests until it ends (`isolation.mode = "request"` keeps its clients apart); no other '
    "app sees any of it",
)
def test_an_app_that_forges_frames(battlefield, what):
    answer = battlefield.run(FORGERIES[what], app="patient")
    assert answer.status in (200, 502, 507), (answer.status, answer.text)
    for _ in range(3):
        assert get(battlefield.node, "neighbour").text == "fine"
    if battlefield.run("answer = 'again'", app="patient").text != '"again"':
        # Out of step with its own requests, as long as this instance lives.
        battlefield.node.cli("sleep", "patient")
        assert battlefield.ask("answer = 'again'") == "again"


@attack("never answering: sleeping for an hour", DEADLINE)
def test_an_app_that_never_answers(battlefield):
    answer = battlefield.run("import time; time.sleep(3600)")
    assert answer.status == 504


@attack(
    "timing a neighbour's requests: a busy clock while they are served",
    "a clock of 1 ms: gaps are seen in whole milliseconds, requests of 0.3 ms are not told apart",
)
def test_timing_a_neighbour_sees_milliseconds(battlefield):
    code = """
import time
ends = time.monotonic() + 0.3
seen = set()
while (now := time.perf_counter_ns()) and time.monotonic() < ends: seen.add(now % 1_000_000)
answer = sorted(seen)
"""
    assert battlefield.ask(code) == [0]


@attack(
    "reading the image: secrets of the node or of others in one's own restored memory",
    "the image holds the app's own boot; the neighbour's words are not in it",
)
def test_the_image_holds_nothing_of_others(battlefield):
    images = [one for one in (battlefield.node.data_dir / "images").rglob("*") if one.is_file()]
    assert images
    holding = [one for one in images if b"neighbours-secret" in one.read_bytes()]
    assert len({one.parent for one in holding}) <= 1  # its own
    code = """
import gc
secret = "-".join(["neighbours", "secret"])
answer = [type(one).__name__ for one in gc.get_objects() if secret in str(one)[:300]]
"""
    assert battlefield.ask(code) == []
