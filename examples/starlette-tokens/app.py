"""A Starlette app that passes on what a language model says, token by token, as server-sent events.

Natively: `MODEL_URL=... MODEL_KEY=... uvicorn app:app`. On isopod: `isopod secrets set tokens
MODEL_KEY`, then `isopod deploy --name tokens`. While it waits for the model it costs nothing, and
one instance has many such requests at once.
"""

import json
import os
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(_app):
    # One client for all requests: its connections to the model are kept open between them.
    async with httpx.AsyncClient(timeout=60) as client:
        yield {"model": client}


async def about(_request):
    return PlainTextResponse("Ask for /answer?q=...\n")


async def answer(request):
    asked = request.state.model.build_request(
        "POST",
        f"{os.environ['MODEL_URL']}/v1/chat/completions",
        headers={"Authorization": f"Bearer {os.environ['MODEL_KEY']}"},
        json={
            "model": os.environ.get("MODEL", "gpt-4o-mini"),
            "stream": True,
            "messages": [{"role": "user", "content": request.query_params.get("q", "")}],
        },
    )
    try:
        said = await request.state.model.send(asked, stream=True)
    except httpx.HTTPError as error:
        raise HTTPException(502, f"{type(error).__name__}: {error}") from error
    if said.status_code != 200:
        await said.aclose()
        raise HTTPException(502, f"the model answered {said.status_code}")
    return StreamingResponse(tokens(said), media_type="text/event-stream")


async def tokens(said):
    try:
        async for line in said.aiter_lines():
            data = line.removeprefix("data: ")
            if data in (line, "[DONE]"):
                continue
            if text := json.loads(data)["choices"][0]["delta"].get("content"):
                yield f"data: {json.dumps(text)}\n\n"
    finally:  # also when the client goes: the model need not go on
        await said.aclose()


app = Starlette(routes=[Route("/", about), Route("/answer", answer)], lifespan=lifespan)
