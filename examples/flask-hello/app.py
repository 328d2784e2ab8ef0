"""The smallest Flask app. Natively: `flask run`; on isopod: `isopod deploy --name hello`."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return "Hello from Flask!\n"
