"""WebSockets by hand: each path does one thing."""

import asyncio
import json


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
    else:
        assert (await receive())["type"] == "websocket.connect"
        await globals()[scope["path"].strip("/")](scope, receive, send)


async def accept(send, **more):
    await send({"type": "websocket.accept", **more})


async def texts(receive):
    while (message := await receive())["type"] == "websocket.receive":
        yield message
    print("closed", message["code"], message["reason"], flush=True)


async def echo(scope, receive, send):
    await accept(send)
    async for message in texts(receive):
        await send({**message, "type": "websocket.send"})


async def about(scope, receive, send):
    offered = scope["subprotocols"]
    await accept(send, subprotocol=offered[-1] if offered else None)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    shown = {key: scope[key] for key in ("scheme", "path", "type", "http_version")}
    shown |= {"query": scope["query_string"].decode(), "headers": headers}
    await send({"type": "websocket.send", "text": json.dumps(shown)})
    await send({"type": "websocket.close", "code": 4000, "reason": "that is all"})


async def forbidden(scope, receive, send):
    await send({"type": "websocket.close"})


async def refused(scope, receive, send):
    head = {"type": "websocket.http.response.start", "status": 451}
    await send({**head, "headers": [(b"x-why", b"because")]})
    await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"pe"})


async def silent(scope, receive, send):
    await asyncio.sleep(3600)


async def raises_first(scope, receive, send):
    raise LookupError("before accept")


async def raises(scope, receive, send):
    await accept(send)
    await receive()
    raise LookupError("after accept")


async def returns(scope, receive, send):
    await accept(send)


async def after_close(scope, receive, send):
    await accept(send)
    await send({"type": "websocket.close", "code": 4001})
    try:
        await send({"type": "websocket.send", "text": "late"})
    except Exception as error:
        print("send after close:", error, flush=True)


async def flood(scope, receive, send):
    await accept(send)
    sent = 0
    try:
        for _ in range(1000):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            sent += 1
    finally:
        print("flooded", sent, flush=True)


async def spin(scope, receive, send):
    await accept(send)
    await receive()
    while True:
        pass


async def deaf(scope, receive, send):
    await accept(send)
    await asyncio.sleep(3600)


async def count(scope, receive, send):
    """Goes on counting in the next instance."""
    extension = scope["extensions"]["isopod.websocket"]
    number = int(extension["attachment"] or b"0")
    await accept(send)
    async for message in texts(receive):
        number += 1
        extension["attach"](b"" if message["text"] == "forget" else b"%d" % number)
        said = {"number": number, "resumed": extension["resumed"]}
        await send({"type": "websocket.send", "text": json.dumps(said | {"got": message["text"]})})


async def attach_much(scope, receive, send):
    await accept(send)
    try:
        scope["extensions"]["isopod.websocket"]["attach"](bytes(2049))
    except ValueError as error:
        await send({"type": "websocket.send", "text": str(error)})
