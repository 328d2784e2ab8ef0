"""Templates, a validated form, a file upload and a static file. Natively: `flask run`."""

import hashlib
from typing import Any

from flask import Flask, render_template, request
from flask.typing import ResponseReturnValue

app = Flask(__name__)


def check_order(form: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of an order, and what is wrong with them by field."""
    values = {key: form.get(key, "").strip() for key in ("name", "email", "pieces")}
    errors = {}
    if not values["name"]:
        errors["name"] = "Tell us your name."
    user, at, domain = values["email"].partition("@")
    if not (user and at and "." in domain):
        errors["email"] = "This is not an e-mail address."
    if not (values["pieces"].isdecimal() and 1 <= int(values["pieces"]) <= 10):
        errors["pieces"] = "Order between 1 and 10 pieces."
    return values, errors


@app.get("/")
def index() -> ResponseReturnValue:
    return render_template("order.html", values={}, errors={})


@app.post("/")
def order() -> ResponseReturnValue:
    values, errors = check_order(request.form)
    if errors:
        return render_template("order.html", values=values, errors=errors), 422
    return render_template("thanks.html", values=values)


@app.get("/upload")
def upload_form() -> ResponseReturnValue:
    return render_template("upload.html", error=None)


@app.post("/upload")
def upload() -> ResponseReturnValue:
    file = request.files.get("file")
    if file is None or not file.filename:
        return render_template("upload.html", error="Choose a file first."), 422
    sha256, size = hashlib.sha256(), 0
    while chunk := file.stream.read(64 * 1024):
        sha256.update(chunk)
        size += len(chunk)
    found = {"name": file.filename, "size": size, "sha256": sha256.hexdigest()}
    if request.accept_mimetypes.best == "application/json":
        return found
    return render_template("uploaded.html", file=found)
