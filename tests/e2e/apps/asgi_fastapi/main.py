from fastapi import Depends, FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    name: str
    price: float


def number():
    yield 7


@app.get("/")
async def index():
    return {"fastapi": True}


@app.post("/items")
def make(item: Item, n: int = Depends(number)):
    return {"name": item.name, "twice": item.price * 2, "n": n}
