"""A raw ASGI app that does right and wrong, by path."""

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

TEXT = [(b"content-type", b"text/plain")]
seen = []
paths = {}
startup = os.environ.get("STARTUP", "fine")


def path(function):
    paths["/" + function.__name__] = function
    return function


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    assert scope["type"] == "http", scope["type"]
    await paths[scope["path"]](scope, receive, send)


async def lifespan(scope, receive, send):
    if startup == "unsupported":
        raise ValueError("no lifespan here")
    await receive()
    if startup == "raises":
        raise ValueError("it will not start")
    if startup == "fails":
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    scope["state"]["begun"] = time.time()
    await send({"type": "lifespan.startup.complete"})
    message = await receive()
    assert message["type"] == "lifespan.shutdown", message
    seen.append("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send, body=b"", status=200, headers=TEXT):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def whole_body(receive):
    body, pieces = b"", 0
    while True:
        message = await receive()
        body += message.get("body", b"")
        pieces += 1
        if not message.get("more_body"):
            return body, pieces


@path
async def scope(scope, receive, send):
    def plain(value):
        return value.decode("latin-1") if isinstance(value, bytes) else sorted(value)

    await answer(send, json.dumps(scope, default=plain).encode())


@path
async def echo(scope, receive, send):
    body, pieces = await whole_body(receive)
    await answer(send, b"%d %d" % (len(body), pieces))


@path
async def both(scope, receive, send):
    """Answers each piece as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": TEXT})
    while True:
        message = await receive()
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        if not message["more_body"]:
            break
    await send({"type": "http.response.body"})


@path
async def sleep(scope, receive, send):
    await asyncio.sleep(float(scope["query_string"] or b"0.1"))
    await answer(send, b"slept")


@path
async def big(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": TEXT})
    for _ in range(40):
        await send({"type": "http.response.body", "body": bytes(200_000), "more_body": True})
        seen.append("sent")
    await send({"type": "http.response.body", "body": b"end"})


@path
async def count(scope, receive, send):
    await answer(send, json.dumps(seen).encode())
    seen.clear()


@path
async def stream(scope, receive, send):
    try:
        await send({"type": "http.response.start", "status": 200, "headers": TEXT})
        while True:
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await asyncio.sleep(0.01)
    except OSError as error:
        seen.append(type(error).__name__)
        raise
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise


@path
async def gone(scope, receive, send):
    """Waits for its client to go."""
    await receive()
    seen.append((await receive())["type"])
    await answer(send)


@path
async def later(scope, receive, send):
    await answer(send, b"at once")
    await asyncio.sleep(0.05)
    print("the app was not done")


@path
async def spawned(scope, receive, send):
    async def work():
        await asyncio.sleep(0.05)
        print("nor was its task")

    paths["task"] = asyncio.create_task(work())
    await answer(send, b"at once")


@path
async def say(scope, receive, send):
    for number in range(3):
        print(scope["query_string"].decode(), number)
        await asyncio.sleep(0.01)
    await answer(send)


# -- threads --------------------------------------------------------------------------------


@path
async def threads(scope, receive, send):
    def asked():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(asyncio.sleep(0, "a loop of its own"))
        return "the same loop"

    try:
        threading.Thread(target=print).start()
    except RuntimeError as error:
        refused = str(error)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        mapped = list(pool.map(len, ["a", "bb"]))
        awaited = await loop.run_in_executor(pool, len, "ccc")
    found = [refused, await asyncio.to_thread(asked), mapped, awaited]
    await answer(send, json.dumps(found).encode())


# -- wrong ----------------------------------------------------------------------------------


@path
async def silent(scope, receive, send):
    pass


@path
async def half(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


@path
async def raises(scope, receive, send):
    raise ValueError("no")


@path
async def raises_after(scope, receive, send):
    await answer(send, b"whole")
    raise ValueError("late")


@path
async def twice(scope, receive, send):
    await answer(send, b"once")
    await answer(send, b"twice")


@path
async def two_heads(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.start", "status": 201, "headers": []})


@path
async def no_head(scope, receive, send):
    await send({"type": "http.response.body", "body": b"x"})


@path
async def nonsense(scope, receive, send):
    await send({"type": "websocket.accept"})


@path
async def split(scope, receive, send):
    await answer(send, headers=[(b"x", b"a\r\nb: c")])


@path
async def bad_name(scope, receive, send):
    await answer(send, headers=[(b"x y", b"a")])


@path
async def never(scope, receive, send):
    await asyncio.Event().wait()


@path
async def stubborn(scope, receive, send):
    while True:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            print("not cancelled")


@path
async def spin(scope, receive, send):
    while True:
        pass


@path
async def exits(scope, receive, send):
    raise SystemExit(3)


# -- outside --------------------------------------------------------------------------------


@path
async def dial(scope, receive, send):
    """Says its body to a port of this machine, with TLS if there is a CA, and gives the answer."""
    import ssl

    body, _ = await whole_body(receive)
    port, _, ca = body.decode().partition("\n")
    context = ssl.create_default_context(cadata=ca) if ca else None
    reader, writer = await asyncio.open_connection("localhost", int(port), ssl=context)
    writer.write(scope["query_string"])
    writer.write_eof() if not ca else await writer.drain()
    said = await reader.readexactly(len(scope["query_string"]) + 1)
    writer.close()
    await writer.wait_closed()
    await answer(send, said)
