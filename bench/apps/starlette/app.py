"""Async endpoints: one that answers at once, and one that waits for somebody else."""

import functools
import os

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


app = Starlette(routes=[Route("/", index), Route("/upstream", upstream)])
