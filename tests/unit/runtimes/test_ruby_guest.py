"""Rack apps in real guests: requests, bodies, streams, errors, limits."""

import asyncio
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.apps import request
from tests.unit.runtimes.rubies import Workshop

from isopod.errors import (
    AppFailedToStart,
    AppSyntaxError,
    EntrypointNotCallable,
    GuestFailed,
    GuestProtocolError,
    MemoryLimitExceeded,
)

# One guest for the tests that break none: a boot is a third of a second.
MANY = r"""
require "json"
require "stringio"
class Named
  def initialize(app, name) = (@app, @name = app, name)
  def call(env)
    status, headers, body = @app.call(env)
    [status, headers.merge("x-name" => @name), body]
  end
end
class Closed
  def each = 3.times { |at| yield "part #{at}\n" }
  def close = puts("closed")
end
use Named, "outer"
map "/below" do
  use Named, "inner"
  run ->(env) { [200, {}, [env["SCRIPT_NAME"], "|", env["PATH_INFO"]]] }
end
run do |env|
  input = env["rack.input"]
  case env["PATH_INFO"]
  when "/env"
    kept = env.select { |name, value| value.is_a?(String) }
    [201, { "set-cookie" => ["a=1", "b=2"], "x-old" => "c\nd" }, [JSON.generate(kept)]]
  when "/echo" then [200, {}, input.each]
  when "/lines" then [200, {}, [JSON.generate([input.gets, input.read(3), input.gets, input.gets,
                      input.read, input.read(1), input.eof?, (input.rewind; input.read)])]]
  when "/much" then [200, {}, ["x" * 3_000_000]]
  when "/closed" then [200, {}, Closed.new]
  when "/called" then [200, {}, proc { |out| out.write("a", 1); out << "b"; out.close }]
  when "/endless" then [200, {}, Enumerator.new { |out| loop { out << "y" * 60_000 } }]
  when "/later"
    env["rack.response_finished"] << proc { sleep 0.02; puts "later" }
    [200, {}, ["now"]]
  when "/throw" then raise ArgumentError, "böse"
  when "/exit" then exit
  when "/deep" then def deep(n) = deep(n + 1) + 1; deep(0)
  when "/break" then [200, { "x" => "a\rb" }, []]
  when "/nothing" then [200, {}, nil]
  when "/say" then puts "out"; warn "err"; STDOUT.print "1", 2; $stderr << "x"; p :y; [204, {}, []]
  when "/fiber" then [200, {}, [[1, 2].each.then { |one| one.next + one.next }.to_s]]
  when "/system"
    tried = [-> { `ls` }, -> { Thread.new {} }, -> { fork }, -> { File.write("/app/x", "") },
             -> { File.read("/etc/passwd") }, -> { Dir.children("/proc") }].map do |one|
      one.call.class.name
    rescue Exception => error
      error.class.name
    end
    [200, {}, [tried.join(" ")]]
  when "/socket" then require "net/http"; Net::HTTP.get(URI("http://10.0.0.1/"))
  when "/write" then File.write("/tmp/a", "b"); [200, {}, [File.read("/tmp/a")]]
  when "/js" then JS.global
  else [200, {}, ["fine"]]
  end
end
"""


@pytest.fixture(scope="module")
def shop(prepared_ruby: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_ruby, tmp_path_factory.mktemp("rubies")) as made:
        yield made


@pytest.fixture(scope="module")
def app(shop):
    return shop.start(MANY, env={"KEY": "välue"})


async def _no_body(_size: int) -> bytes:
    return b""


def test_a_request_is_a_rack_environment_and_its_answer_a_response(app):
    status, headers, body = app.call("/env?a=%C3%A4", body=b"x")
    said = json.loads(body)
    assert (status, headers) == (
        201,
        [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-old", "c"), ("x-old", "d"),
         ("x-name", "outer")],
    )  # fmt: skip
    assert said == {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/env", "QUERY_STRING":
        "a=%C3%A4", "SERVER_NAME": "x.test", "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7", "rack.url_scheme": "https", "HTTP_HOST": "x.test",
        "HTTP_X_TWO": "a,b",
    }  # fmt: skip
    assert app.text("/below/x") == "/below|/x"
    assert ("x-name", "inner") not in app.call("/below/x")[1]  # the outer one goes over it


def test_bodies_stream_both_ways_whatever_their_size(app):
    sent = bytes(range(256)) * 4000 + b"\n" + bytes(200_000)
    assert app.call("/echo", body=sent)[2] == sent
    assert app.call("/much")[2] == b"x" * 3_000_000
    lines = b"one\ntwo\nthree\n"
    assert app.text("/lines", body=lines) == (
        '["one\\n","two","\\n","three\\n","",null,true,"one\\ntwo\\nthree\\n"]'
    )
    app.output.clear()
    assert app.text("/closed") == "part 0\npart 1\npart 2\n"
    assert app.said == "closed\n"
    assert app.text("/called") == "a1b"


def test_a_client_that_goes_ends_an_endless_body(app, shop):
    async def leave() -> None:
        exchange = app.guest.exchange()
        assert (await exchange.send(request("/endless"), _no_body)).more
        assert await exchange.next_chunk()
        exchange.abandon()
        assert await exchange.next_chunk() is None

    shop.run(leave())
    assert app.text() == "fine"


