"""The gateway as its server sees it: ASGI in, ASGI out, whatever the guest does."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from isopod.errors import GuestFailed, IsopodError, MemoryLimitExceeded
from isopod.gateway import invoke
from isopod.gateway.admission import Admission
from isopod.gateway.app import Gateway, ResponseCut
from isopod.gateway.direct import DirectApps
from isopod.gateway.fleet import Fleet
from isopod.gateway.forward import FORWARDED, Forwarder
from isopod.gateway.lines import Lines
from isopod.gateway.volumes import HeldVolumes
from isopod.runtimes.guest import GuestResponse

GONE = {"type": "http.disconnect"}


@dataclass
class Exchange:
    """One request: what it sends, and what came back."""

    messages: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    cut: bool = False

    async def receive(self) -> dict:
        if self.messages:
            return self.messages.pop(0)
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(self, message: dict) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)

    @property
    def code(self) -> str:
        return self.headers[b"x-isopod-error"].decode()


class Site:
    def __init__(self, gateway: Gateway, fleet: Fleet) -> None:
        self.gateway = gateway
        self.fleet = fleet

    async def ask(
        self,
        target: bytes = b"/",
        *,
        method: str = "GET",
        headers=(),
        host=b"shop.localhost",
        messages=(),
        exchange: Exchange | None = None,
        **scope,
    ) -> Exchange:
        exchange = exchange or Exchange(list(messages))
        raw_path, _, query = target.partition(b"?")
        scope = {
            "type": "http", "method": method, "path": raw_path.decode("latin-1"),
            "raw_path": raw_path, "query_string": query, "http_version": "1.1", "scheme": "http",
            "client": ("9.9.9.9", 1), "headers": [(b"host", host), *headers], **scope,
        }  # fmt: skip
        try:
            async with asyncio.timeout(60):
                await self.gateway(scope, exchange.receive, exchange.send)
        except ResponseCut:
            exchange.cut = True
        assert self.gateway.in_flight == self.gateway._admission.in_flight == 0
        return exchange

    def log(self) -> str:
        return "".join(path.read_text() for path in self.fleet._logs_dir.glob("*.jsonl"))


class NoFiles:
    """See `isopod.runtimes.direct.Beside`."""

    async def look(self, _route, _request):
        return None

    async def make_ready(self, _route):
        raise AssertionError("no route here has files")


@pytest.fixture
def site(stage, route, quotas):
    @asynccontextmanager
    async def opened(**limits):
        only = route(**limits)
        fleet = Fleet(
            make=stage.make,
            logs_dir=stage.logs,
            log_bytes=16 << 20,
            budget_bytes=1 << 40,
            max_instances=99,
            quotas=quotas,
            meter=stage.usage.append,
            volumes=HeldVolumes(stage.logs, worker=0),
            held_bytes=lambda _: 0,
        )
        admission = Admission(
            quotas=quotas,
            lag_s=lambda: 0.0,
            tell=lambda route, line: fleet.log(route).write("isopod", line, version=1),
        )
        end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lines = Lines(end, told=lambda body: None)
        gateway = Gateway(
            fleet=fleet,
            direct=DirectApps({}, files=NoFiles()),
            admission=admission,
            find_route=lambda name: only if name == "shop" else None,
            elsewhere=lambda route: None,
            forwarder=Forwarder(lines),
            domain="localhost",
            trusted_proxies=(),
            meter=stage.usage.append,
        )
        try:
            yield Site(gateway, fleet)
        finally:
            await fleet.close()
            lines.close()
            other.close()
            assert stage.alive == 0

    return opened


def busy(site: Site) -> int:
    return sum(len(pool.busy) for pool in site.fleet._all())


def test_a_whole_response(site, stage):
    async def main() -> None:
        async with site() as shop:
            answer = await shop.ask()
            assert (answer.status, answer.body, answer.complete) == (200, b"hi", True)
            assert len(answer.headers[b"x-request-id"]) == 16
            assert b"guest;dur=" in answer.headers[b"server-timing"]
            assert stage.alive == 1
            assert busy(shop) == 0

    asyncio.run(main())


def test_what_the_guest_is_told(site, stage):
    seen = []

    async def handler(_guest, request, _body):
        seen.append(request)
        return GuestResponse(200, [], b"", more=False)

    async def main() -> None:
        async with site() as shop:
            stage.handler = handler
            await shop.ask(b"/a%2Fb/%C3%BC?q=%20&r", host=b"SHOP.localhost:8080", method="POST",
                           headers=[(b"content-length", b"3")])  # fmt: skip
            await shop.ask(raw_path=b"", path="/a b?ü\n")
            # As curl sends what somebody typed.
            await shop.ask("/ü/%2F?name=Jürgen&x=%C3%BC".encode())

    asyncio.run(main())
    request, decoded, typed = seen
    assert (typed.path, typed.query) == ("/%C3%BC/%2F", "name=J%C3%BCrgen&x=%C3%BC")
    assert (request.method, request.path, request.query) == ("POST", "/a%2Fb/%C3%BC", "q=%20&r")
    assert (request.host, request.port, request.client) == ("shop.localhost", 8080, "9.9.9.9")
    assert request.has_body
    # Where the server gives no raw path, the decoded one is encoded again, not decoded twice.
    assert decoded.path == "/a%20b%3F%C3%BC%0A"


@pytest.mark.parametrize(
    ("host", "headers", "status", "code"),
    [
        (b"nobody.localhost", [], 404, "app_unknown"),
        (b"", [], 400, "bad_request"),
        (b"shop.localhost", [(b"host", b"other.localhost")], 400, "bad_request"),
        (b"shop.localhost", [(b"content-length", b"x")], 400, "bad_request"),
        (b"shop.localhost", [(b"content-length", b"1048577")], 413, "body_too_large"),
        # Without a handshake it is a request like any other (RFC 9110 7.8).
        (b"shop.localhost", [(b"upgrade", b"websocket")], 200, ""),
        (b"shop.localhost:\xb2", [], 400, "bad_request"),
        (b"shop.localhost:80/x?", [], 400, "bad_request"),
        (b"shop.localhost", [(b"transfer-encoding", b"gzip, chunked")], 400, "bad_request"),
    ],
)
def test_requests_that_no_guest_sees(site, host, headers, status, code):
    async def main() -> None:
        async with site() as shop:
            answer = await shop.ask(host=host, headers=headers)
            assert answer.status == status
            assert answer.complete
            assert answer.headers[b"x-request-id"]
            if code:
                error = json.loads(answer.body)["error"]
                assert error["code"] == answer.code == code
                assert error["request_id"] == answer.headers[b"x-request-id"].decode()

    asyncio.run(main())


@pytest.mark.parametrize("target", [b"*", b"", b"shop", b"@evil.example/", b"?x"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_target_that_is_no_path_reaches_no_app(site, stage, target, method):
    async def main() -> None:
        async with site() as shop:
            assert (await shop.ask(target, method=method)).code == "bad_request"

    asyncio.run(main())
    assert not stage.usage


def test_connect_makes_no_tunnel(site):
    async def main() -> None:
        async with site() as shop:
            assert (await shop.ask(method="CONNECT")).code == "bad_request"
            assert (await shop.ask(b"", method="CONNECT")).code == "bad_request"

    asyncio.run(main())


def test_a_body_that_breaks_off_is_400_and_a_response_that_had_begun_is_cut(site, stage):
    async def reads(_guest, _request, body):
        while await body(1000):
            pass
        return GuestResponse(200, [], b"", more=False)

    async def reads_late(guest, _request, body):
        try:
            while await body(1000):
                pass
        except IsopodError as error:
            guest.chunks = [error]
        return GuestResponse(200, [], b"begun", more=True)

    async def main() -> None:
        async with site() as shop:
            for handler, cut in ((reads, False), (reads_late, True)):
                stage.handler = handler
                answer = await shop.ask(
                    method="POST",
                    headers=[(b"transfer-encoding", b"chunked")],
                    messages=[{"type": "http.request", "body": b"x", "more_body": True}, GONE],
                )
                assert answer.cut is cut
                assert answer.status == (200 if cut else 400)
                assert answer.complete is not cut

    asyncio.run(main())


def test_an_unknown_host_is_shown_without_becoming_markup(site):
    async def main() -> None:
        async with site() as shop:
            browser = [(b"accept", b"text/html")]
            answer = await shop.ask(host=b"a&lt;b\"'.localhost", headers=browser)
            assert answer.status == 400  # no host has a quotation mark
            answer = await shop.ask(host=b"a&lt;b'.localhost", headers=browser)
            assert answer.status == 404
            assert b"a&amp;lt;b&#x27;.localhost" in answer.body

    asyncio.run(main())


def test_a_failing_app_is_502_and_its_guest_serves_on_while_it_can(site, stage):
    async def raises(guest, _request, _body):
        guest.idle = True
        raise GuestFailed("the app raised an error", details={"summary": "ValueError: secret"})

    async def main() -> None:
        async with site() as shop:
            stage.handler = raises
            answer = await shop.ask()
            assert stage.alive == 1
            assert (answer.status, answer.code) == (502, "guest_failed")
            assert b"secret" not in answer.body
            assert "ValueError: secret" in shop.log()

    asyncio.run(main())


def test_memory_and_mistakes_of_ours_are_told_apart(site, stage, caplog):
    async def main() -> None:
        async with site() as shop:

            async def out_of_memory(*_):
                raise MemoryLimitExceeded("the app reached its memory limit")

            async def broken(*_):
                raise ZeroDivisionError

            stage.handler = out_of_memory
            assert (await shop.ask()).status == 507
            stage.handler = broken
            answer = await shop.ask()
            assert (answer.status, answer.code) == (500, "internal_error")
            assert stage.alive == 0
            assert busy(shop) == 0
            assert "ZeroDivisionError" in caplog.text

    asyncio.run(main())


def test_a_guest_past_its_deadline_is_504_and_ended(site, stage):
    async def never(*_):
        await asyncio.Event().wait()

    async def main() -> None:
        async with site(deadline_ms=20) as shop:
            stage.handler = never
            answer = await shop.ask()
            assert (answer.status, answer.code) == (504, "deadline_exceeded")
            assert stage.alive == 0
            assert "deadline_exceeded" in shop.log()

    asyncio.run(main())


def test_a_guest_that_used_up_its_cpu_is_504_and_ended(site, stage):
    async def computes(guest, *_):
        while True:
            guest.cpu_ns += 1_000_000
            await asyncio.sleep(0.001)

    async def main() -> None:
        async with site(cpu_ms_per_request=20) as shop:
            stage.handler = computes
            answer = await shop.ask()
            assert (answer.status, answer.code) == (504, "cpu_limit_exceeded")
            assert stage.alive == 0
            assert "cpu_limit_exceeded: app 'shop' used more CPU" in shop.log()

    asyncio.run(main())


def test_waiting_and_what_was_used_before_count_nothing_towards_the_cpu_limit(site, stage):
    async def waits(guest, *_):
        guest.cpu_ns += 15_000_000
        await asyncio.sleep(0.1)
        return GuestResponse(200, [], b"done", more=False)

    async def main() -> None:
        async with site(cpu_ms_per_request=20) as shop:
            stage.handler = waits
            for _ in range(3):
                assert (await shop.ask()).body == b"done"
            assert len(stage.guests) == 1

    asyncio.run(main())


@pytest.mark.parametrize(("declared", "whole"), [(None, True), ((1 << 20) + 1, False)])
def test_a_response_known_to_be_too_large_is_refused_before_its_head(site, stage, declared, whole):
    async def large(*_):
        body = b"x" * ((1 << 20) + 1) if whole else b"x"
        return GuestResponse(200, [], body, more=not whole, length=declared)

    async def main() -> None:
        async with site(max_response_mib=1) as shop:
            stage.handler = large
            answer = await shop.ask()
            assert (answer.status, answer.code) == (502, "response_too_large")
            assert "larger than 1 MiB" in shop.log()

    asyncio.run(main())


def test_a_response_that_grows_too_large_is_cut(site, stage):
    async def large(guest, *_):
        guest.chunks = [b"x" * (1 << 19)] * 3
        return GuestResponse(200, [], b"", more=True)

    async def main() -> None:
        async with site(max_response_mib=1) as shop:
            stage.handler = large
            answer = await shop.ask()
            assert (answer.status, answer.cut, answer.complete) == (200, True, False)
            assert len(answer.body) == 1 << 20
            assert stage.alive == 0
            assert "response_too_large" in shop.log()

    asyncio.run(main())


def test_the_head_of_a_response_may_declare_any_length(site, stage):
    async def head(*_):
        return GuestResponse(200, [], b"", more=False, length=1 << 40)

    async def main() -> None:
        async with site(max_response_mib=1) as shop:
            stage.handler = head
            assert (await shop.ask(method="HEAD")).status == 200

    asyncio.run(main())


def test_the_time_a_guest_waits_for_its_client_has_no_deadline(site, stage):
    async def slow_client(guest, *_):
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < 0.3:
            guest.client_wait_s = asyncio.get_running_loop().time() - began
            await asyncio.sleep(0)
        return GuestResponse(200, [], b"done", more=False)

    async def main() -> None:
        async with site(deadline_ms=100) as shop:
            stage.handler = slow_client
            assert (await shop.ask()).body == b"done"

    asyncio.run(main())


def test_a_stream_reaches_the_client_piece_by_piece(site, stage):
    async def stream(guest, *_):
        guest.chunks = [b"two", b"three"]
        return GuestResponse(200, [], b"one", more=True)

    async def main() -> None:
        async with site() as shop:
            stage.handler = stream
            answer = await shop.ask()
            assert [message["body"] for message in answer.sent[1:]] == [
                b"one",
                b"two",
                b"three",
                b"",
            ]
            assert answer.complete
            assert stage.alive == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("chunks", "length"),
    [
        ([GuestFailed("the guest died")], None),  # it died in the middle
        ([b"two"], 100),  # less than it declared
        ([b"x" * 100], 10),  # more
    ],
)
def test_a_stream_that_ends_wrongly_is_cut_and_never_looks_whole(site, stage, chunks, length):
    async def stream(guest, *_):
        guest.chunks = list(chunks)
        return GuestResponse(200, [], b"one", more=True, length=length)

    async def main() -> None:
        async with site() as shop:
            stage.handler = stream
            answer = await shop.ask()
            assert answer.cut
            assert not answer.complete
            assert busy(shop) == 0

    asyncio.run(main())


def test_a_guest_ended_between_two_pieces_is_cut_too(site, stage):
    async def stream(guest, *_):
        guest.chunks = [b"two", b"three"]
        return GuestResponse(200, [], b"one", more=True)

    class EndsItsGuest(Exchange):
        async def send(self, message: dict) -> None:
            await super().send(message)
            if message.get("body") == b"two":
                stage.guests[0].close()  # a deadline, or the node that stops

    async def main() -> None:
        async with site() as shop:
            stage.handler = stream
            answer = await shop.ask(exchange=EndsItsGuest())
            assert answer.cut
            assert not answer.complete

    asyncio.run(main())


@pytest.mark.parametrize(("length", "body"), [(5, b"hi"), (1, b"hi")])
def test_a_whole_body_of_another_length_than_declared_is_no_answer(site, stage, length, body):
    async def lying(*_):
        headers = [(b"content-length", str(length).encode())]
        return GuestResponse(200, headers, body, more=False, length=length)

    async def main() -> None:
        async with site() as shop:
            stage.handler = lying
            answer = await shop.ask()
            assert (answer.status, answer.code) == (502, "guest_protocol_error")
            assert (await shop.ask(method="HEAD")).status == 200  # there it is no lie

    asyncio.run(main())


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_answers_without_a_body_have_none(site, stage, method, status):
    async def stream(guest, *_):
        guest.chunks = [b"more"]
        return GuestResponse(status, [], b"body", more=True)

    async def main() -> None:
        async with site() as shop:
            stage.handler = stream
            answer = await shop.ask(method=method)
            assert (answer.status, answer.body, answer.complete) == (status, b"", True)
            assert stage.alive == 1

    asyncio.run(main())


def test_a_client_that_goes_away_ends_its_guest(site, stage, monkeypatch):
    monkeypatch.setattr(invoke, "_WATCH_AFTER_S", 0)
    monkeypatch.setattr(invoke, "_GRACE_S", 0.02)

    async def never(guest, *_):
        await asyncio.Event().wait()

    async def main() -> None:
        async with site() as shop:
            stage.handler = never
            answer = await shop.ask(messages=[GONE])
            assert not answer.cut
            assert answer.status == 400  # which nobody reads
            assert stage.guests[0].abandoned
            assert stage.alive == 0
            assert shop.fleet.status()["apps"]["shop"]["errors"] == 0

    asyncio.run(main())


def test_a_cancelled_request_gives_its_instance_back(site, stage):
    begun = asyncio.Event()

    async def never(*_):
        begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        async with site() as shop:
            stage.handler = never
            task = asyncio.create_task(shop.ask())
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert busy(shop) == 0
            assert shop.gateway.in_flight == 0
            assert stage.alive == 0

    asyncio.run(main())


def test_a_body_past_its_limit_in_chunks_is_413(site, stage):
    async def reads(_guest, _request, body):
        while await body(1000):
            pass
        return GuestResponse(200, [], b"", more=False)

    async def main() -> None:
        async with site() as shop:
            stage.handler = reads
            answer = await shop.ask(
                method="POST",
                headers=[(b"transfer-encoding", b"chunked")],
                messages=[{"type": "http.request", "body": b"x" * 600_000, "more_body": True}] * 3,
            )
            assert (answer.status, answer.code) == (413, "body_too_large")

    asyncio.run(main())


def test_an_app_that_answers_500_for_want_of_memory_gets_a_new_instance(site, stage):
    async def caught(guest, *_):
        guest.output("stderr", b"MemoryError\n")
        return GuestResponse(500, [], b"sorry", more=False)

    async def main() -> None:
        async with site() as shop:
            stage.handler = caught
            assert (await shop.ask()).body == b"sorry"
            assert stage.alive == 0
            assert "memory_limit_exceeded" in shop.log()

    asyncio.run(main())


def test_output_is_in_the_log_by_request(site, stage):
    async def prints(guest, *_):
        guest.output("stdout", b"one\ntwo")
        guest.output("stderr", b"bad\n")
        return GuestResponse(200, [], b"", more=False)

    async def main() -> None:
        async with site() as shop:
            stage.handler = prints
            answer = await shop.ask()
            lines = [json.loads(line) for line in shop.log().splitlines()]
            assert [(line["stream"], line["message"]) for line in lines] == [
                ("stdout", "one"), ("stderr", "bad"), ("stdout", "two"),
            ]  # fmt: skip
            identity = answer.headers[b"x-request-id"].decode()
            assert {line["request_id"] for line in lines} == {identity}

    asyncio.run(main())


def test_a_draining_worker_says_so(site):
    async def main() -> None:
        async with site() as shop:
            shop.gateway.draining = True
            answer = await shop.ask()
            assert (answer.status, answer.code) == (503, "node_draining")
            assert b"retry-after" in answer.headers

    asyncio.run(main())


def test_what_is_not_http_is_left_alone(site):
    async def main() -> None:
        async with site() as shop:
            assert (await shop.ask(type="lifespan")).sent == []

    asyncio.run(main())


def test_what_another_worker_must_answer_is_handed_over_once_and_metered_nowhere_else(site, stage):
    async def main() -> None:
        async with site() as shop:
            shop.gateway._elsewhere = lambda route: 1
            asked = []

            async def passed_on(to, protocol, first, receive, send) -> bool:
                asked.append((to, protocol))
                await send({"type": "http.response.start", "status": 203, "headers": []})
                await send({"type": "http.response.body", "body": b"there", "more_body": False})
                return True

            shop.gateway._forwarder._passed_on = passed_on
            answered = await shop.ask()
            assert (answered.status, answered.body) == (203, b"there")
            assert asked == [(1, "http")]
            refused = await shop.ask(**{FORWARDED: "abc"})
            assert (refused.status, refused.code) == (503, "worker_unavailable")
            assert refused.headers[b"x-request-id"] == b"abc"
            assert refused.headers[b"retry-after"] == b"2"
            assert len(asked) == 1
            assert not stage.usage

    asyncio.run(main())
