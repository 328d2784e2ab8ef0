"""Reactors in real guests: requests, bodies, errors, limits, images; and what is no reactor."""

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from tests.unit.host.certificates import Authority
from tests.unit.host.world import server
from tests.unit.runtimes.apps import request
from tests.unit.runtimes.reactors import Foundry, c_module, reaching, rust_module

from isopod.engine.instance import Mailbox
from isopod.errors import (
    AppFailedToStart,
    GuestFailed,
    GuestProtocolError,
    MemoryLimitExceeded,
    ModuleInvalid,
)
from isopod.model.app import WarmupRequest
from isopod.model.volume import VolumeMount
from isopod.runtimes.reactor import abi

GUESTS = Path(__file__).parents[2] / "guests" / "reactors"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foundry]:
    with Foundry(tmp_path_factory.mktemp("reactors")) as made:
        yield made


@pytest.fixture(scope="module")
def kitchen(lab) -> bytes:
    return c_module(GUESTS / "kitchen.c", lab.folder / "kitchen.wasm")


# Version 1, the two halves of the mailbox, and their size.
RECORD = "".join(
    f"\\{byte:02x}"
    for number in (1, 0x400, 0x30400, 0x20000)
    for byte in number.to_bytes(4, "little")
)


def wat(body: str, more: str = "") -> bytes:
    """A reactor in text whose mailbox is at 1024, and whose handler is `body`."""
    return bytes(
        wasmtime.wat2wasm(
            f"""
            (module
              (import "isopod" "call" (func $call (result i32)))
              (memory (export "memory") 10)
              (data (i32.const 16) "{RECORD}")
              {more}
              (func (export "isopod_start") (result i32) (i32.const 16))
              (func (export "isopod_settings"))
              (func (export "isopod_handle") {body}))
            """
        )
    )


def saying(frame: bytes, *, after: str = "") -> str:
    """Instructions that put `frame` into the outbox of `wat`, at 1024 + 0x30000."""
    at = 0x30400
    stores = [f"(i32.store (i32.const {at}) (i32.const {len(frame)}))"]
    stores += [
        f"(i32.store8 (i32.const {at + 4 + number}) (i32.const {byte}))"
        for number, byte in enumerate(frame)
    ]
    return " ".join(stores) + after


def test_a_request_has_everything_and_the_answer_too(lab, kitchen):
    app = lab.start(kitchen, env={"KEY": "välue", "EMPTY": ""})
    assert app.said == "setup without settings\n"
    want = "GET /p%20q?a=1 https x.test 443 192.0.2.7 a välue 1 3969"
    assert app.call("/p%20q?a=1") == (200, {}, want.encode())
    assert app.call("/status")[:2] == (404, {"x-bad": "both"})
    assert app.text("/").endswith("3 3969")


def test_bodies_stream_both_ways_whatever_their_size(lab, kitchen):
    app = lab.start(kitchen)
    sent = bytes(range(256)) * 4000
    assert app.call("/echo", body=sent)[2] == sent
    assert app.call("/echo", body=b"x")[2] == b"x"
    assert app.call("/large")[2] == b"A" * 3_000_000


def test_a_client_that_goes_is_told_and_the_next_request_served(lab, kitchen):
    app = lab.start(kitchen)

    lab.leave(app, "/large")
    assert "gone after" in app.said
    assert app.text("/").endswith("2 3969")


async def _no_body(_size: int) -> bytes:
    return b""


async def answer(reader, writer):
    line = await reader.readline()
    writer.write(b"you said " + line + b"x" * 300_000)


def test_a_reactor_connects_to_what_is_listed_between_the_pieces_of_its_response(lab, kitchen):
    async def main() -> None:
        async with server(answer) as port, reaching(lab, port) as world:
            app = lab.new(kitchen, world=world)
            await app.guest.start()
            for _ in range(2):
                status, _, body = await app.ask(f"/connect?{port}")
                assert (status, body) == (203, b"you said hello\n" + b"x" * 300_000)
            assert app.guest.sent_bytes == 12 and not world.open_now.by_app
            assert (await app.ask("/connect?1"))[2] == b"Permission denied"
            assert app.output[-1][0] == "isopod"
            assert 'isopod.toml: [network] allow = ["localhost:1"]' in app.said
            app.guest.close()

    lab.run(main())


