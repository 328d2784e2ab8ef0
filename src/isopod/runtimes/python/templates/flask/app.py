"""A small Flask app. Natively: `flask run`; on isopod: `isopod deploy`."""

from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def home() -> str:
    return "Hello from Flask!\n"


@app.post("/echo")
def echo() -> dict[str, str]:
    return {"you said": request.get_data(as_text=True)}
