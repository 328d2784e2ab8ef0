"""Guests that break the request protocol, frame by frame, under the real host side."""

import asyncio
import struct
import tempfile
from pathlib import Path

import pytest

from isopod.errors import GuestFailed, GuestProtocolError, IsopodError
from isopod.host.capabilities import no_world
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python.serve import PythonGuest
from tools.fuzz.framing import SCRIPTED, head

attack = pytest.mark.attack
REQUEST = GuestRequest(
    method="GET", path="/", query="", protocol="HTTP/1.1", scheme="http", host="x", port=80,
    client="127.0.0.1",
)  # fmt: skip
OK = b"S" + head(b"200 OK") + b"body"


async def nothing(_size: int) -> bytes:
    return b""


class Conversation:
    """A guest that says `frames`, whatever it is told, and what the host made of it."""

    def __init__(self, arena, *frames: bytes) -> None:
        self.arena = arena
        instance = arena.instance(arena.linkage(SCRIPTED), memory_mib=16)
        self.output: list[bytes] = []
        self.guest = PythonGuest(
            instance,
            arena.scheduler,
            lambda _stream, data: self.output.append(data),
            world=no_world(Path(tempfile.gettempdir())),
            app="attacker",
            tenant="attacker",
        )
        script = b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
        instance.start([("turn", script)])

    def start(self) -> None:
        self._run(self.guest.start())

    def send(self):
        async def ask():
            return await self.guest.exchange().send(REQUEST, nothing)

        return self._run(ask())

    def pieces(self) -> list[bytes]:
        found = []
        while (piece := self._run(self.guest.next_chunk())) is not None:
            found.append(piece)
        return found

    def finish(self) -> None:
        self._run(self.guest.finish())

    def _run(self, coroutine):
        return self.arena.run(asyncio.wait_for(coroutine, 60))


@attack("answering before there was a question", "ended: protocol error; it never serves")
def test_an_answer_without_a_question(arena):
    talk = Conversation(arena, OK)
    with pytest.raises(GuestProtocolError, match="while it was booting"):
        talk.start()


@attack("answering twice", "the first answer counts; the second is nobody's, and ends the guest")
@pytest.mark.parametrize("second", [OK, b"H" + head(b"200 OK"), b"Dmore", b"E", b"Q"])
def test_a_second_answer(arena, second):
    talk = Conversation(arena, b"Q", OK, second)
    talk.start()
    assert talk.send().body == b"body"
    # It comes with the next request, before the guest can have looked at that.
    if second != OK and not second.startswith(b"H"):
        with pytest.raises(IsopodError):
            talk.send()
    else:
        assert talk.send().status == 200  # it answers blindly, as it may: to its own client


@attack("never answering", "ended at its deadline, or when the guest ends")
def test_no_answer(arena):
    talk = Conversation(arena, b"Q")
    talk.start()
    with pytest.raises(GuestFailed):
        talk.send()


@attack("more of a response after its end, told by its Content-Length", "dropped")
def test_more_than_was_declared(arena):
    talk = Conversation(arena, b"Q", b"H" + head(b"200 OK\ncontent-length:0"), b"Dmore", b"E", OK)
    talk.start()
    assert not talk.send().more
    talk.finish()
    assert talk.guest.idle
    assert talk.send().body == b"body"


@attack(
    "a frame out of turn after the last response was whole",
    "ended; the next request gets another instance",
)
def test_a_guest_that_ends_itself_is_no_fault_of_ours(arena):
    talk = Conversation(arena, b"Q", b"H" + head(b"200 OK\ncontent-length:0"), b"Q")
    talk.start()
    talk.send()
    talk.guest.abandon()
    with pytest.raises(GuestFailed, match="was ended"):
        talk.finish()
        talk.send()
    assert not talk.guest.idle


@pytest.mark.parametrize(
    "text",
    [
        b"200 OK\nx: a\r\n\r\nHTTP/1.1 200 OK",
        b"200 OK\nset-cookie\r: a=1",
        b"200 OK\nx: a\nset-cookie : b",
        b"200 OK\nx: a\0",
        b"200 OK\n\nbody",
        b"200 OK\nx",
    ],
)
@attack(
    "response splitting: line breaks, NULs and spaces in names, values and the status",
    "refused: 502 guest_protocol_error",
)
def test_no_response_becomes_two(arena, text):
    talk = Conversation(arena, b"Q", b"S" + head(text))
    talk.start()
    with pytest.raises(GuestProtocolError):
        talk.send()


