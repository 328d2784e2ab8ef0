"""What waits for a JavaScript guest that is in the middle of a turn."""

import asyncio

import pytest
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import GuestProtocolError
from isopod.runtimes.javascript import inbox
from isopod.runtimes.javascript.inbox import Inbox

PIECE = b"x" * (64 << 10)
# Items written by hand, which the host reads in the middle of the turn with what is asked next.
FLOOD = worker(
    """
    console.log("an item of its own, so that the box is seen");
    const head = [..."GET\\nhttp\\nlocalhost\\n80\\n/\\n0"].map((letter) => letter.charCodeAt(0));
    for (let n = 0; n < 1000000; n++) {
      forge("f", n, head);
      if (n % 2000 === 1999) crypto.getRandomValues(new Uint8Array(1));
    }
    return new Response("it went on");
    """,
    """
    let box;
    const set = DataView.prototype.setUint32;
    DataView.prototype.setUint32 = function (at, value, little) {
      if (at > 0 && this.byteLength === 262144) box = this;
      return set.call(this, at, value, little);
    };
    function forge(operation, number, bytes) {
      const at = 4 + box.getUint32(0, true);
      box.setUint8(at, operation.charCodeAt(0));
      set.call(box, at + 1, number, true);
      set.call(box, at + 5, bytes.length, true);
      bytes.forEach((byte, index) => box.setUint8(at + 9 + index, byte));
      set.call(box, 0, at + 9 + bytes.length - 4, true);
    }
    """,
)


def test_a_guest_that_asks_on_and_on_in_one_turn_is_ended(prepared_javascript, tmp_path):
    with Workshop(prepared_javascript, tmp_path) as shop:
        app = shop.start(FLOOD)
        with pytest.raises(GuestProtocolError, match="asks for more than it takes"):
            app.call()
        assert not app.guest.idle and not app.guest._inbox.held_bytes


def test_pieces_wait_for_room_and_each_sees_what_the_one_before_put_in():
    async def main() -> None:
        waiting = Inbox()
        said = 0

        async def say() -> None:
            nonlocal said
            await waiting.room()
            waiting.put(PIECE)
            said += 1

        tasks = [asyncio.create_task(say()) for _ in range(200)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert 0 < said < 20 and waiting.held_bytes <= inbox._ROOM + 2 * len(PIECE)
        tasks.pop().cancel()  # who waits may go
        taken = 0
        while len(tasks) * len(PIECE) > taken:
            taken += len(waiting.take(256 << 10))
            assert waiting.held_bytes <= inbox._ROOM + 2 * len(PIECE)
            await asyncio.sleep(0)
        assert said == len(tasks) and not waiting and not waiting.held_bytes

    asyncio.run(main())


def test_nobody_waits_for_a_guest_that_is_gone():
    async def main() -> None:
        waiting = Inbox()
        for _ in range(20):
            waiting.put(PIECE)
        rooms = [asyncio.create_task(waiting.room()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in rooms)
        waiting.clear()
        await asyncio.gather(*rooms)

    asyncio.run(main())


def test_there_is_a_bound_for_what_does_not_wait():
    waiting = Inbox()
    with pytest.raises(GuestProtocolError):
        for _ in range(1_000_000):
            waiting.put(b"x")
    assert waiting.held_bytes <= inbox._MOST + 1000