def test_a_reactor_that_waits_for_a_peer_is_ended_with_its_connection(lab, kitchen):
    async def main() -> None:
        asked = asyncio.Event()

        async def silent(reader, _writer):
            await reader.readline()
            asked.set()
            await reader.read()

        async with server(silent) as port, reaching(lab, port) as world:
            app, other = lab.new(kitchen, world=world), lab.new(kitchen, world=world)
            for one in (app, other):
                await one.guest.start()
            waits = asyncio.ensure_future(app.ask(f"/connect?{port}"))
            await asked.wait()
            assert app.guest.waiting and world.open_now.by_app == {"app": 1}
            assert (await other.ask("/"))[0] == 200
            app.guest.close()
            with pytest.raises(GuestFailed):
                await waits
            assert not world.open_now.by_app

    lab.run(main())


DATA = (VolumeMount("data", "/data"),)


def test_a_volume_is_a_folder_that_outlives_instances_and_is_bounded(lab, kitchen):
    volumes = (lab.volume("kept"),)
    app = lab.start(kitchen, volumes=volumes)
    assert [app.text("/count") for _ in range(2)] == ["1", "2"]
    assert app.text("/fill") == "No space left on device"
    assert app.text("/count") == "3"
    app.guest.close()
    # From an image that was taken without it, the mount is where it was.
    warm = (WarmupRequest(path="/", method="GET"),)
    snapshot = lab.snapshot(kitchen, volumes=DATA, warmup=warm)
    assert (snapshot.verdict, snapshot.findings) == ("sound", ())
    assert lab.restore(kitchen, snapshot, volumes=volumes).text("/count") == "4"
    assert (volumes[0].folder / "count").read_text() == "4"


def test_without_a_volume_there_is_no_such_folder(lab, kitchen):
    assert lab.start(kitchen).text("/count") in (
        "No such file or directory",
        "Capabilities insufficient",
    )


def test_what_a_warm_up_saw_of_the_folder_that_stands_for_a_volume_is_not_kept(lab, kitchen):
    warm = (WarmupRequest(path="/count", method="GET"),)
    snapshot = lab.snapshot(kitchen, volumes=DATA, warmup=warm)
    assert snapshot.verdict == "unwarmed"
    assert [(one.kind, one.what) for one in snapshot.findings] == [
        ("volume", "the volume at /data is used before the snapshot")
    ]
    volumes = (lab.volume("another"),)
    assert lab.restore(kitchen, snapshot, volumes=volumes).text("/count") == "1"


def test_a_setup_in_a_build_has_no_network(lab, kitchen):
    app = lab.start(kitchen)
    assert app.text("/connect?1") == "Network unreachable"
    assert "connect in a request" in app.said


def test_a_reactor_in_rust_has_connections_as_its_standard_library_has_them(lab, tmp_path):
    module = rust_module(GUESTS / "kitchen.rs", lab.folder / "connecting.wasm")
    authority = Authority(tmp_path)
    context = authority.server(authority.issue("localhost"))

    async def main() -> None:
        async with (
            server(answer) as port,
            server(answer, ssl=context) as secure,
            reaching(lab, port, secure, extra=authority.pem) as world,
        ):
            app = lab.new(module, world=world)
            await app.guest.start()
            for path in (f"/connect?{port}", f"/tls?{secure}"):
                said = (await app.ask(path))[2].decode()
                assert said == f"Ok(300015) you said hello\n{'x' * 300_000}"
            assert "PermissionDenied" in (await app.ask("/connect?1"))[2].decode()
            app.guest.close()

    lab.run(main())


