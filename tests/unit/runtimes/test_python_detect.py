from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import (
    AppNotDetected,
    AppSyntaxError,
    EntrypointNotCallable,
    EntrypointNotFound,
    IsopodError,
)
from isopod.manifest import Manifest
from isopod.runtimes.python.detect import detect

FLASK = "from flask import Flask\napp = Flask(__name__)\n"


def folder(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "entrypoint"),
    [
        ({"app.py": FLASK}, "app:app"),
        ({"main.py": FLASK.replace("app =", "application =")}, "main:application"),
        ({"wsgi.py": "from shop import create_app\napp = create_app()"}, "wsgi:app"),
        ({"wsgi.py": "from shop.core import thing as application"}, "wsgi:application"),
        ({"app.py": "app: object = make()"}, "app:app"),
        ({"app.py": "def app(environ, start_response): ..."}, "app:app"),
        ({"app.py": "class application:\n    pass"}, "app:application"),
        ({"app.py": "try:\n    import x\nexcept ImportError:\n    app = y()"}, "app:app"),
        ({"app.py": "if 1:\n    with a() as app:\n        pass"}, "app:app"),
        ({"app.py": "app, db = make()"}, "app:app"),
        ({"app.py": "x = 1", "main.py": FLASK}, "main:app"),
        ({"app.py": "app = None", "wsgi.py": FLASK}, "wsgi:app"),
        ({"src/app.py": FLASK}, "app:app"),
        ({"app/__init__.py": FLASK}, "app:app"),
        ({"app.py": "from fastapi import FastAPI\napp = FastAPI()", "wsgi.py": FLASK}, "app:app"),
        (
            {"app.py": "from fastapi import FastAPI\nfrom a2wsgi import ASGIMiddleware\n"
             "api = FastAPI()\napp = ASGIMiddleware(api)"},
            "app:app",
        ),
        # Syntax that only the guest's newer Python knows.
        ({"app.py": "lazy import json\napp = make(t'{json}')"}, "app:app"),
        ({"app.py": "def f[T](x: T): ...\ntype A = int\nlazy from x import app"}, "app:app"),
        ({"app.py": "try: pass\nexcept A, B: pass\ndef application(e, s): ..."}, "app:application"),
        ({"app.py": "x = [*a for a in b]\nclass app: ..."}, "app:app"),
    ],
)  # fmt: skip
def test_the_usual_places_are_found(tmp_path: Path, files: dict[str, str], entrypoint: str) -> None:
    assert detect(folder(tmp_path, files), Manifest()) == entrypoint


MANAGE = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', '{}')"
WSGI = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()"


@pytest.mark.parametrize(
    ("files", "entrypoint"),
    [
        ({"manage.py": MANAGE.format("shop.settings"), "shop/wsgi.py": WSGI}, "shop.wsgi"),
        (
            {
                "manage.py": MANAGE.format("config.settings.local").replace("'", '"'),
                "another/wsgi.py": WSGI,
                "config/wsgi.py": WSGI,
            },
            "config.wsgi",
        ),
        ({"manage.py": "", "zoo/wsgi.py": WSGI}, "zoo.wsgi"),
        ({"manage.py": MANAGE.format("gone.settings"), "a/b/wsgi.py": WSGI}, "a.b.wsgi"),
        ({"src/manage.py": MANAGE.format("x.settings"), "src/x/wsgi.py": WSGI}, "x.wsgi"),
    ],
)
def test_a_django_project_is_found(tmp_path: Path, files: dict[str, str], entrypoint: str) -> None:
    assert detect(folder(tmp_path, files), Manifest()) == f"{entrypoint}:application"


@pytest.mark.parametrize(
    ("entrypoint", "code"),
    [
        ("pkg.web:server", "server = make()"),
        ("pkg.web:holder.inner.app", "holder = Holder()"),
        ("pkg.web:anything", "from x import *"),
        ("pkg.web:lazy", "def __getattr__(name): ..."),
        ("pkg.web:App", "class App: ..."),
    ],
)
def test_a_named_entrypoint_is_taken(tmp_path: Path, entrypoint: str, code: str) -> None:
    app = folder(tmp_path, {"pkg/__init__.py": "", "pkg/web.py": code, "app.py": FLASK})
    assert detect(app, Manifest(entrypoint=entrypoint)) == entrypoint


