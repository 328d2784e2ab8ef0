"""Flask answers its own 500 for what a bare app would let fall."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def fine():
    return "fine"


@app.get("/hog")
def hog():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


@app.get("/fail")
def fail():
    raise RuntimeError("a detail that no stranger may see")
