"""An ASGI server (ASGI 3.0, specification 2.4) for one instance: many exchanges on one event loop.

The loop's only wait is the call W, which says what the app has answered meanwhile and brings new
requests, pieces of bodies, sockets that are ready and clients that have gone. So a small request
costs one host call. What is a request or a WebSocket to the host is an `Exchange` here.
"""

import asyncio
import contextvars
import struct
import sys
from urllib.parse import unquote

import isopod_frames as frames
import isopod_streams as streams
from isopod_streams import flush

_FOR_EVER = 0xFFFFFFFF
_ITEM = struct.Struct("<cII")
# While callbacks are ready the host is asked only so often what is new.
_SPINS = 16
_SAID_AT_MOST = 1 << 20
_ITEMS_AT_MOST = 4096  # with their payloads; the host takes 8,192 items

current = contextvars.ContextVar("isopod_exchange", default=None)


class ClientGone(OSError):
    """Nobody reads the response any more."""


# -- one exchange ---------------------------------------------------------------------------


class Exchange:
    """What a request and a WebSocket have in common: a task of the app's, and its fate."""

    def __init__(self, server, number):
        self.server = server
        self.number = number
        self.gone = False  # the client is
        self.returned = False  # the app's call did
        self.tasks = 0  # that the app started in it and that go on
        self.unacknowledged = 0
        self.main = None
        self._event = None

    def say(self, kind, payload=b""):
        self.server.say(kind, self.number, payload)

    def wake(self):
        if self._event is not None and not self._event.done():
            self._event.set_result(None)

    async def wait(self):
        """Until something happened to it."""
        self._event = self.server.loop.create_future()
        try:
            await self._event
        finally:
            self._event = None

    async def run(self, scope):
        try:
            await self.server.app(scope, self.receive, self.send)
            self.check_complete()
        except asyncio.CancelledError:
            if not self.gone:
                self.failed(RuntimeError("the app cancelled its own request"))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            self.failed(error)
        finally:
            flush()
            self.returned = True
            self.end_if_done()

    def failed(self, error):
        if self.gone and _is_about_gone(error):
            return
        kind, summary, text = frames.failure(error)
        del error
        streams.log_of(self.number, b"E", text.encode("utf-8", "backslashreplace"))
        self.say(b"X", f"{kind}\n{summary}".encode("utf-8", "backslashreplace"))

    @property
    def over(self):
        return self.number not in self.server.exchanges

    def end_if_done(self):
        if self.returned and self.tasks == 0 and self.server.exchanges.pop(self.number, None):
            self.say(b"F")

    def cancel(self):
        """The host wants its end: what the request was for is cancelled, what was started beside
        it is let go."""
        self.gone = True
        self.tasks = 0
        if self.returned:
            self.end_if_done()
        else:
            self.main.cancel()
        self.wake()

    async def send_window(self):
        """Until the client has taken so much that more may be sent."""
        while self.unacknowledged > frames.WINDOW and not self.gone:
            await self.wait()
        if self.gone:
            raise ClientGone("the client is gone")


def _is_about_gone(error):
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (ClientGone, asyncio.CancelledError)):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


class Request(Exchange):
    """HTTP: https://asgi.readthedocs.io/en/stable/specs/www.html"""

    def __init__(self, server, number, has_body, length):
        super().__init__(server, number)
        self._pieces = []
        self._body_left = length  # None: unknown
        self._body_ended = not has_body
        self._told_end = False  # the app has its last http.request
        self._asked = False
        self._head = None
        self._sent_head = False
        self._complete = False

    # -- from the host

    def body(self, data, ended):
        self._asked = False
        if data:
            self._pieces.append(data)
            if self._body_left is not None:
                self._body_left -= len(data)
        if ended or self._body_left == 0:
            self._body_ended = True
        self.wake()

    # -- the app's

    async def receive(self):
        if not self._told_end:
            while not self._pieces and not self._body_ended and not self.gone:
                if not self._asked:
                    self._asked = True
                    self.say(b"B", frames.CHUNK.to_bytes(4, "little"))
                await self.wait()
            if self._pieces or self._body_ended:
                data = b"".join(self._pieces)
                self._pieces.clear()
                self._told_end = self._body_ended
                return {
                    "type": "http.request",
                    "body": data,
                    "more_body": not self._body_ended,
                }
        while not self.gone and not self._complete:
            await self.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if self._complete:
            raise RuntimeError(f"the app sent {kind!r} after its response was complete")
        if self.gone:
            raise ClientGone("the client is gone")
        if kind == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the app sent 'http.response.start' twice")
            self._head = _head(str(int(message["status"])), message.get("headers", ()))
            return
        if kind != "http.response.body":
            raise RuntimeError(f"the app sent {kind!r}, which is no part of an HTTP response")
        if self._head is None:
            raise RuntimeError("the app sent 'http.response.body' before 'http.response.start'")
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = bytes(body)
        if not message.get("more_body", False):
            if self._sent_head or len(body) > frames.CHUNK:
                await self._send_pieces(body)
                self.say(b"E")
            else:
                self._sent_head = True
                self.say(b"S", self._head + body)
            self._complete = True
            self.wake()
            return
        if body:
            await self._send_pieces(body)
            # At once: what the app does next may take its time.
            self.server.tell()

    async def _send_pieces(self, body):
        for piece in frames.chunks(body) if len(body) > frames.CHUNK else (body,) if body else ():
            await self.send_window()
            self.unacknowledged += len(piece)
            if self._sent_head:
                self.say(b"D", piece)
            else:
                self._sent_head = True
                self.say(b"H", self._head + piece)
        if not self._sent_head:
            self._sent_head = True
            self.say(b"H", self._head)

    def check_complete(self):
        if self._complete or self.gone:
            return
        if self._head is None:
            raise RuntimeError("the app returned without a response")
        raise RuntimeError("the app returned before its response was complete")


