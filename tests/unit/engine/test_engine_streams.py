"""Standard streams of guests that lie about where their buffers are."""

from collections.abc import Callable, Iterator

import pytest
import wasmtime

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.instance import Instance, InstanceSpec, State
from isopod.engine.linker import Imports, Linkage
from isopod.errors import EngineError, GuestProtocolError, IsopodError

# `go` calls fd_read or fd_write with what it is given, and keeps the errno at 0.
TEXT = """(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "{buffers}")
  (data (i32.const 256) "hello")
  (func (export "go")
    (i32.store (i32.const 0)
      (call ${name} (i32.const {fd}) (i32.const {at}) (i32.const {count}) (i32.const {done})))))"""


class Pipes:
    """Keeps what is written; gives `input` in pieces, or lets the guest wait."""

    def __init__(self, input: bytes | None = b"", room: int = 1 << 30) -> None:
        self.written: list[tuple[int, bytes]] = []
        self.input, self.room = input, room

    def read(self, most: int) -> bytes | None:
        if self.input is None:
            return None
        data, self.input = self.input[:most], self.input[most:]
        return data

    def write(self, fd: int, data: bytes) -> bool:
        self.written.append((fd, data))
        self.room -= len(data)
        return self.room >= 0


def words(*numbers: int) -> str:
    return "".join(
        f"\\{byte:02x}" for one in numbers for byte in (one & 0xFFFFFFFF).to_bytes(4, "little")
    )


@pytest.fixture(scope="module")
def imports() -> Imports:
    return Imports(make_engine(EngineSettings()), streams=True)


class Ran:
    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.error: IsopodError | None = None
        instance.on_exit = self._ended

    def _ended(self, error: IsopodError | None) -> None:
        self.error = error

    def go(self) -> "Ran":
        while self.instance.state is State.READY:
            self.instance.poll()
        return self

    def u32(self, at: int) -> int:
        return int.from_bytes(self.instance.memory()[at : at + 4], "little")


Run = Callable[..., Ran]


@pytest.fixture
def run(imports: Imports) -> Iterator[Run]:
    made: list[Instance] = []

    def go(
        name: str,
        fd: int,
        buffers: tuple[int, ...],
        pipes: Pipes,
        *,
        at: int = 16,
        count: int | None = None,
        done: int = 8,
    ) -> Ran:
        given = len(buffers) // 2 if count is None else count
        text = TEXT.format(buffers=words(*buffers), name=name, fd=fd, at=at, count=given, done=done)
        module = wasmtime.Module(imports.engine, text)
        spec = InstanceSpec(argv=(), env=(), preopens=(), memory_bytes=1 << 20)
        instance = Instance(Linkage(imports.engine, module, imports), spec)
        made.append(instance)
        instance.streams = pipes
        instance.start([("go", None)])
        return Ran(instance).go()

    yield go
    for instance in made:
        instance.close()


def test_what_is_written_is_gathered_and_what_is_read_is_scattered(run):
    pipes = Pipes()
    ran = run("write", 1, (256, 2, 0, 0, 258, 3), pipes)
    assert pipes.written == [(1, b"hello")] and (ran.u32(0), ran.u32(8)) == (0, 5)
    ran = run("read", 0, (300, 2, 400, 10), Pipes(b"abcdef"))
    assert bytes(ran.instance.memory()[300:302]) == b"ab"
    assert bytes(ran.instance.memory()[400:404]) == b"cdef"
    assert ran.u32(8) == 6


def test_a_write_that_nobody_takes_and_a_read_of_nothing_yet_wait_for_a_reply(run):
    ran = run("write", 2, (256, 5), Pipes(room=1))
    assert ran.instance.state is State.CALLING
    ran.instance.reply(b"")
    assert ran.go().error is None and ran.u32(8) == 5
    ran = run("read", 0, (300, 4), Pipes(None))
    assert ran.instance.state is State.CALLING
    ran.instance.reply(b"longer than it wanted")
    assert ran.go().error is None and ran.u32(8) == 4
    assert bytes(ran.instance.memory()[300:308]) == b"long\0\0\0\0"


def test_a_call_passes_a_part_of_what_is_too_much_for_one(run):
    pipes = Pipes()
    ran = run("write", 1, (0, 60_000) * 8, pipes)
    assert ran.u32(8) == len(pipes.written[0][1]) == 256 << 10


@pytest.mark.parametrize(
    "lie",
    [
        {"buffers": (0xFFFFFFF0, 0x20)},
        {"buffers": (65530, 100)},
        {"buffers": (256, 5, 0x7FFFFFFF, 5)},
        {"buffers": (256, 5), "at": 65530, "count": 2},
        {"buffers": (256, 5), "at": -8, "count": 1},
        {"buffers": (256, 5), "done": 65534},
        {"buffers": (256, 5), "done": -1},
    ],
)
@pytest.mark.parametrize(("name", "fd"), [("read", 0), ("write", 1)])
def test_a_buffer_outside_of_the_memory_ends_the_guest(run, name, fd, lie):
    pipes = Pipes(b"x" * 100)
    ran = run(name, fd, pipes=pipes, **lie)
    assert isinstance(ran.error, GuestProtocolError)
    assert pipes.written == []


@pytest.mark.parametrize(
    ("name", "fd", "count", "errno"),
    [("read", 1, 1, 8), ("write", 0, 1, 8), ("write", 1, 1025, 28), ("write", 77, 1, 8)],
)
def test_a_wrong_direction_and_too_many_buffers_are_errnos(run, name, fd, count, errno):
    ran = run(name, fd, (256, 5), Pipes(), count=count)
    assert ran.error is None and ran.u32(0) == errno


def test_what_a_stream_raises_ends_the_guest(run):
    class Broken(Pipes):
        def write(self, fd: int, data: bytes) -> bool:
            raise GuestProtocolError("no header")

    assert run("write", 1, (256, 5), Broken()).error.message == "no header"


@pytest.mark.parametrize("name", ["host", "wasi_unstable", "env", ""])
def test_a_module_of_an_apps_own_may_not_import_what_runtimes_have(imports, name):
    kind = "(func (param i32 i32 i32 i32) (result i32))"
    module = wasmtime.Module(imports.engine, f'(module (import "{name}" "call" {kind}))')
    with pytest.raises(EngineError, match="is not there"):
        Linkage(imports.engine, module, imports)