def test_a_named_entrypoint_that_is_absent_is_refused_with_what_there_is(tmp_path: Path) -> None:
    app = folder(tmp_path, {"web.py": "server = make()\nx = 1", "main.py": FLASK})
    with pytest.raises(EntrypointNotFound, match=r"no module 'wed'.*there is 'main:app'"):
        detect(app, Manifest(entrypoint="wed:server"))
    with pytest.raises(EntrypointNotFound, match=r"'web.py' defines no 'app'; there is 'web:serve"):
        detect(app, Manifest(entrypoint="web:app"))
    with pytest.raises(EntrypointNotFound, match="not of the form"):
        detect(app, Manifest(entrypoint="web"))


def test_a_factory_is_told_what_to_do(tmp_path: Path) -> None:
    app = folder(tmp_path, {"web.py": "def create_app(config=None): ..."})
    with pytest.raises(EntrypointNotCallable) as caught:
        detect(app, Manifest(entrypoint="web:create_app"))
    assert "`app = create_app()`" in caught.value.hint


@pytest.mark.parametrize(
    ("files", "entrypoint"),
    [
        ({"main.py": "from fastapi import FastAPI\napp = FastAPI()"}, "main:app"),
        ({"app.py": "async def app(scope, receive, send): ..."}, "app:app"),
        ({"asgi.py": "application = make()"}, "asgi:application"),
        ({"manage.py": "", "zoo/asgi.py": "application = get()"}, "zoo.asgi:application"),
        ({"manage.py": "", "zoo/asgi.py": WSGI, "zoo/wsgi.py": WSGI}, "zoo.wsgi:application"),
    ],
)
def test_an_asgi_app_is_found_like_any_other(
    tmp_path: Path, files: dict[str, str], entrypoint: str
) -> None:
    assert detect(folder(tmp_path, files), Manifest()) == entrypoint


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ({"x.py": ""}, "there is no app.py, main.py, wsgi.py", ""),
        ({"app.py": "x = 1", "wsgi.py": ""}, "looked at app.py, wsgi.py", "isopod.toml"),
        ({"app.py": "import app"}, "looked at app.py", "isopod.toml"),
        ({"app.py": "def create_app(): ..."}, "factory 'app:create_app'", "`app = create_app()`"),
        ({"web/manage.py": ""}, "found no WSGI", "deploy the folder 'web'"),
        ({"app.py": "if __name__ == '__main__':\n    app = 1 + x"}, "looked at", "isopod.toml"),
    ],
)
def test_nothing_found_says_what_was_looked_at(
    tmp_path: Path, files: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(AppNotDetected) as caught:
        detect(folder(tmp_path, files), Manifest())
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_syntax_error_is_shown_as_python_shows_it(tmp_path: Path) -> None:
    app = folder(tmp_path, {"app.py": "import os\n\napp = (1 +\n"})
    with pytest.raises(AppSyntaxError) as caught:
        detect(app, Manifest())
    details = caught.value.details
    assert details["file"] == "app.py"
    assert details["line"] == 3
    assert details["text"] == "app = (1 +"
    assert 'File "app.py", line 3' in details["traceback"]
    assert str(tmp_path) not in details["traceback"]


def test_what_cannot_be_parsed_here_is_left_to_the_guest(tmp_path: Path) -> None:
    app = folder(tmp_path, {"app.py": "app = make()\nx = " + "(" * 50_000 + ")" * 50_000})
    try:
        assert detect(app, Manifest()) == "app:app"
    except AppSyntaxError as error:  # some versions of Python say so
        assert "too many nested parentheses" in error.message


@given(st.text(st.sampled_from("app=()[]{}:\n \t'\"#@,.*\0éx1ft"), max_size=60))
def test_any_source_gives_an_entrypoint_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    app = folder(tmp_path_factory.mktemp("app"), {"app.py": text})
    with suppress(IsopodError):
        assert detect(app, Manifest()).startswith("app:")
