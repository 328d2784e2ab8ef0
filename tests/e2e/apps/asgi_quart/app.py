import asyncio

from quart import Quart, request

app = Quart(__name__)


@app.get("/")
async def index():
    return {"quart": True}


@app.post("/echo")
async def echo():
    async def work():
        await asyncio.sleep(0.05)
        print("quart worked on")

    app.add_background_task(work)
    return str(len(await request.get_data()))
