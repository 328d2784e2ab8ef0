import json
from dataclasses import replace

from isopod.cli import snapshot
from isopod.model.ids import Digest
from isopod.model.snapshot import Finding, plain

OPEN_FILE = Finding("open file", "/tmp/x", "app.py:12")
THREAD = Finding("thread", "Thread-1", "jobs.py:3")
SOUND = replace(
    plain(""),
    verdict="sound",
    image=Digest("a" * 64),
    size=34 << 20,
    own_bytes=int(8.3 * 2**20),
    blob_bytes=3 << 20,
)


def test_each_verdict_reads_as_one_line_and_its_findings_below():
    def lines(taken, *warmup: str) -> list[str]:
        return snapshot.lines(taken.to_json(), list(warmup))

    assert lines(SOUND, "GET /") == ["sound, 8.3 MiB of its own (34 MiB), warmed by GET /"]
    assert lines(SOUND) == ["sound, 8.3 MiB of its own (34 MiB)"]
    many = lines(SOUND, *(f"GET /{n}" for n in range(5)))
    assert many[0].endswith("warmed by GET /0, GET /1, GET /2 and 2 more")
    private = replace(
        SOUND, private=True, why="it holds K", findings=(Finding("setting", "K", "app.py:1"),)
    )
    assert lines(private, "GET /") == [
        "sound, 8.3 MiB of its own (34 MiB), warmed by GET /, private: it holds K",
        "setting: K (app.py:1)",
    ]
    unwarmed = replace(SOUND, verdict="unwarmed", findings=(OPEN_FILE,))
    assert lines(unwarmed, "GET /") == [
        "unwarmed, 8.3 MiB of its own (34 MiB)",
        "open file: /tmp/x (app.py:12)",
    ]
    assert lines(plain("", (OPEN_FILE,))) == ["plain boot: open file: /tmp/x (app.py:12)"]
    assert lines(plain("it cannot be shared", (OPEN_FILE, THREAD))) == [
        "plain boot: it cannot be shared",
        "open file: /tmp/x (app.py:12)",
        "thread: Thread-1 (jobs.py:3)",
    ]
    assert lines(plain("snapshots are off")) == ["plain boot: snapshots are off"]


def test_a_deploy_and_the_app_show_the_verdict(node, app):
    taken = plain("it cannot be shared", (OPEN_FILE, THREAD))
    env = ("--env", f"SNAPSHOT={json.dumps(taken.to_json())}")
    done = node.cli("deploy", str(app), *env)
    assert done.returncode == 0, done.stderr
    assert "  snapshot      plain boot: it cannot be shared\n" in done.stderr
    assert f"\n{' ' * 16}open file: /tmp/x (app.py:12)\n" in done.stderr
    assert done.stdout.startswith("http://hello.")
    again = json.loads(node.cli("deploy", str(app), *env, "--json").stdout)
    assert again["snapshot"]["findings"][0]["place"] == "app.py:12"
    shown = node.cli("app", "hello").stdout
    for text in ("plain boot: it cannot be shared", "thread: Thread-1 (jobs.py:3)", "none yet"):
        assert text in shown
    found = json.loads(node.cli("app", "hello", "--json").stdout)
    assert found["snapshot"]["why"] == "it cannot be shared"
    assert found["starts"]["count"] == 0


def test_strict_shows_each_finding_and_exits_1(node, app):
    taken = plain("it cannot be shared", (OPEN_FILE, THREAD))
    env = ("--env", f"SNAPSHOT={json.dumps(taken.to_json())}")
    failed = node.cli("deploy", str(app), "--strict", *env)
    assert failed.returncode == 1, failed.stderr
    for text in (
        "  open file: /tmp/x (app.py:12)\n",
        "  thread: Thread-1 (jobs.py:3)\n",
        "error: app 'hello' has no sound snapshot: plain boot, it cannot be shared",
        "code: snapshot_unsound",
        "--strict",
    ):
        assert text in failed.stderr
    assert "app_not_found" in node.cli("app", "hello").stderr
