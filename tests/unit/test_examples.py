"""The examples are ordinary WSGI apps: they run without isopod."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEED_A_MANIFEST = {
    "c-guestbook",
    "django-postgres",
    "django-sqlite",
    "fastapi-crud",
    "flask-jobs",
    "flask-requests",
    "starlette-chat",
    "starlette-tokens",
}  # for what an app must ask for


def load(name: str) -> ModuleType:
    # Flask finds templates by the module's name, so each has its own.
    unique = f"example_{name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(unique, EXAMPLES / name / "app.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[unique] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(app: Any, method: str, path: str, body: bytes = b"") -> tuple[str, bytes]:
    """A request under `wsgiref.validate`."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": ""}
    environ["QUERY_STRING"] = ""
    environ["wsgi.input"] = io.BytesIO(body)
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    setup_testing_defaults(environ)
    statuses: list[str] = []

    def start_response(status: str, _headers: object, _exc_info: object = None) -> Any:
        statuses.append(status)
        return lambda _data: None

    answer = validator(app)(environ, start_response)
    try:
        data = b"".join(answer)
    finally:
        answer.close()
    return statuses[0], data


def test_bare_wsgi_follows_the_specification() -> None:
    app = load("bare-wsgi").application
    assert call(app, "GET", "/")[0] == "200 OK"
    assert call(app, "GET", "/stream")[1].count(b"\n") == 5
    assert call(app, "POST", "/echo", b"\x00\xff" * 100_000)[1] == b"\x00\xff" * 100_000
    assert call(app, "GET", "/nowhere")[0] == "404 Not Found"


def test_bare_wsgi_makes_a_line_only_when_the_one_before_is_taken() -> None:
    lines = load("bare-wsgi").count()
    assert next(lines) == b"line 1 of 5\n"


@pytest.mark.parametrize("name", ["flask-hello", "flask-forms"])
def test_flask_examples_answer_natively(name: str) -> None:
    assert call(load(name).app, "GET", "/")[0] == "200 OK"


def test_the_hello_example_is_only_an_app_and_its_requirements() -> None:
    files = {path.name for path in (EXAMPLES / "flask-hello").iterdir()} - {"__pycache__"}
    assert files == {"app.py", "requirements.txt"}


@pytest.mark.parametrize("folder", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_no_example_knows_of_isopod(folder: Path) -> None:
    for source in folder.rglob("*.py"):  # a static site has none
        assert "import isopod" not in source.read_text()
    if folder.name not in NEED_A_MANIFEST:
        assert not (folder / "isopod.toml").exists()
