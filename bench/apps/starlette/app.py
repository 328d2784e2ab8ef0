"""Async endpoints: one that answers at once, and one that waits for somebody else."""

import os

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def index(request):
    return JSONResponse({"hello": "world", "path": request.url.path})


async def upstream(request):
    import httpx

    global client
    if client is None:
        client = httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=100))
    answer = await client.get(os.environ["UPSTREAM"])
    return JSONResponse({"upstream": answer.status_code})


client = None
app = Starlette(routes=[Route("/", index), Route("/upstream", upstream)])
