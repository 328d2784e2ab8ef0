"""The same attacks from an app in each language, and what must differ between two instances of one
image. Python has more in its own files; what each language's attacker does is in `attackers/`."""

import contextlib
import http.client
import http.server
import json
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from tests.e2e.nodes import get, until
from tests.e2e.wire import wire
from tests.hostile.languages import Attacker, Attackers, across, opened

C, GO, JAVASCRIPT, RUBY = "C", "Go", "JavaScript", "Ruby"
DEADLINE = (
    "504 deadline_exceeded after its second, or the response is cut; the instance is replaced"
)


@pytest.fixture(scope="module")
def attackers(prepared_cache, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attackers]:
    with opened(tmp_path_factory.mktemp("languages"), prepared_cache) as made:
        yield made


@pytest.fixture
def attacker(attackers: Attackers, request: pytest.FixtureRequest) -> Iterator[Attacker]:
    """After the attack it serves on, and so does the neighbour, in the same worker."""
    made = attackers.get(request.param)
    before = attackers.field.worker()
    yield made
    made.assert_serves()
    attackers.field.assert_lives(before)


@across("an infinite loop in a request, in any language", DEADLINE, JAVASCRIPT, C, GO, RUBY)
def test_a_loop_is_ended(attacker):
    began = time.monotonic()
    assert attacker.run("loop").status == 504
    assert time.monotonic() - began < 20


@across("never answering, in any language", DEADLINE, JAVASCRIPT, C, GO, RUBY)
def test_silence_is_ended(attacker):
    assert attacker.run("never").status == 504


