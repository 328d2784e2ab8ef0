"""Programs in C that connect: by descriptors of their C library, before real servers."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.c_modules import compiled
from tests.open_files import assert_back_to, descriptors
from tests.unit.host.certificates import Authority
from tests.unit.host.world import allow, closed_port, echo, here, made_broker, server

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.linker import Imports
from isopod.engine.machine_code import CompiledHere
from isopod.engine.scheduler import Scheduler
from isopod.errors import GuestFailed, GuestProtocolError
from isopod.host.capabilities import World
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.own_modules import OwnModules
from isopod.runtimes.wasi.command import ProgramCommand
from isopod.runtimes.wasi.serve import Program, ProgramGuest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "tests" / "guests" / "wcgi" / "net.c"


@dataclass
class Lab:
    """Programs of one module. `output` is what they leave in the log."""

    folder: Path
    here: CompiledHere
    output: list[tuple[str, str]] = field(default_factory=list)

    def run(self, coroutine: Any) -> None:
        self.output.clear()
        asyncio.run(asyncio.wait_for(coroutine, 60))

    @contextlib.asynccontextmanager
    async def program(self, *ports: int, extra: str = "") -> AsyncIterator["One"]:
        """It may reach these ports of localhost."""
        broker = made_broker(
            {"app": ("default", allow(*(f"localhost:{port}" for port in ports)))}, here(*ports)
        )
        world = World.make(broker, trust="", extra=extra, key_folder=self.folder)
        async with Scheduler(self.here.engine) as scheduler:
            imports = Imports(self.here.engine, streams=True)
            exports = {"_start": ("", ""), "memory": None}
            modules = OwnModules(self.here, imports, exports=exports)
            spec = Program(
                file=self.folder / "net.wasm", app_tree=self.folder, tmp=self.folder, env={},
                memory_bytes=24 << 20, disk_bytes=1 << 20, share=("default", "app"),
                clock_step_ns=1_000_000, world=world, app="app",
            )  # fmt: skip
            made = One(self, spec, modules, scheduler)
            try:
                yield made
            finally:
                made.close()
                assert not world.open_now.by_app
                world.close()
                broker.close()


@dataclass
class One:
    lab: Lab
    spec: Program
    modules: OwnModules
    scheduler: Scheduler
    made: list[ProgramGuest] = field(default_factory=list)

    def new(self) -> ProgramGuest:
        guest = ProgramGuest(
            self.spec, modules=self.modules, scheduler=self.scheduler, output=self.take
        )
        self.made.append(guest)
        return guest

    def take(self, stream: str, data: bytes) -> None:
        self.lab.output.append((stream, data.decode()))

    async def ask(self, path: str, query: str, guest: ProgramGuest | None = None) -> str:
        if guest is None:
            guest = self.new()
            await guest.start()
        exchange = guest.exchange()
        response = await exchange.send(
            GuestRequest("GET", path, query, "HTTP/1.1", "http", "x", 80, "::1"), _no_body
        )
        body = response.body
        while response.more and (chunk := await exchange.next_chunk()) is not None:
            body += chunk
        await exchange.finish()
        return body.decode()

    def close(self) -> None:
        for guest in self.made:
            guest.close()


async def _no_body(_size: int) -> bytes:
    return b""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.wasm").write_bytes(compiled(SOURCE, f"-I{ROOT / 'sdk' / 'c'}", "-Wall"))
    yield Lab(folder, CompiledHere(make_engine(EngineSettings())))


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One line for one line, and the end."""
    line = await reader.readline()
    writer.write(b"you said " + line + b"x" * 300_000)
    await writer.drain()


def test_a_program_connects_to_what_is_listed_and_what_it_sends_is_counted(lab):
    async def main() -> None:
        async with server(answer) as port, lab.program(port) as app:
            guest = app.new()
            await guest.start()
            said = await app.ask("/ask", str(port), guest)
            before = descriptors()
            assert said == await app.ask("/ask", str(port), guest)
            assert said == "you said hello\n" + "x" * 300_000
            assert guest.sent_bytes == 12
            assert_back_to(before)
            received = 0

            async def count(reader: Any, writer: Any) -> None:
                nonlocal received
                while data := await reader.read(1 << 16):
                    received += len(data)
                writer.write(b"%d" % received)

            async with server(count) as other, lab.program(other) as sender:
                assert await sender.ask("/send", str(other)) == str(4 << 20)
                assert sender.made[0].sent_bytes == 4 << 20

    lab.run(main())


