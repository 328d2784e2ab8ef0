"""Programs in real instances: requests, bodies, streams, files, wrongs, limits."""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.c_modules import compiled
from tests.open_files import assert_back_to, descriptors

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.linker import Imports
from isopod.engine.machine_code import CompiledHere
from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    BadRequest,
    CommandFailed,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.own_modules import OwnModules
from isopod.runtimes.wasi.command import ProgramCommand
from isopod.runtimes.wasi.serve import Program, ProgramGuest

CASES = Path(__file__).parents[2] / "guests" / "wcgi" / "cases.c"


class Stage:
    """A scheduler, and one program that is asked for one thing after the other."""

    def __init__(self, runner: asyncio.Runner, base: Path) -> None:
        self._runner = runner
        here = CompiledHere(make_engine(EngineSettings()))
        self.tree, self.tmp, self.volume = base / "tree", base / "tmp", base / "volume"
        for folder in (self.tree / "data", self.tmp, self.volume):
            folder.mkdir(parents=True)
        (self.tree / "cases.wasm").write_bytes(compiled(CASES))
        (self.tree / "data" / "greeting.txt").write_text("good morning ")
        imports = Imports(here.engine, streams=True)
        exports = {"_start": ("", ""), "memory": None}
        self.modules = OwnModules(here, imports, exports=exports)
        self.output: list[tuple[str, bytes]] = []
        self.program = Program(
            file=self.tree / "cases.wasm",
            app_tree=self.tree,
            tmp=self.tmp,
            env={"GREETING": "hi"},
            memory_bytes=24 << 20,
            disk_bytes=1 << 20,
            share=("acme", "cases"),
            clock_step_ns=1_000_000,
        )
        self.guests: list[ProgramGuest] = []
        self.scheduler = self.run(_made(here.engine))
        self.guest = self.new()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(60):
                return await coroutine

        return self._runner.run(bounded())

    def new(self, **more: Any) -> ProgramGuest:
        made = ProgramGuest(
            replace(self.program, **more),
            modules=self.modules,
            scheduler=self.scheduler,
            output=lambda stream, data: self.output.append((stream, data)),
        )
        self.guests.append(made)
        self.run(made.start())
        return made

    def call(self, path: str, body: bytes | None = None, *, guest: ProgramGuest | None = None):
        """Status, headers and the whole body."""
        return self.run(_call(guest or self.guest, path, body))

    @property
    def said(self) -> str:
        return b"".join(data for _, data in self.output).decode()


async def _made(engine: Any) -> Scheduler:
    return await Scheduler(engine).__aenter__()


def asked(path: str, body: bytes | None = None) -> GuestRequest:
    headers = [("host", "cases.test"), ("x-two", "a"), ("x-two", "b")]
    if body is not None:
        headers.append(("content-length", str(len(body))))
    return GuestRequest(
        *("GET" if body is None else "POST", path, "q=1", "HTTP/1.1", "http", "cases.test", 80),
        "192.0.2.1",
        headers=tuple(headers),
        has_body=body is not None,
    )


def reader(body: bytes | None):
    left = body or b""

    async def read(size: int) -> bytes:
        nonlocal left
        await asyncio.sleep(0)
        data, left = left[:size], left[size:]
        return data

    return read


async def _call(guest: ProgramGuest, path: str, body: bytes | None):
    exchange = guest.exchange()
    response = await exchange.send(asked(path, body), reader(body))
    whole, chunk = [response.body], None
    while response.more and (chunk := await exchange.next_chunk()) is not None:
        whole.append(chunk)
    await exchange.finish()
    return response.status, dict(response.headers), b"".join(whole)


@pytest.fixture(scope="module")
def the_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        made = Stage(runner, tmp_path_factory.mktemp("wasi"))
        yield made
        made.run(made.scheduler.__aexit__(None, None, None))


@pytest.fixture
def stage(the_stage: Stage) -> Iterator[Stage]:
    the_stage.output.clear()
    yield the_stage
    for guest in the_stage.guests[1:]:
        guest.close()
    del the_stage.guests[1:]
    assert the_stage.call("/")[2] == b"hello\n"  # whatever the test did