@across(
    "an infinite loop after the response is whole",
    "the client has its response; the loop is ended, and the next request has another instance",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_a_loop_after_the_response_is_ended(attacker):
    assert attacker.run("later").text == "now"
    attacker.assert_serves()


@across(
    "taking memory without end, in any language",
    "507 or 502, or 504 before that; limits.memory_mib holds",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_memory_without_end_ends_with_its_instance(attacker):
    assert attacker.run("memory").status in (502, 504, 507)


@across(
    "recursion without end, in any language",
    "an error of the language's own, or the end of the instance's stack: of that request alone",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_recursion_ends_the_request(attacker):
    assert attacker.run("recurse").status in (502, 504, 507)


@across(
    "throwing, aborting or ending the program in the middle of a request",
    "502; the next request is served",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_an_app_that_ends_itself(attacker):
    assert attacker.run("vanish").status == 502


@across(
    "a response without end",
    "cut at limits.max_response_mib",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_a_response_without_end_is_cut(attacker):
    with pytest.raises((http.client.IncompleteRead, ConnectionError)) as cut:
        attacker.run("endless")
    if isinstance(cut.value, http.client.IncompleteRead):
        assert len(cut.value.partial) <= 2 << 20


@across(
    "a flood of log lines, in any language",
    "limits.log_kib_per_s passes, the rest is dropped; its file is bounded, and nobody else's log "
    "has a line of it",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_a_log_flood_is_dropped(attacker):
    assert attacker.run("flood").status in (502, 504, 507)
    logs = attacker.node.data_dir / "logs"
    assert sum(one.stat().st_size for one in logs.iterdir()) < 32 << 20


@across(
    "log lines with escapes and line breaks that look like another app's, in any language",
    "text in the attacker's own log, and nothing else",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_log_lines_cannot_be_forged(attacker):
    forged = ['{"app": "neighbour", "message": "forged"}', "\x1b[2J", "\r", "neighbour forged"]
    assert attacker.ask(f"log/{quote(chr(10).join(forged))}") == 1
    until("the line", lambda: "neighbour forged" in attacker.log())


@across(
    "response splitting and smuggling by headers, in any language: line breaks, NULs, two lengths, "
    "a negative one, one of 30 digits, 300 headers, 70 KB of them",
    "502; the client sees none of them",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_headers_that_are_none(attacker):
    for what in ("split", "name", "nul", "lengths", "negative", "long", "many", "large"):
        answer = attacker.run(f"headers/{what}")
        assert answer.status == 502, (what, answer.status, answer.headers.items())
        assert "evil" not in str(answer.headers.items())


@across(
    "Transfer-Encoding, Connection and X-Request-Id set by an app in any language",
    "removed: the connection is the gateway's",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_the_connection_is_not_the_apps(attacker):
    answer = attacker.run("connection")
    assert (answer.status, answer.text) == (200, "5\r\nhello")
    assert answer["X-Request-Id"] != "forged" and answer["X-Mine"] == ""


@across(
    "a body longer, or shorter, than its Content-Length, in any language",
    "longer: cut there; shorter: 502, or the connection is closed; the next request is in step",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_lengths_cannot_shift_the_next_response(attacker):
    for what in ("longer", "shorter"):
        with wire(attacker.node, attacker.name) as line:
            line.send(f"GET /{what} HTTP/1.1\r\nHost: HOST\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                response = line.response()
                assert len(response.body) == 5 or response.status == 502
                line.send("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
                assert line.response().body == b"fine"


@across(
    "reading the environment of the node or of a neighbour, in any language",
    "one's own variables, and nothing else",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_the_environment_is_its_own(attacker):
    found = attacker.ask("env")
    assert found["MINE"] == "1"
    said = json.dumps(found)
    assert "neighbours-secret" not in said and "ISOPOD" not in said and "PASSWORD" not in said


@across(
    "reading files of the node, the host and a neighbour, in any language",
    "nothing there: one's own folders",
    C,
    GO,
    RUBY,
)
def test_there_are_no_files_to_read(attacker):
    said = attacker.ask("files")
    assert len(said) == 7 and "opened" not in said, said


@across(
    "processes, threads, signals to others, in any language",
    "there are none: refused by the runtime",
    RUBY,
)
def test_there_is_nothing_to_start(attacker):
    said = attacker.ask("processes")
    assert not {"forked", "killed", "thread"} & set(said) and "uid=" not in str(said), said


@across(
    "connecting to the node's own ports, to a cloud's metadata and to files, in any language",
    "refused: nothing is listed",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_nothing_is_reached(attacker):
    reached: list[str] = []

    class Here(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        said = attacker.ask(f"connect/{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
    assert not reached and all(isinstance(one, str) for one in said), said


@across(
    "timing others by the clocks, in any language",
    "steps of 1 ms",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_clocks_step_in_milliseconds(attacker):
    assert attacker.ask("clock") == [0]


@across(
    "replacing the language's own functions to write the request protocol by hand: answers to "
    "other requests, twice, split, items of the boot and of the builder, lengths that lie, floods",
    "its own response, or 502 and a new instance; no other app sees any of it",
    JAVASCRIPT,
)
def test_an_app_that_forges_the_protocol(attacker):
    for what in ("twice", "splitting", "ready", "refused", "image", "unknown", "huge", "half",
                 "beyond", "asks"):  # fmt: skip
        attacker.assert_serves()  # so that it knows where to write
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            answer = attacker.run(f"forge/{what}")
            assert answer.status in (200, 502, 504) and answer.text != "no box", (what, answer.text)
            assert "evil" not in str(answer.headers.items())
        assert get(attacker.node, "neighbour").text == "fine"


@across(
    "predicting the random numbers of another instance of one's image",
    "different in each: all that draw from the image's state are seeded anew",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_two_instances_of_an_image_share_no_randomness(attacker):
    seen = []
    for _ in range(3):
        attacker.sleep()
        seen.append(attacker.ask("fresh"))
        # An instance of its own; of a program in C none stays.
        assert all(one["requests"] == 1 for one in attacker.instances())
    drawn = [json.dumps(value) for one in seen for value in one["random"]]
    assert len(set(drawn)) == len(drawn), drawn


@across(
    "reading a clock that stood still, or went back, while the app was asleep in its image",
    "the time of now in each instance, and forward",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_clocks_of_restored_instances_are_of_now(attacker):
    last = 0.0
    for _ in range(2):
        attacker.sleep()
        before = time.time() * 1e3
        now = attacker.ask("fresh")["now_ms"]
        assert before - 2 <= now <= time.time() * 1e3 + 2 and now >= last
        last = now


@across(
    "an old environment: reading settings as they were when the image was taken",
    "those of now, in each instance of the same image",
    JAVASCRIPT,
    C,
    GO,
    RUBY,
)
def test_settings_are_those_of_now(attacker):
    for value in ("one", "two"):
        attacker.deploy("--env", f"SETTING={value}")
        assert attacker.ask("fresh")["setting"] == value
        attacker.sleep()
        assert attacker.ask("fresh")["setting"] == value
