"""What a request leaves in the meter, however it ends."""

import asyncio
import time
from dataclasses import replace

import pytest
from tests.unit.gateway.test_gateway_app import GONE, site  # noqa: F401  a fixture

from isopod.errors import GuestFailed
from isopod.gateway import fleet as fleet_module
from isopod.gateway.usage import RequestUse
from isopod.runtimes.guest import GuestResponse

MIB = 1 << 20


def requests(stage) -> list:
    return [one for one in stage.usage if one.kind == "request"]


def using(cpu_ns: int, response: GuestResponse | Exception | None = None, *, host_ns: int = 0):
    async def handler(guest, _request, body):
        guest.cpu_ns += cpu_ns
        guest.host_ns += host_ns
        while await body(100):
            pass
        if isinstance(response, Exception):
            raise response
        return response or GuestResponse(200, [], b"hello", more=False)

    return handler


def test_a_request_leaves_one_record(site, stage):  # noqa: F811
    stage.handler = using(7_000_000, host_ns=1_000)

    async def main() -> None:
        async with site() as shop:
            chunk = {"type": "http.request", "body": b"x" * 50, "more_body": False}
            headers = [(b"content-length", b"50")]
            answer = await shop.ask(
                b"/a?b=c", method="POST", headers=headers, messages=[chunk, GONE]
            )
            (one,) = requests(stage)
            assert (one.tenant, one.app, one.version) == ("default", "shop", 1)
            assert one.request_id == answer.headers[b"x-request-id"].decode()
            assert (one.outcome, one.status, one.cold, one.count) == ("ok", 200, True, 1)
            assert one.cpu_ns == 7_000_000
            assert 1_000 < one.host_ns < 1e9
            assert one.wall_100ms == 1 and 0 < one.wall_ns < 1e9
            assert one.wait_ns <= one.wall_ns
            assert one.peak_memory_bytes == 10 * MIB
            head = b"POST /a?b=c HTTP/1.1\r\nhost: shop.localhost\r\ncontent-length: 50\r\n\r\n"
            assert one.bytes_in == len(head) + 50
            sent = b"HTTP/1.1 200 OK\r\n" + b"".join(
                b"%s: %s\r\n" % header for header in answer.sent[0]["headers"]
            )
            assert one.bytes_out == len(sent + b"\r\n") + len(b"hello")
            await shop.ask()
            assert [one.cold for one in requests(stage)] == [True, False]
            assert requests(stage)[1].cpu_ns == 7_000_000  # not those of the request before
            (start,) = [one for one in stage.usage if one.kind == "start"]
            assert (start.outcome, start.instance, start.cpu_ns) == ("ok", one.instance, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "status"), [(GuestFailed("it trapped"), 502), (ValueError("ours"), 500)]
)
def test_a_guest_that_failed_is_billed_what_it_used(site, stage, error, status):  # noqa: F811
    stage.handler = using(5_000_000, error)

    async def main() -> None:
        async with site() as shop:
            answer = await shop.ask()
            (one,) = requests(stage)
            assert (one.cpu_ns, one.status, answer.status) == (5_000_000, status, status)
            assert one.outcome == answer.code
            assert one.bytes_out > len(answer.body) > 0

    asyncio.run(main())


def test_a_client_that_hangs_up_pays_for_what_its_guest_used(site, stage):  # noqa: F811
    async def handler(guest, _request, _body):
        guest.cpu_ns += 3_000_000
        await asyncio.Event().wait()

    stage.handler = handler

    async def main() -> None:
        async with site() as shop:
            await shop.ask(messages=[GONE])
            (one,) = requests(stage)
            assert (one.outcome, one.cpu_ns) == ("client_disconnected", 3_000_000)
            assert one.wall_ns > 0.2e9 and one.wait_ns > 0.1e9

    asyncio.run(main())


def test_a_request_past_its_deadline_is_billed(site, stage):  # noqa: F811
    async def handler(guest, _request, _body):
        guest.cpu_ns += 3_000_000
        await asyncio.Event().wait()

    stage.handler = handler

    async def main() -> None:
        async with site(deadline_ms=20) as shop:
            await shop.ask()
            (one,) = requests(stage)
            assert (one.outcome, one.status, one.cpu_ns) == ("deadline_exceeded", 504, 3_000_000)

    asyncio.run(main())