def test_a_request_is_in_the_environment_and_the_response_on_standard_output(stage):
    status, headers, body = stage.call("/env")
    assert (status, headers) == (200, {b"content-type": b"text/plain"})
    found = dict(line.split("=", 1) for line in body.decode().splitlines())
    expected = {
        "GREETING": "hi",
        "PATH_INFO": "/env",
        "QUERY_STRING": "q=1",
        "HTTP_X_TWO": "a, b",
        "REQUEST_METHOD": "GET",
        "REMOTE_ADDR": "192.0.2.1",
        "SERVER_PORT": "80",
    }
    assert {name: found[name] for name in expected} == expected
    assert stage.call("/argv")[2] == b"1 cases.wasm\n"
    status, headers, body = stage.call("/status")
    assert (status, headers[b"x-own"], body) == (404, b"a: b", b"<p>no")
    assert stage.call("/redirect")[:2] == (302, {b"location": b"/elsewhere"})
    assert stage.call("/exit-0")[2] == b""
    assert stage.call("/terminal", guest=stage.new())[2] == b"0 0 0 1\n"
    with pytest.raises(BadRequest):
        stage.call("/%00")


def test_bodies_stream_both_ways_whatever_their_size(stage):
    sent = bytes(range(256)) * 8000
    assert stage.call("/echo", sent)[2] == sent
    assert stage.call("/echo", b"")[2] == stage.call("/echo")[2] == b""
    assert stage.call("/large")[2] == bytes(64 << 16)

    async def pieces() -> list[bytes]:
        exchange = stage.guest.exchange()
        response = await exchange.send(asked("/pieces"), reader(None))
        found = [response.body]
        while (chunk := await exchange.next_chunk()) is not None:
            found.append(chunk)
        return found

    assert [one for one in stage.run(pieces()) if one] == [b"piece %d\n" % n for n in range(3)]


def test_a_flood_waits_for_its_client_and_that_is_no_time_of_the_programs(stage):
    async def flood() -> None:
        guest = stage.new_in_loop()
        exchange = guest.exchange()
        response = await exchange.send(asked("/flood"), reader(None))
        while exchange.client_wait_s < 0.05:
            await asyncio.sleep(0)
        assert guest.waiting and len(response.body) < 1 << 20
        taken = 0
        while taken < 4 << 20:
            taken += len(await exchange.next_chunk())
        exchange.abandon()
        exchange.stop()
        with pytest.raises(GuestFailed):
            await exchange.next_chunk()
        assert guest.idle

    stage.new_in_loop = lambda: stage.guest
    stage.run(flood())


def test_each_request_has_an_instance_of_its_own(stage):
    one, two = (stage.call("/random")[2].split() for _ in range(2))
    assert one[0] != two[0] and (one[1], two[1]) == (b"0", b"0")
    before, began = stage.guest.cpu_ns, time.time_ns()
    seconds, nanoseconds = map(int, stage.call("/clock")[2].split())
    assert abs(seconds * 10**9 + nanoseconds - began) < 10**9 and nanoseconds % 10**6 == 0
    assert stage.guest.cpu_ns > before


def test_its_own_files_are_there_to_read_and_tmp_is_empty_for_each(stage):
    assert stage.call("/file")[2] == b"good morning Operation not permitted\n"
    for _ in range(2):
        guest = stage.new()
        assert stage.call("/tmp", guest=guest)[2] == b"new\n"
        assert not guest.idle  # it is not used again: the next has another /tmp
        (stage.tmp / "mark").unlink()


def test_a_volume_stays_and_is_bounded_over_all_requests(stage):
    volumes = (LentVolume(stage.volume, "/data", 512 << 10, 0),)
    guest = stage.new(volumes=volumes)
    assert [stage.call("/count", guest=guest)[2] for _ in range(3)] == [b"1", b"2", b"3"]
    said = [stage.call("/fill", guest=guest)[2] for _ in range(12)]
    assert said[0] == b"written\n" and said[-1] == b"No space left on device\n"
    assert sum(one.stat().st_size for one in stage.volume.iterdir()) <= 512 << 10


