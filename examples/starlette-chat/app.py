"""A chat with one room: what is said reaches everybody, and the last lines whoever comes later."""

import sqlite3
from contextlib import suppress
from functools import cache

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title>
<ul id="said"></ul><form><input autofocus><button>Say</button></form>
<script>
const socket = new WebSocket(location.href.replace(/^http/, "ws") + "chat")
socket.onmessage = (event) => {
  document.querySelector("#said").append(
    Object.assign(document.createElement("li"), { textContent: event.data }))
}
document.querySelector("form").onsubmit = (event) => {
  event.preventDefault()
  socket.send(event.target[0].value)
  event.target.reset()
}
</script>
"""
present = set()


@cache
def history():
    connection = sqlite3.connect("/data/chat.db")
    connection.execute("CREATE TABLE IF NOT EXISTS said (line TEXT NOT NULL)")
    return connection


async def chat(websocket):
    await websocket.accept()
    last = history().execute("SELECT line FROM said ORDER BY rowid DESC LIMIT 20").fetchall()
    for (line,) in reversed(last):
        await websocket.send_text(line)
    present.add(websocket)
    try:
        while True:
            line = (await websocket.receive_text())[:1000]
            with history() as saved:
                saved.execute("INSERT INTO said VALUES (?)", (line,))
            for other in list(present):
                with suppress(WebSocketDisconnect, RuntimeError):
                    await other.send_text(line)
    except WebSocketDisconnect:
        pass
    finally:
        present.discard(websocket)


async def page(_request):
    return HTMLResponse(PAGE)


app = Starlette(routes=[Route("/", page), WebSocketRoute("/chat", chat)])
