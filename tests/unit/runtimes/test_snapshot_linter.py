# ruff: noqa: E501  apps in one line
"""What a deploy finds out about an app's memory, each planted problem with its file and line."""

import os

import pytest
import zstandard
from tests.unit.runtimes.snapshots import ASK, FINE, Lab, spec

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.engine.image import Image
from isopod.errors import AppFailedToStart
from isopod.model.app import WarmupRequest
from isopod.model.snapshot import Snapshot
from isopod.runtimes.python import snapshotting
from isopod.runtimes.taking import ImageLimits, Source

SECRET = "s3cr3t-value-of-the-deploy"


class Linter:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.blobs = BlobStore(lab.folder / "blobs")
        self.images = ImageCache(lab.folder / "images", self.blobs, limit_bytes=1 << 30)
        self.app = lab.folder

    def take(self, files, env=None, limits=None, secrets=None, **startup) -> Snapshot:
        self.app = self.lab.app(files)
        work = self.lab.tmp()
        taken = snapshotting.take_snapshot(
            self.lab.runtime,
            Source(self.app, self.lab.folder / "site", spec(env, **startup), secrets or {}),
            images=self.images,
            work=work,
            limits=limits,
        )
        assert list(work.iterdir()) == []  # nothing is left behind
        return taken

    def holds(self, snapshot: Snapshot, text: str) -> bool:
        """Whether the image's file or its blob has these bytes in it."""
        opened = self.images.open(snapshot.image, self.lab.runtime.base_image)
        memory = os.pread(opened.fd, opened.size, 0)
        opened.close()
        raw = self.blobs.path(snapshot.image).read_bytes()
        start = raw.index(zstandard.FRAME_HEADER)
        pages = zstandard.ZstdDecompressor().stream_reader(raw[start:]).read()
        assert len(memory) == snapshot.size and len(pages) > snapshot.own_bytes
        return any(text.encode() in held for held in (memory, raw, pages))

    def restore(self, snapshot: Snapshot, env=None):
        opened = self.images.open(snapshot.image, self.lab.runtime.base_image)
        self.lab.open.append(opened.fd)
        return self.lab.restore(self.app, Image(opened.fd, opened.size, opened.clock_ns), env)


@pytest.fixture(scope="module")
def linter(lab: Lab) -> Linter:
    return Linter(lab)


def told(snapshot: Snapshot) -> list[str]:
    return [finding.text() for finding in snapshot.findings]


def test_an_app_without_problems_is_sound_and_shared(linter):
    snapshot = linter.take(FINE, {"SECRET": SECRET, "PORT": "8080"})
    assert (snapshot.verdict, snapshot.private, snapshot.why) == ("sound", False, "")
    assert snapshot.findings == ()
    assert not linter.holds(snapshot, SECRET)
    assert 0 < snapshot.blob_bytes < snapshot.own_bytes < snapshot.size


def test_an_app_that_reads_its_settings_in_requests_is_shared(linter):
    app = "import os\n" + ASK
    snapshot = linter.take(app, {"SECRET": SECRET})
    assert (snapshot.verdict, snapshot.private, told(snapshot)) == ("sound", False, [])
    assert not linter.holds(snapshot, SECRET)
    assert linter.restore(snapshot, {"SECRET": "new"}).ask("os.environ['SECRET']") == "new"


@pytest.mark.parametrize(
    "read",
    [
        "key = os.environ['SECRET']",
        "key = os.getenv('SECRET')",
        "key = os.environ.get('SECRET', '') + '!'",
        "key = os.environb[b'SECRET']",
        "everything = dict(os.environ)",
        "present = [len(v) for k, v in os.environ.items() if k == 'SECRET']",
        "taken = os.environ.pop('SECRET')",
        "import wsgiref.handlers",  # copies the environment when it is imported
    ],
)
def test_a_setting_that_is_read_at_import_makes_the_image_private(linter, read):
    snapshot = linter.take(f"import os\n{read}\n" + ASK, {"SECRET": SECRET})
    assert (snapshot.verdict, snapshot.private) == ("sound", True)
    assert "values of its settings" in snapshot.why
    assert told(snapshot) == ["setting: SECRET is read before the snapshot (app.py:2)"]
    if read.startswith("key"):
        assert SECRET in linter.restore(snapshot, {"SECRET": SECRET}).ask("str(key)")