def test_everything_else_is_denied_and_the_log_says_what_to_write(lab):
    async def main() -> None:
        async with server(answer) as port, lab.program() as app:
            assert await app.ask("/ask", str(port)) == "connect Permission denied\n"
            (stream, line), *_ = lab.output
            assert stream == "isopod"
            assert f'isopod.toml: [network] allow = ["localhost:{port}"]' in line
            assert await app.ask("/ask", f"{port},evil.test") == "connect Permission denied\n"
            assert await app.ask("/ask", f"{port},169.254.169.254") == "connect Permission denied\n"

    lab.run(main())


def test_a_failed_connection_says_why(lab):
    async def main() -> None:
        with closed_port() as port:
            async with lab.program(port) as app:
                assert await app.ask("/ask", str(port)) == "connect Connection refused\n"

        async def reset(_reader: Any, writer: Any) -> None:
            writer.transport.abort()

        async with server(reset) as port, lab.program(port) as app:
            said = await app.ask("/ask", str(port))
            assert said.startswith(("read", "write")) or not said

    lab.run(main())


def test_the_host_speaks_tls_and_checks_the_certificate(lab, tmp_path):
    authority = Authority(tmp_path)
    context = authority.server(authority.issue("localhost"))

    async def main() -> None:
        async with server(answer, ssl=context) as port:
            async with lab.program(port, extra=authority.pem) as app:
                said = await app.ask("/tls", str(port))
                assert said == "you said hello\n" + "x" * 300_000
                assert app.made[0].sent_bytes > 300  # a handshake, too
            async with lab.program(port) as app:
                assert await app.ask("/tls", str(port)) == "connect Protocol error\n"
                assert "no TLS with 'localhost'" in lab.output[-1][1]
                assert "unable to get local issuer certificate" in lab.output[-1][1]
        async with server(echo) as port, lab.program(port) as app:
            assert await app.ask("/tls", str(port)) == "connect Protocol error\n"

    lab.run(main())


def test_poll_waits_for_several_at_once_and_for_no_longer_than_it_says(lab):
    async def main() -> None:
        async with server(echo) as port, lab.program(port) as app:
            said = await app.ask("/poll", str(port))
            assert said == "nothing nothing 3 7 second\n0 1\n"

    lab.run(main())


def test_numbers_and_pointers_that_are_chosen_to_hurt_are_refused(lab):
    async def main() -> None:
        async with server(echo) as port, lab.program(port) as app:
            said = await app.ask("/lies", str(port))
            assert said == "1 1 1 11111111111111 1 16384 512 0 0 1 1 1\n"
            with pytest.raises(GuestProtocolError, match="outside its memory"):
                await app.ask("/outside", str(port))

    lab.run(main())


def test_an_instance_has_so_many_connections_and_leaves_none(lab):
    async def main() -> None:
        async with server(echo) as port, lab.program(port) as app:
            assert await app.ask("/many", str(port)) == "64 No file descriptors available\n"
            assert "too many are open" in lab.output[-1][1]
            assert not app.spec.world.open_now.by_app

    lab.run(main())


def test_a_program_is_ended_while_it_waits_for_a_peer(lab):
    async def main() -> None:
        asked = asyncio.Event()

        async def silent(reader: Any, _writer: Any) -> None:
            await reader.readline()
            asked.set()
            await reader.read()

        async with server(silent) as port, lab.program(port) as app:
            guest = app.new()
            await guest.start()
            exchange = guest.exchange()
            request = GuestRequest("GET", "/ask", str(port), "HTTP/1.1", "http", "x", 80, "::1")
            sending = asyncio.ensure_future(exchange.send(request, _no_body))
            await asked.wait()
            assert guest.waiting
            exchange.stop()
            with pytest.raises(GuestFailed):
                await sending
                assert await exchange.next_chunk() is None
            assert not app.spec.world.open_now.by_app

    lab.run(main())


def test_a_command_connects_too(lab):
    async def main() -> None:
        async with server(answer) as port, lab.program(port) as app:
            command = ProgramCommand(
                app.spec, ["net", str(port)],
                modules=app.modules, scheduler=app.scheduler, output=app.take,
            )  # fmt: skip
            await command.start()
            said = "".join(text for stream, text in lab.output if stream == "stdout")
            assert said == "you said hello\n" + "x" * 300_000
            assert command.sent_bytes == 6

    lab.run(main())


def test_where_it_is_built_there_is_no_network(lab):
    async def main() -> None:
        async with server(answer) as port, lab.program(port) as app:
            app.spec = Program(
                **{name: getattr(app.spec, name) for name in app.spec.__slots__} | {"world": None}
            )
            assert await app.ask("/ask", str(port)) == "connect Network unreachable\n"
            assert "connect in a request" in lab.output[-1][1]

    lab.run(main())


def test_contexts_are_made_once(lab):
    world = World.make(made_broker({}), trust="", extra="", key_folder=lab.folder)
    assert world.contexts.default() is world.contexts.default()
    assert world.contexts.default().verify_mode is ssl.CERT_REQUIRED
    world.close()