def test_what_is_finished_after_the_response_runs_when_the_client_has_everything(app, shop):
    app.output.clear()

    async def watch() -> None:
        exchange = app.guest.exchange()
        response = await exchange.send(request("/later"), _no_body)
        assert (response.body, response.more, exchange.ended) == (b"now", False, False)
        await exchange.finish()
        assert (app.said, exchange.ended) == ("later\n", True)

    shop.run(watch())


@pytest.mark.parametrize(
    ("path", "summary"),
    [
        ("/throw", "ArgumentError: böse"),
        ("/exit", "SystemExit: exit"),
        ("/deep", "SystemStackError: stack level too deep"),
        ("/break", 'ArgumentError: the header "x" holds a line break'),
        ("/nothing", "TypeError: a response body has each or call"),
        ("/socket", "an app in Ruby reaches no network here"),
    ],
)
def test_what_an_app_raises_is_in_the_log_with_its_place_and_the_next_request_served(
    app, path, summary
):
    app.output.clear()
    with pytest.raises(GuestFailed) as raised:
        app.call(path)
    assert summary in raised.value.details["summary"]
    assert summary.rpartition(": ")[2] in app.said
    if path not in ("/break", "/nothing"):
        assert "/app/config.ru:" in app.said
    assert "from /isopod/" not in app.said
    assert app.text() == "fine"


def test_output_is_the_log_and_the_outside_is_not_there(app):
    app.output.clear()
    assert app.call("/say")[0] == 204
    assert ("stdout", "out\n12:y\n") in app.output and ("stderr", "err\nx") in app.output
    assert app.text("/fiber") == "3"
    refused = set(app.text("/system").split())
    assert refused <= {
        "NotImplementedError", "ArgumentError", "Errno::ENOENT", "Errno::EROFS", "Errno::EPERM",
        "Errno::EACCES", "Errno::ENOTCAPABLE", "Errno::ENOSYS",
    }  # fmt: skip
    assert app.text("/write") == "b"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("run ->(env) {", AppSyntaxError, "SyntaxError"),
        ("x = 1", AppFailedToStart, "neither run nor map"),
        ("run 5", EntrypointNotCallable, "has no method call"),
        ("raise 'at the start'; run proc {}", AppFailedToStart, "at the start"),
        ("require 'nowhere'; run proc {}", AppFailedToStart, "nowhere"),
        ("exit! 3", AppFailedToStart, "status 3"),
        ("all = []; loop { all << 'x' * 1_000_000 }", MemoryLimitExceeded, "allocate memory"),
    ],
)
def test_an_app_that_cannot_start_says_why(shop, source, error, message):
    with pytest.raises(error, match=message):
        shop.start(source)


def test_a_full_memory_is_an_error_or_the_end_of_the_instance(shop):
    source = """
    run do |env|
      all = []
      loop { all << "x" * 1_000_000 }
    rescue NoMemoryError => error
      raise if env["PATH_INFO"] == "/"
      all = nil
      [200, {}, ["caught"]]
    end
    """
    app = shop.start(source)
    assert app.text("/caught") == "caught"
    with pytest.raises(MemoryLimitExceeded, match="128 MiB"):
        app.call("/")


def test_a_loop_can_be_ended_and_others_are_served_meanwhile(shop, app):
    stuck = shop.start("run proc { loop {} }")

    async def race() -> None:
        asked = asyncio.ensure_future(stuck.guest.exchange().send(request(), _no_body))
        for _ in range(3):
            response = await app.guest.exchange().send(request(), _no_body)
            assert response.body == b"fine"
        assert not asked.done()
        stuck.guest.close()
        with pytest.raises(GuestFailed):
            await asked

    shop.run(race())


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"S\xff\xff\xff\xff",
        b"S" + struct.pack("<I", 3) + b"999",
        b"H" + struct.pack("<I", 9) + b"200\nx:a\rb",
        b"Q",
        b"M" + struct.pack("<II", 0, 1 << 20),
        b"L" + b"o" * 40_000,
    ],
)
def test_a_guest_that_says_what_it_may_not_is_ended(shop, frame):
    # Any app can say what it wants with JS.eval.
    made = shop.start(f"run proc {{ JS.eval({frame!r}.b) }}".replace("b'", "'").replace('b"', '"'))
    with pytest.raises((GuestProtocolError, GuestFailed)):
        made.call("/")
    made.guest.close()


def test_a_mailbox_outside_of_the_memory_ends_the_guest(shop):
    source = 'JS.eval("M" + [0xfffffff0, 1 << 20].pack("LL")); run proc {}'
    with pytest.raises(GuestProtocolError, match="outside its memory"):
        shop.start(source)
    with pytest.raises(GuestProtocolError, match="an inbox of 8 bytes"):
        shop.start('JS.eval("M" + [65536, 8].pack("LL")); run proc {}')


def test_the_rest_of_javascript_is_not_there(shop):
    made = shop.start("run proc { JS.global }")
    with pytest.raises(GuestFailed, match="'global-this' of JavaScript"):
        made.call("/")
