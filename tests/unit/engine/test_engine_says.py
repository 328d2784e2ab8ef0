"""Calls in which a guest names what it says, and finds the answer in its inbox."""

from collections.abc import Iterator

import pytest
import wasmtime
from tests.unit.engine.conftest import Told

from isopod.engine.instance import MAX_FRAME_BYTES, Instance, InstanceSpec, Mailbox, State
from isopod.engine.linker import HostImport, Linkage
from isopod.errors import GuestProtocolError

# say(pointer, size, unused) gives nothing; `half` takes a float, and gives what the host says.
MODULE = """
(module
  (import "x" "say" (func $say (param i32 i32 i32)))
  (import "x" "half" (func $half (param f64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "hello")
  (func (export "greet") (result i32)
    (call $say (i32.const 100) (i32.const 5) (i32.const 0))
    (i32.load8_u (i32.const 205)))  ;; the answer's second byte
  (func (export "far") (call $say (i32.const 65535) (i32.const 2) (i32.const 0)))
  (func (export "much") (call $say (i32.const 0) (i32.const 0x7fffffff) (i32.const 0)))
  (func (export "halve") (result i32) (call $half (f64.const 1.5))))
"""
IMPORTS = (
    HostImport("x", "say", 3, has_result=False, waits=True, says=True),
    HostImport("x", "half", 1, is_float=True),
)


@pytest.fixture
def told(engine: wasmtime.Engine) -> Iterator[Told]:
    linkage = Linkage(engine, wasmtime.Module(engine, wasmtime.wat2wasm(MODULE)), IMPORTS)
    spec = InstanceSpec(argv=(), env=(), preopens=(), memory_bytes=1 << 20)
    made = Told(Instance(linkage, spec))
    made.instance.mailbox = Mailbox(inbox=200, outbox=0, size=16)

    def ended(error) -> None:
        made.ended, made.error = True, error

    made.instance.on_exit = ended
    yield made
    made.instance.close()


def test_what_is_said_is_read_where_it_is_and_answered_in_the_inbox(told):
    told.instance.start([("greet", None)])
    told.run([b"ab"])
    assert told.frames == [b"hello"]
    assert (told.ended, told.error, told.instance.returned) == (True, None, ord("b"))


@pytest.mark.parametrize("export", ["far", "much"])
def test_what_cannot_be_said_ends_the_guest(told, export):
    assert MAX_FRAME_BYTES < 0x7FFFFFFF
    told.instance.start([(export, None)])
    told.run()
    assert isinstance(told.error, GuestProtocolError) and not told.frames


def test_an_answer_longer_than_the_inbox_is_ours_to_avoid(told):
    told.instance.start([("greet", None)])
    told.run([b"x" * 13])
    assert told.ended and told.instance.state is State.ENDED


def test_an_import_may_take_a_float(told):
    told.instance.on_import = lambda name, numbers: 7 if name == "half" else 0
    told.instance.start([("halve", None)])
    told.run()
    assert (told.error, told.instance.returned) == (None, 7)