def test_a_setting_that_must_be_a_number_is_found_with_its_line(linter):
    app = "import os\n\nport = int(os.environ['PORT'])\n" + ASK
    snapshot = linter.take(app, {"PORT": "8080", "OTHER": SECRET})
    assert (snapshot.verdict, snapshot.private) == ("sound", True)
    assert told(snapshot) == ["setting: PORT is read before the snapshot (app.py:3)"]
    assert linter.restore(snapshot, {"PORT": "8080"}).ask("port") == 8080


def test_a_setting_that_a_module_of_the_app_reads_names_that_module(linter):
    files = {"app.py": "import config\n" + FINE,
             "config/__init__.py": "from os import environ\n\n\nKEY = environ['SECRET'][:2]\n"}  # fmt: skip
    assert told(linter.take(files, {"SECRET": SECRET})) == [
        "setting: SECRET is read before the snapshot (config/__init__.py:4)"
    ]


def test_a_setting_that_the_warm_up_reads_makes_the_image_private(linter):
    app = FINE.replace(
        "    start", '    environ["k"] = __import__("os").environ["SECRET"]\n    start'
    )
    snapshot = linter.take(app, {"SECRET": SECRET})
    assert snapshot.private
    assert told(snapshot) == ["setting: SECRET is read before the snapshot (app.py:3)"]


def test_a_setting_for_the_interpreter_makes_the_image_private(linter):
    snapshot = linter.take(FINE, {"PYTHONUNBUFFERED": "1", "SECRET": SECRET})
    assert snapshot.private
    assert "PYTHONUNBUFFERED is for the interpreter" in told(snapshot)[0]
    assert not linter.holds(snapshot, SECRET) or snapshot.private


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("import tempfile\nf = tempfile.NamedTemporaryFile()", "open file: /tmp/tmp"),
        ("\nf = open('/tmp/x', 'w')", "open file: /tmp/x (app.py:2)"),
        ("import os\nf = os.open('/tmp/x', os.O_CREAT | os.O_RDWR)", "open file: /tmp/x (app.py:2)"),
        ("import os\nf = os.open('/app/app.py', os.O_RDONLY)", "open file: /app/app.py (app.py:2)"),
        ("import logging\nlogging.basicConfig(filename='/tmp/log')", "open file: /tmp/log (app.py:2)"),
        ("import sqlite3\nd = sqlite3.connect('/tmp/x.db')\nd.execute('create table t(a)')",
         "sqlite connection: /tmp/x.db (app.py:2)"),
        ("\nopen('/tmp/big', 'wb').write(bytes(2 << 20))", "temporary file: /tmp/big (app.py:2)"),
    ],
)  # fmt: skip
def test_what_an_import_leaves_open_means_plain_boot(linter, source, finding):
    snapshot = linter.take(f"{source}\n" + FINE)
    assert (snapshot.verdict, snapshot.image) == ("plain", "")
    assert len(snapshot.findings) == 1 or "tempfile" in source
    assert told(snapshot)[0].startswith(finding)
    assert snapshot.findings[0].place == "app.py:2"


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("globals().update(f=open('/tmp/x', 'w'))", "open file: /tmp/x (app.py:3)"),
        ("import sqlite3; globals().update(d=sqlite3.connect('/tmp/x.db')); d.execute('create table if not exists t(a)')",
         "sqlite connection: /tmp/x.db (app.py:3)"),
        ("1 / 0", "warm-up: the app raised an error: ZeroDivisionError: division by zero (app.py:3)"),
        ("start('503 No', []); return [b'']", "warm-up: the warm-up GET / answered 503"),
    ],
)  # fmt: skip
def test_what_the_warm_up_leaves_open_or_fails_at_means_an_unwarmed_image(
    linter, statement, finding
):
    app = f"def app(environ, start):\n    if 'HTTP_X_ISOPOD_WARMUP' in environ:\n        {statement}\n"
    snapshot = linter.take(app + "    start('200 OK', [])\n    return [b'']\n")
    assert (snapshot.verdict, snapshot.private) == ("unwarmed", False)
    assert told(snapshot) == [finding]