def test_a_guest_that_aborts_or_fills_its_memory_is_ended_with_the_reason(lab, kitchen):
    app = lab.start(kitchen)
    with pytest.raises(GuestFailed):
        app.call("/abort")
    assert "last words" in app.said
    with pytest.raises(GuestFailed, match="ended"):
        app.call("/")
    app = lab.start(kitchen, memory_mib=24)
    assert app.text("/full") == "full"
    with pytest.raises(MemoryLimitExceeded, match="memory"):
        lab.start(kitchen, memory_mib=16)


def test_a_loop_without_an_end_is_ended_from_outside_while_others_are_served(lab, kitchen):
    app, other = lab.start(kitchen), lab.start(kitchen)

    async def race() -> None:
        stuck = asyncio.ensure_future(app.guest.send(request("/loop"), _no_body))
        for _ in range(3):
            assert (await other.ask("/"))[0] == 200
        assert not stuck.done()
        app.guest.close()
        with pytest.raises(GuestFailed):
            await stuck

    lab.run(race())


def test_an_image_has_what_the_setup_left_and_nothing_of_settings_randomness_or_time(lab, kitchen):
    warm = (WarmupRequest(path="/", method="GET"),)
    snapshot = lab.snapshot(kitchen, warmup=warm)
    assert (snapshot.verdict, snapshot.private, snapshot.findings) == ("sound", True, ())
    assert snapshot.blob_bytes < 100_000
    one = lab.restore(kitchen, snapshot, env={"KEY": "one"})
    two = lab.restore(kitchen, snapshot, env={"KEY": "two"})
    assert re.search(r" one \d+ 3969$", one.text()) and re.search(r" two \d+ 3969$", two.text())
    first, second = one.text("/random").split(), two.text("/random").split()
    assert first[0] != second[0]
    # Of a worker's clock, which goes on from where the image stopped it.
    assert int(first[1]) >= 1 and int(one.text("/random").split()[1]) >= int(first[1])
    assert one.guest.private_bytes < 1 << 20
    # Two that began as one do not see each other.
    before = int(two.text().split()[-2])
    for _ in range(3):
        one.text()
    assert int(two.text().split()[-2]) == before + 1


def test_an_app_with_settings_is_not_warmed_with_requests_that_may_keep_one(lab, kitchen):
    warm = (WarmupRequest(path="/", method="GET"),)
    snapshot = lab.snapshot(kitchen, env={"KEY": "secret-value"}, warmup=warm)
    assert snapshot.verdict == "unwarmed" and snapshot.findings[0].kind == "setting"
    opened = lab.images().open(snapshot.image, Path("/dev/null"))
    assert b"secret-value" not in os.pread(opened.fd, opened.size, 0)
    opened.close()
    assert lab.restore(kitchen, snapshot, env={"KEY": "x"}).text().endswith(" x 1 3969")


def test_an_image_that_lies_about_its_mailbox_is_refused(lab, kitchen):
    for record in (
        (2, 0, 1 << 18, 1 << 18),
        (1, 0, 1 << 18, 1 << 30),
        (1, 0, 100, 1 << 18),
        (1, 0xFFFFFFFF, 0, 1 << 18),
    ):
        data = b"".join(number.to_bytes(4, "little") for number in record)
        with pytest.raises(GuestProtocolError):
            abi.parse_record(data, 1 << 24)
    box = Mailbox(1 << 20, 1 << 21, 1 << 18)
    assert abi.parse_record(abi.pack_record(box), 1 << 24) == box