def test_work_after_the_response_is_billed(site, stage):  # noqa: F811
    async def handler(guest, _request, _body):
        async def works_on() -> None:
            guest.cpu_ns += 9_000_000
            guest.idle = True

        guest.cpu_ns += 1_000_000
        guest.next_chunk = works_on
        return GuestResponse(200, [], b"all of it", more=True)

    stage.handler = handler

    async def main() -> None:
        async with site() as shop:
            assert (await shop.ask()).body == b"all of it"
            assert requests(stage)[0].cpu_ns == 10_000_000

    asyncio.run(main())


def test_what_is_refused_before_a_guest_is_nobodys(site, stage):  # noqa: F811
    async def main() -> None:
        async with site() as shop:
            assert (await shop.ask(host=b"nobody.localhost")).status == 404
            assert (await shop.ask(headers=[(b"content-length", b"99999999")])).status == 413
            assert (await shop.ask(headers=[(b"content-length", b"x")])).status == 400
            assert stage.usage == []

    asyncio.run(main())


def test_a_start_that_fails_is_billed_as_a_start(site, stage):  # noqa: F811
    stage.boot_error = GuestFailed("no")

    async def main() -> None:
        async with site() as shop:
            await shop.ask()
            assert [(one.kind, one.outcome) for one in stage.usage] == [("start", "guest_failed")]

    asyncio.run(main())


def test_memory_is_billed_once_whether_idle_or_not(site, stage, monkeypatch):  # noqa: F811
    monkeypatch.setattr(fleet_module, "RECORD_LIVE_EVERY_S", 0)
    monkeypatch.setattr(fleet_module, "_LOOK_EVERY_S", 0)

    async def handler(guest, _request, _body):
        await asyncio.sleep(0.05)
        return GuestResponse(200, [], b"", more=False)

    stage.handler = handler

    async def main() -> None:
        async with site() as shop:
            await shop.ask()
            started = next(one.at for one in stage.usage if one.kind == "start")
            for _ in range(3):
                await asyncio.sleep(0.02)
                shop.fleet.reap()
                await shop.ask()
        lived_ms = (time.time() - started) * 1e3
        billed = sum(one.memory_byte_ms for one in stage.usage)
        in_requests = sum(one.memory_byte_ms for one in requests(stage))
        assert in_requests > 4 * 45 * 10 * MIB
        assert billed - in_requests > 3 * 15 * 10 * MIB
        assert billed < 1.05 * lived_ms * 10 * MIB

    asyncio.run(main())


def test_what_no_request_pays_for_is_billed_when_the_instance_ends(stage, route):
    async def main() -> None:
        slot = stage.slot(route())
        await slot.start()
        use = RequestUse(slot, cold=True)
        slot.guest.cpu_ns += 1_000_000
        use.end()
        slot.guest.cpu_ns += 5_000_000  # it was stopped, and went on for as long as it may
        slot.guest.sent_bytes += 7
        slot.close()

    asyncio.run(main())
    assert [(one.kind, one.cpu_ns, one.bytes_out) for one in stage.usage] == [
        ("start", 0, 0),
        ("live", 5_000_000, 7),
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_the_cpu_is_told_only_to_who_asks_for_it(site, stage, debug):  # noqa: F811
    forged = [(b"x-isopod-cpu-ms", b"0.0")]
    stage.handler = using(7_500_000, GuestResponse(200, forged, b"", more=False))

    async def main() -> None:
        async with site() as shop:
            plain = shop.gateway.find_route("shop")
            route = replace(plain, spec=replace(plain.spec, debug=debug))
            shop.gateway.find_route = lambda name: route if name == "shop" else None
            answered = await shop.ask()
            stage.handler = using(2_000_000, GuestFailed("it trapped"))
            failed = await shop.ask()
            unknown = await shop.ask(host=b"nobody.localhost")
            told = [
                [value for name, value in one.sent[0]["headers"] if name == b"x-isopod-cpu-ms"]
                for one in (answered, failed, unknown)
            ]
            assert told == ([[b"7.500"], [b"2.000"], []] if debug else [[], [], []])

    asyncio.run(main())