@pytest.mark.parametrize("how", ["while True: pass", "import time; time.sleep(1000)"])
def test_a_warm_up_that_hangs_is_ended(linter, how):
    app = f"def app(environ, start):\n    {how}\n"
    snapshot = linter.take(app, {"A": "b"}, limits=ImageLimits(request_s=0.3))
    assert snapshot.verdict == "unwarmed"
    assert told(snapshot) == ["warm-up: the warm-up GET / did not end within 0.3 s"]


def test_an_import_that_hangs_is_ended(linter):
    snapshot = linter.take("while True: pass", limits=ImageLimits(boot_s=0.3))
    assert snapshot.verdict == "plain"
    assert "boot: the import did not end within 0.3 s" in told(snapshot)


@pytest.mark.parametrize(
    "source",
    [
        "import uuid\nidentity = uuid.uuid4()",
        "import uuid\nidentity = str(uuid.uuid4())",
        "import secrets\nkey = secrets.token_hex(32)",
        "import secrets\nkey = 'v1-' + secrets.token_urlsafe(32)",
        "import os\nkey = os.urandom(24)",
        "import secrets, string\nkey = ''.join(secrets.choice(string.printable) for _ in range(50))",
    ],
)
def test_entropy_that_an_import_keeps_makes_the_image_private(linter, source):
    snapshot = linter.take(f"{source}\n" + FINE)
    assert (snapshot.verdict, snapshot.private) == ("sound", True)
    assert "random bytes" in snapshot.why
    assert told(snapshot) == [
        "entropy: random bytes are drawn before the snapshot and may be kept (app.py:2)"
    ]


@pytest.mark.parametrize("kept", [True, False])
def test_entropy_of_the_warm_up_counts_when_it_is_kept(linter, kept):
    use = "keys.append(token)" if kept else "keys.append(len(token))"
    app = f"import secrets\nkeys = []\ndef app(environ, start):\n    token = secrets.token_hex()\n    {use}\n"
    snapshot = linter.take(app + "    start('200 OK', [])\n    return [token.encode()]\n")
    assert (snapshot.verdict, snapshot.private) == ("sound", kept)
    assert [finding.place for finding in snapshot.findings] == (["app.py:4"] if kept else [])


def test_a_key_that_the_first_request_makes_counts_as_kept(linter):
    app = (
        "import secrets\nkeys = {}\ndef app(environ, start):\n"
        "    if not keys: keys['k'] = ''.join(secrets.choice('abcdef') for _ in range(40))\n"
        "    start('200 OK', [])\n    return [''.join(secrets.choice('abc') for _ in range(9)).encode()]\n"
    )
    snapshot = linter.take(app)
    assert (snapshot.verdict, snapshot.private) == ("sound", True)
    assert [finding.place for finding in snapshot.findings] == ["app.py:4"]


def test_numpys_own_seeds_are_no_finding(linter):
    app = "import numpy as np\nrng = np.random.default_rng()\n"
    snapshot = linter.take(app + FINE)
    assert (snapshot.verdict, snapshot.private, told(snapshot)) == ("sound", False, [])


@pytest.mark.parametrize(
    "source",
    [
        "import time\nstarted = time.time()",
        "import time\nstarted = int(time.time())",
        "import time\nstarted = time.time_ns()",
        "import datetime\nstarted = {'at': [datetime.datetime.now()]}",
    ],
)
def test_a_time_that_an_import_keeps_is_told(linter, source):
    snapshot = linter.take(f"{source}\n" + FINE)
    assert (snapshot.verdict, snapshot.private) == ("sound", False)
    assert told(snapshot) == [
        "time: app.started is the time of the deploy in each instance (app.py:2)"
    ]


@pytest.mark.parametrize(
    "ballast",
    [
        "bytearray(40 << 20)",
        # With no room for a second one, so that nothing may be done to it first.
        "bytearray(b'x') * (130 << 20)",
    ],
)
def test_memory_larger_than_the_limit_means_plain_boot(linter, ballast):
    app = f"ballast = {ballast}\n" + FINE
    snapshot = linter.take(app, limits=ImageLimits(max_bytes=64 << 20))
    assert snapshot.verdict == "plain"
    assert "MiB is larger than an image may be (64 MiB)" in snapshot.why


def test_snapshots_can_be_switched_off(linter):
    snapshot = linter.take(FINE, snapshot=False)
    assert (snapshot.verdict, snapshot.findings) == ("plain", ())
    assert "snapshot = false" in snapshot.why


