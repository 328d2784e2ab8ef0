"""Async endpoints: one that answers at once, and one that waits for somebody else."""

import asyncio
import functools
import os
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def index(request):
    return JSONResponse({"hello": "world", "path": request.url.path})


@functools.cache
def client():
    import httpx

    return httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=100))


async def upstream(_request):
    answer = await client().get(os.environ["UPSTREAM"])
    return JSONResponse({"upstream": answer.status_code})


async def streams(_request):
    """The same by asyncio alone: a connection each, and no client library."""
    to = urlsplit(os.environ["UPSTREAM"])
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    writer.write(f"GET / HTTP/1.1\r\nHost: {to.netloc}\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
    writer.close()
    return JSONResponse({"upstream": status})


app = Starlette(
    routes=[
        Route("/", index),
        Route("/upstream", upstream),
        Route("/streams", streams),
    ]
)