@pytest.mark.parametrize(
    "lines",
    [b"5\ncontent-length:6", b"5\ncontent-length:5", b"-1", b"+5", b"0x5", b"5,5", b"9" * 19, b""],
)
@attack(
    "Content-Length: twice, negative, signed, hexadecimal, as a list, of 19 digits, empty",
    "refused: 502 guest_protocol_error",
)
def test_a_length_is_one_number(arena, lines):
    talk = Conversation(arena, b"Q", b"S" + head(b"200 OK\ncontent-length:" + lines) + b"body")
    talk.start()
    with pytest.raises(GuestProtocolError, match="Content-Length"):
        talk.send()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"S",
        b"S\xff\xff\xff\xff",
        b"S" + struct.pack("<I", 65537) + bytes(65537),
        b"S" + head(b"\n".join([b"200 OK", *[b"x:y"] * 201])),
        b"S" + head(b"101 Switching Protocols"),
        b"S" + head(b"999 Odd"),
        b"L" + b"o" * 100_000,
        b"R{}",
        b"I" + bytes(4),
        b"C",
        b"Z",
        b"\0",
    ],
)
@attack(
    "forged frames: no head, a head longer than its frame, too many headers, interim and unknown "
    "statuses, output of 100 KB at once, frames of the boot and of the builder, unknown ones",
    "ended: protocol error, whatever the phase",
)
def test_forged_frames(arena, frame):
    talk = Conversation(arena, b"Q", frame)
    talk.start()
    with pytest.raises(GuestProtocolError):
        talk.send()
    assert not talk.guest.idle


@attack("a response in a million empty pieces", "each is waited for like any other; bounded by "
        "the deadline and limits.cpu_ms_per_request")  # fmt: skip
def test_empty_pieces(arena):
    talk = Conversation(arena, b"Q", b"H" + head(b"200 OK"), *[b"D"] * 2000, b"E")
    talk.start()
    assert talk.send().more
    assert talk.pieces() == [b""] * 2000
    assert talk.guest.idle


# -- of a guest that has many exchanges -----------------------------------------------------


def wait(*items: bytes, ms: int = 0xFFFFFFFF, sockets: bytes = b"") -> bytes:
    count = len(sockets) // 5
    return struct.pack("<cIH", b"W", ms, count) + sockets + b"".join(items)


def item(kind: bytes, number: int, payload: bytes = b"") -> bytes:
    return struct.pack("<cII", kind, number, len(payload)) + payload


HEAD = head(b"200 OK")


@attack(
    "many exchanges: items cut short or longer than their frame, of exchanges that are not open, "
    "out of turn, unknown, more than the window; waits that are none",
    "ended: protocol error",
)
@pytest.mark.parametrize(
    "said",
    [
        b"W",
        wait()[:6],
        struct.pack("<cIH", b"W", 0, 65535),
        wait(b"S"),
        wait(struct.pack("<cII", b"S", 1, 1 << 31)),
        wait(item(b"S", 2, HEAD)),
        wait(item(b"F", 7)),
        wait(item(b"D", 1, b"x")),
        wait(item(b"E", 1)),
        wait(item(b"?", 1)),
        wait(item(b"r", 1)),
        wait(item(b"S", 1, HEAD), item(b"D", 1, b"x")),
        wait(item(b"S", 1, HEAD), item(b"S", 1, HEAD)),
        b"Q",
        b"S" + HEAD,
    ],
)
def test_a_guest_with_many_exchanges_that_breaks_the_rules(arena, said):
    talk = Conversation(arena, wait(), said)
    talk.start()
    with pytest.raises(GuestProtocolError):
        talk.send()
        talk.send()
    assert not talk.guest.idle


@attack("many exchanges: a head that is none", "502 guest_protocol_error for that request alone")
def test_a_wrong_head_costs_its_exchange(arena):
    talk = Conversation(
        arena, wait(), wait(item(b"S", 1, head(b"999"))), wait(item(b"F", 1)),
        wait(item(b"S", 2, HEAD + b"body"), item(b"F", 2)),
    )  # fmt: skip
    talk.start()
    with pytest.raises(GuestProtocolError, match="the status"):
        talk.send()
    assert talk.guest.idle
    assert talk.send().body == b"body"


@attack(
    "many exchanges: waits that end at once, for ever",
    "bounded by the deadline, and by its CPU's share",
)
def test_a_guest_that_never_waits_does_not_hold_the_loop(arena):
    talk = Conversation(arena, wait(), *(wait(ms=0) for _ in range(3000)), b"Q")
    talk.start()
    with pytest.raises(GuestProtocolError):
        talk.send()
    # Sockets that it never made are ready at once.
    talk = Conversation(arena, wait(), wait(sockets=struct.pack("<IB", 9, 1) * 1000), b"Q")
    talk.start()
    with pytest.raises(GuestProtocolError):
        talk.send()
