"""A small Starlette app. Natively: `uvicorn app:app`; on isopod: `isopod deploy`."""

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route


async def home(_request: Request) -> Response:
    return PlainTextResponse("Hello from Starlette!\n")


async def count(_request: Request) -> Response:
    return StreamingResponse(numbers(), media_type="text/plain")


async def numbers() -> AsyncIterator[str]:
    """Each is sent at once, and waiting for the next one costs nothing."""
    for number in range(5):
        yield f"{number}\n"
        await asyncio.sleep(0.2)


app = Starlette(routes=[Route("/", home), Route("/count", count)])