def test_a_module_that_wants_more_memory_than_its_limit_says_so(stage):
    with pytest.raises(MemoryLimitExceeded, match="258 pages exceeds"):
        stage.call("/", guest=stage.new(memory_bytes=16 << 20))


def test_without_a_volume_there_is_none(stage):
    with pytest.raises(GuestFailed, match="status 9"):
        stage.call("/count")


def test_standard_error_is_the_log_and_what_is_opened_in_place_of_output_is_a_file(stage):
    assert stage.call("/stderr")[2] == b""
    assert stage.output == [("stderr", b"first line\n"), ("stderr", b"second")] or (
        stage.said == "first line\nsecond"
    )
    guest = stage.new()
    assert stage.call("/dup", guest=guest)[2] == b""
    assert (stage.tmp / "aside").read_text() == "not for the client\n"


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/nothing", GuestProtocolError, "without a response"),
        ("/body-first", GuestProtocolError, "'<html>' where a header belongs"),
        ("/half", GuestProtocolError, "middle of its headers"),
        ("/unended", GuestProtocolError, "middle of its headers"),
        ("/empty-first", GuestProtocolError, "empty line before any header"),
        ("/nul", GuestProtocolError, "control byte"),
        ("/binary", GuestProtocolError, "where a header belongs"),
        ("/endless-head", GuestProtocolError, "without an end of its headers"),
        ("/two-statuses", GuestProtocolError, "Status twice"),
        ("/status-0", GuestProtocolError, "the status '099'"),
        ("/exit", GuestFailed, "status 3 before it had answered"),
        ("/trap", GuestFailed, "aborted"),
        ("/late-trap", GuestFailed, "aborted"),
        ("/memory", MemoryLimitExceeded, "24 MiB"),
    ],
)
def test_what_a_program_does_wrong_is_an_error_that_says_so(stage, path, error, message):
    with pytest.raises(error, match=message):
        stage.call(path)
    assert stage.guest.idle


def test_a_status_after_the_response_is_a_line_in_the_log(stage):
    assert stage.call("/late-exit")[2] == b"said\n"
    assert stage.output == [("isopod", b"the program ended with status 4\n")]


@pytest.mark.parametrize("path", ["/loop", "/sleep", "/echo"])
def test_a_program_is_stopped_wherever_it_is_and_leaves_nothing_open(stage, path):
    async def never(_size: int) -> bytes:
        return await asyncio.get_running_loop().create_future()

    async def stop() -> None:
        exchange = stage.guest.exchange()
        sending = asyncio.ensure_future(exchange.send(asked(path, b"x"), never))
        while not stage.guest.memory_bytes:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        exchange.stop()
        if path == "/echo":  # it had begun to answer
            await sending
            with pytest.raises(GuestFailed):
                await exchange.next_chunk()
        else:
            with pytest.raises(GuestFailed):
                await sending

    before = descriptors()
    stage.run(stop())
    assert_back_to(before)


def test_a_command_is_the_program_with_words_and_its_status_is_how_it_ended(stage):
    def command(*words: str) -> ProgramCommand:
        return ProgramCommand(
            stage.program,
            words,
            modules=stage.modules,
            scheduler=stage.scheduler,
            output=lambda stream, data: stage.output.append((stream, data)),
        )

    stage.run(command("migrate", "0").start())
    said = b"".join(data for stream, data in stage.output if stream == "stdout")
    assert (said, ("stderr", b"-1\n") in stage.output) == (b"migrate\n0\n", True)
    with pytest.raises(CommandFailed, match="status 7"):
        stage.run(command("migrate", "7").start())

    async def close() -> None:
        guest = command("migrate")
        starting = asyncio.ensure_future(guest.start())
        await asyncio.sleep(0)
        guest.close()
        with pytest.raises(GuestFailed):
            await starting

    stage.run(close())


def test_a_client_that_goes_away_while_it_sends_ends_the_program(stage):
    async def gone(_size: int) -> bytes:
        raise IsopodError("gone")

    async def call() -> None:
        exchange = stage.guest.exchange()
        await exchange.send(asked("/echo", b"x"), gone)
        await exchange.next_chunk()

    with pytest.raises(IsopodError, match="gone"):
        stage.run(call())
