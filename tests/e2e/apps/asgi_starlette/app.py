import asyncio
import contextlib
import time

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

starts = []


@contextlib.asynccontextmanager
async def lifespan(app):
    starts.append(time.monotonic())
    yield {"since": starts[-1], "starts": len(starts)}


async def index(request):
    return JSONResponse({"starts": request.state.starts, "age": time.monotonic() - starts[-1]})


async def sleep(request):
    await asyncio.sleep(0.3)
    return PlainTextResponse("slept")


def block(request):
    time.sleep(float(request.url.query))
    return PlainTextResponse(str(starts[-1]))  # which instance this is


async def echo(request):
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return PlainTextResponse(str(size))


async def events(request):
    async def tokens():
        try:
            for number in range(int(request.query_params["n"])):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.1)
        finally:
            print("the stream ended")

    return StreamingResponse(tokens(), media_type="text/event-stream")


async def later(request):
    async def work():
        await asyncio.sleep(0.1)
        print("worked on")

    return PlainTextResponse("at once", background=BackgroundTask(work))


async def spin(request):
    while True:
        pass


async def never(request):
    await asyncio.Event().wait()


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", index),
        Route("/echo", echo, methods=["POST"]),
        *(Route(f"/{one.__name__}", one) for one in (sleep, block, events, later, spin, never)),
    ],
)