def _head(first, headers):
    """A response head as in `isopod_frames.response`, from ASGI's pairs of bytes."""
    lines = [first.encode("latin-1")]
    for name, value in headers:
        line = bytes(name) + b":" + bytes(value)
        if b"\n" in line or b"\r" in line:
            raise ValueError(f"header {name!r} holds a line break")
        lines.append(line)
    head = b"\n".join(lines)
    return len(head).to_bytes(4, "little") + head


def scope_of(frame, state):
    """The connection scope of a request frame (see `isopod_frames`), whether it has a body, and
    how long that is."""
    lines = frame.split(b"\n")
    method, raw_path, query, protocol, scheme, host, port, client, has_body = lines[:9]
    headers, length = [], None
    for line in lines[9:]:
        name, _, value = line.partition(b":")
        headers.append((name, value))
        if name == b"content-length":
            length = int(value)
    path = raw_path.decode("latin-1")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "2" if protocol == b"HTTP/2" else protocol.decode("latin-1")[5:],
        "method": method.decode("latin-1"),
        "scheme": scheme.decode("latin-1"),
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": (client.decode("latin-1"), 0),
        "server": (host.decode("latin-1"), int(port)),
        "state": dict(state),
        "extensions": {},
    }
    return scope, bool(has_body), length


# -- the server -----------------------------------------------------------------------------


class Server:
    """One app's. `serve` returns when the host wants no more requests of it."""

    def __init__(self, app, websocket):
        """`websocket`: the module of that name, which needs this one."""
        self.app = app
        self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(_make_task)
        self.exchanges = {}
        self.state = {}
        self._start_websocket = websocket.start
        self._context = contextvars.copy_context()  # as the app's import left it
        self._said = []
        self._said_bytes = 0
        self._spins = 0
        self._ended = False

    def serve(self):
        asyncio.set_event_loop(self.loop)
        self._ended = False
        self.loop._selector.wait = self._wait
        try:
            if not self._ended:
                self.loop.run_forever()
        finally:
            self.loop._selector.wait = None

    def say(self, kind, number, payload):
        """Something for the host; it goes with the next call."""
        self._said.append(_ITEM.pack(kind, number, len(payload)))
        if payload:
            self._said.append(payload)
            self._said_bytes += len(payload)
        if self._said_bytes > _SAID_AT_MOST or len(self._said) > _ITEMS_AT_MOST:
            self.tell()

    def tell(self):
        """Say it now, and hear what is new."""
        self._call((), 0)

    def _wait(self, keys, timeout):
        """As a selector: (descriptor, what is ready) of `keys`, or something else has happened."""
        if timeout == 0 and self._spins < _SPINS:
            self._spins += 1
            return ()
        self._spins = 0
        found, wanted = {}, ()
        if keys:
            found, wanted = _within(keys)
            if found:
                timeout = 0
        for fd, mask in self._call(wanted, timeout):
            found[fd] = found.get(fd, 0) | mask
        return found.items()

    def _call(self, wanted, timeout):
        wait = _FOR_EVER if timeout is None else min(int(timeout * 1000 + 0.999), _FOR_EVER - 1)
        said, self._said, self._said_bytes = self._said, [], 0
        answer = frames.call(
            b"".join(
                (
                    b"W",
                    wait.to_bytes(4, "little"),
                    len(wanted).to_bytes(2, "little"),
                    *(number.to_bytes(4, "little") + bytes((mask,)) for number, mask in wanted),
                    *said,
                )
            )
        )
        ready = []
        at, end = 0, len(answer)
        while at < end:
            kind, number, size = _ITEM.unpack_from(answer, at)
            at += _ITEM.size
            payload = answer[at : at + size]
            at += size
            if kind == b"s":
                ready.append((number, payload[0]))
            else:
                self._heard(kind, number, payload)
        return ready

    def _heard(self, kind, number, payload):
        if kind == b"r":
            scope, has_body, length = scope_of(payload, self.state)
            self.start(Request(self, number, has_body, length), scope)
            return
        if kind == b"w":
            self._start_websocket(self, number, payload)
            return
        if kind == b"z":
            self._ended = True
            self.loop.stop()
            return
        exchange = self.exchanges.get(number)
        if exchange is None:
            return  # over
        if kind == b"b" or kind == b"e":
            exchange.body(payload, kind == b"e")
        elif kind == b"t":
            exchange.unacknowledged -= int.from_bytes(payload, "little")
            exchange.wake()
        elif kind == b"g":
            exchange.gone = True
            exchange.wake()
        elif kind == b"c":
            exchange.cancel()
        else:
            exchange.message(kind, payload)

    def start(self, exchange, scope):
        self.exchanges[exchange.number] = exchange
        context = self._context.copy()
        context.run(current.set, exchange)
        exchange.main = asyncio.Task(exchange.run(scope), loop=self.loop, context=context)