def test_an_app_that_asks_for_no_warm_up_is_not_booted_twice(linter):
    app = "f = open('/tmp/x', 'w')\n" + FINE
    assert told(linter.take(app, warmup=())) == ["open file: /tmp/x (app.py:1)"]
    assert linter.take(FINE, warmup=()).verdict == "sound"


def test_a_warm_up_may_have_a_method_a_query_and_a_body(linter):
    app = (
        "seen = []\n"
        "def app(environ, start):\n"
        "    body = environ['wsgi.input'].read().decode()\n"
        "    seen.append([environ['REQUEST_METHOD'], environ['QUERY_STRING'], body])\n"
        "    answer = repr(eval(body)) if body.startswith('see') else ''\n"
        "    start('200 OK', [])\n"
        "    return [__import__('json').dumps(answer).encode()]\n"
    )
    snapshot = linter.take(app, warmup=(WarmupRequest("/x?a=b", "POST", (), "data"),))
    assert "['POST', 'a=b', 'data']" in linter.restore(snapshot).ask("seen[:3]")


@pytest.mark.parametrize("hook", ["before_snapshot", "after_restore"])
def test_a_hook_that_fails_means_plain_boot(linter, hook):
    app = "def fails():\n    raise ValueError('the hook')\n" + FINE
    snapshot = linter.take(app, **{hook: "app:fails"})
    assert snapshot.verdict == "plain"
    assert any("ValueError: the hook" in text and "app.py:2" in text for text in told(snapshot))


def test_a_hook_can_close_what_an_import_opened(linter):
    app = "f = open('/tmp/x', 'w')\ndef close(): f.close()\n" + FINE
    assert linter.take(app, before_snapshot="app:close").verdict == "sound"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import threading\nthreading.Thread(target=print).start()", "can't start new thread"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 80))", "no network"),
    ],
)
def test_a_thread_or_a_socket_at_import_fails_with_a_clear_message(lab, source, message):
    app = lab.app(f"{source}\n" + FINE)
    with pytest.raises(AppFailedToStart, match=message) as caught:
        lab.restore(app, None)
    assert 'File "/app/app.py", line' in caught.value.details["traceback"]


def test_a_secret_that_requests_read_is_in_no_image_and_in_each_instance(linter):
    app = "import os\n" + ASK
    snapshot = linter.take(app, {"NAME": "shop"}, secrets={"SECRET": SECRET})
    assert (snapshot.verdict, snapshot.private, told(snapshot)) == ("sound", False, [])
    assert not linter.holds(snapshot, SECRET)
    restored = linter.restore(snapshot, {"NAME": "shop", "SECRET": "another"})
    assert restored.ask("os.environ['SECRET']") == "another"


@pytest.mark.parametrize("env", [{}, {"NAME": "shop"}])
@pytest.mark.parametrize("read", ["key = os.environ['SECRET']", "port = int(os.environ['SECRET'])"])
def test_a_secret_that_an_import_reads_means_plain_boot(linter, env, read):
    snapshot = linter.take(f"import os\n{read}\n" + ASK, env, secrets={"SECRET": "8080"})
    assert (snapshot.verdict, snapshot.image) == ("plain", "")
    assert any("(app.py:2)" in line for line in told(snapshot)), told(snapshot)


def test_a_secret_that_the_warm_up_reads_means_an_unwarmed_image(linter):
    app = "import os\ndef key():\n    return os.environ['SECRET'].encode()\n" + FINE.replace(
        "start_response(", "key(); start_response(", 1
    )
    snapshot = linter.take(app, {"NAME": "shop"}, secrets={"SECRET": SECRET})
    assert (snapshot.verdict, snapshot.private) == ("unwarmed", False)
    assert "secret: SECRET is read before the snapshot (app.py:3)" in told(snapshot)
    assert not linter.holds(snapshot, SECRET)


def test_a_setting_read_early_gets_its_image_although_there_are_secrets(linter):
    app = "import os\nname = os.environ['NAME']\n" + ASK
    snapshot = linter.take(app, {"NAME": "the-shop"}, secrets={"SECRET": SECRET})
    assert (snapshot.verdict, snapshot.private) == ("sound", True)
    assert linter.holds(snapshot, "the-shop") and not linter.holds(snapshot, SECRET)