SAID = (3).to_bytes(4, "little") + b"200hi"


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("", GuestProtocolError, "returned with operation b''"),
        (saying(b"!"), GuestProtocolError, "returned with operation"),
        (saying(b"H" + SAID), GuestProtocolError, "returned with operation b'H'"),
        (saying(b"E"), GuestProtocolError, "operation b'E' while it was head"),
        (saying(b"S" + SAID, after="(drop (call $call))"), GuestProtocolError, "called with"),
        (saying(b"S\xff\xff\xff\x7f200"), GuestProtocolError, "bytes of headers"),
        (saying(b"S" + (3).to_bytes(4, "little") + b"999"), GuestProtocolError, "status"),
        (
            "(i32.store (i32.const 0x30400) (i32.const -1))",
            GuestProtocolError,
            "frame of 4294967295 bytes",
        ),
        (saying(b"X\nTypeError: no"), GuestFailed, "raised an error"),
        ("unreachable", GuestFailed, "aborted"),
    ],
)
def test_what_a_guest_may_not_say_ends_its_request_with_a_clear_error(lab, body, error, message):
    app = lab.start(wat(body))
    with pytest.raises(error, match=message):
        app.call("/")
    assert app.guest.idle == body.startswith(saying(b"X\nTypeError: no"))


def test_a_reactor_in_text_is_one_too(lab):
    app = lab.start(wat(saying(b"S" + SAID)))
    assert app.call("/") == (200, {}, b"hi")


@pytest.mark.parametrize(
    ("more", "start", "error", "message"),
    [
        ("", "(i32.const 0)", AppFailedToStart, "setup failed"),
        ("", "(i32.const -4)", GuestProtocolError, "outside of the memory"),
        ("", "(i32.const 64)", GuestProtocolError, "version 0 of the ABI"),
        ("", "unreachable", AppFailedToStart, "aborted"),
    ],
)
def test_a_start_that_fails_says_why(lab, more, start, error, message):
    source = wasmtime.wat2wasm(
        f"""(module (memory (export "memory") 10) {more}
        (func (export "isopod_start") (result i32) {start})
        (func (export "isopod_settings")) (func (export "isopod_handle")))"""
    )
    with pytest.raises(error, match=message):
        lab.start(bytes(source))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("(module)", "nothing that it exports"),
        ('(module (memory (export "memory") 1) (func (export "f")))', "no function 'isopod_start'"),
        (
            '(module (memory (export "memory") 1) (func (export "isopod_start") (param i32))'
            '(func (export "isopod_settings")) (func (export "isopod_handle")))',
            r"'isopod_start' has to be a function \(\) -> \(i32\)",
        ),
        (
            '(module (import "env" "socket" (func)) (memory (export "memory") 1)'
            '(func (export "isopod_start") (result i32) unreachable)'
            '(func (export "isopod_settings")) (func (export "isopod_handle")))',
            "provides: env.socket",
        ),
        (
            '(module (memory (export "memory") 1 2 shared)'
            '(func (export "isopod_start") (result i32) unreachable)'
            '(func (export "isopod_settings")) (func (export "isopod_handle")))',
            "threads",
        ),
        (b"\0asm\x0d\0\1\0", "component"),
        (b"#!/bin/sh", "no WebAssembly"),
    ],
)
def test_what_is_no_reactor_is_refused_by_name(lab, module, message):
    data = bytes(wasmtime.wat2wasm(module)) if isinstance(module, str) else module
    with pytest.raises(ModuleInvalid, match=message):
        lab.link(data)


def test_the_crate_for_rust_serves_and_streams(lab):
    module = rust_module(GUESTS / "kitchen.rs", lab.folder / "rust.wasm")
    app = lab.start(module, env={"KEY": "välue"})
    status, headers, body = app.call("/p%20q?a=1")
    assert (status, headers["content-type"]) == (201, "text/plain")
    assert body.decode() == "GET /p%20q?a=1 x.test 443 192.0.2.7 a välue 1"
    sent = bytes(range(256)) * 2000
    assert app.call("/echo", body=sent)[2] == sent
    assert app.call("/bad")[1] == {"x-bad": "a  set-cookie: b"}
    with pytest.raises(GuestFailed):
        app.call("/panic")
    assert "at the disco" in app.said
    snapshot = lab.snapshot(module)
    assert snapshot.verdict == "sound"
    assert (
        lab.restore(module, snapshot, env={"KEY": "k"}).text("/").endswith("k 4")
    )  # warmed thrice