def _within(keys):
    """Of a selector's keys: those that are ready inside of the guest, and what the host knows."""
    import isopod_socket

    inside, wanted = {}, []
    for fd, key in keys.items():
        if fd in isopod_socket._pairs or fd < isopod_socket._FIRST:
            inside[fd] = key.events
        else:
            wanted.append((fd, key.events))
            if key.events & 1 and fd in isopod_socket.readable_now:
                inside[fd] = 1
    found = dict(isopod_socket.ready(inside, 0)) if inside else {}
    for fd in inside:
        if fd in isopod_socket.readable_now:
            found[fd] = 1
    return found, wanted


def _make_task(loop, coroutine, **named):
    """Tasks that an exchange starts belong to it: it is over when they are."""
    task = asyncio.Task(coroutine, loop=loop, **named)
    context = named.get("context")
    exchange = current.get() if context is None else context.get(current)
    if exchange is not None and not exchange.over:
        exchange.tasks += 1
        task.add_done_callback(exchange_task_done, context=_holding(exchange))
    return task


def exchange_task_done(_task):
    exchange = current.get()
    if exchange.tasks > 0:
        exchange.tasks -= 1
        exchange.end_if_done()


def _holding(exchange):
    context = contextvars.Context()
    context.run(current.set, exchange)
    return context


# -- lifespan -------------------------------------------------------------------------------


class StartupFailed(Exception):
    """What the app said in lifespan.startup.failed."""


class Lifespan:
    """https://asgi.readthedocs.io/en/stable/specs/lifespan.html: each instance starts the app."""

    def __init__(self, server):
        self._server = server
        self._inbox = []
        self._event = asyncio.Event()
        self._said = []
        self._received = False
        self._wrong = None
        self._task = None

    async def startup(self):
        """Raises StartupFailed, or what the app raised when it was told to start."""
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._server.state,
        }
        self._inbox.append({"type": "lifespan.startup"})
        self._answered = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        await self._answered.wait()
        for message in self._said:
            if message["type"] == "lifespan.startup.failed":
                text = str(message.get("message", "")).strip()
                raise StartupFailed(text or "the app said lifespan.startup.failed")
        if self._task.done() and self._task.exception() is not None:
            error = self._task.exception()
            if self._received and error is not self._wrong:
                raise error

    async def shutdown(self):
        if self._task is None or self._task.done():
            return
        self._answered = asyncio.Event()
        self._inbox.append({"type": "lifespan.shutdown"})
        self._event.set()
        await self._answered.wait()
        for message in self._said:
            if message["type"] == "lifespan.shutdown.failed":
                print(message.get("message", ""), file=sys.stderr)

    async def _run(self, scope):
        try:
            await self._server.app(scope, self._receive, self._send)
        finally:
            self._answered.set()

    async def _receive(self):
        self._received = True
        while not self._inbox:
            self._event.clear()
            await self._event.wait()
        return self._inbox.pop(0)

    async def _send(self, message):
        if not message["type"].startswith("lifespan."):
            # It takes the lifespan for a request: it has none.
            self._wrong = RuntimeError(f"unexpected {message['type']!r} in the lifespan")
            raise self._wrong
        self._said.append(message)
        self._answered.set()


_server = None


def boot(app):
    """Make the server, without serving. Only here is the app's loop made."""
    global _server
    import isopod_websocket

    _server = Server(app, isopod_websocket)


def start():
    """Tell the app to start, as each process that serves it does. Raises what went wrong."""
    lifespan = _server.lifespan = Lifespan(_server)
    _server.state = {}
    asyncio.set_event_loop(_server.loop)
    _server.loop.run_until_complete(lifespan.startup())


def serve():
    streams.speaks_for(_speaking)
    try:
        _server.serve()
    finally:
        streams.speaks_for(None)


def stop():
    """Before an image is taken: the app ends what it began, and nothing of it goes on."""
    loop = _server.loop
    lifespan = getattr(_server, "lifespan", None)
    if lifespan is not None:
        loop.run_until_complete(lifespan.shutdown())
        _server.lifespan = None
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop._asyncgens_shutdown_called = False
    flush()


def _speaking():
    exchange = current.get()
    return 0 if exchange is None else exchange.number
