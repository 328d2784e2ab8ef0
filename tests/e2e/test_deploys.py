"""Deploying: what is found, what makes a version, going back, and who wins."""

from __future__ import annotations

import json
import re

import pytest
from tests.e2e.nodes import APPS, HELLO, Failed, folder, get, hello, text, until

from tools.http_calls import Caller
from tools.node import Node

# They take half a minute to be given up, while these tests go on.
pytestmark = pytest.mark.usefixtures("slow_clients")
CALLABLE = HELLO.replace("def app(", "def application(")
DJANGO = {
    "requirements.txt": "django==5.2.*\n",
    "manage.py": (
        "import os, sys\n"
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")\n'
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    ),
    "site1/__init__.py": "",
    "site1/settings.py": (
        'SECRET_KEY = "e2e"\nALLOWED_HOSTS = [".localhost"]\nROOT_URLCONF = "site1.urls"\n'
        'INSTALLED_APPS = []\nMIDDLEWARE = ["django.middleware.common.CommonMiddleware"]\n'
        'WSGI_APPLICATION = "site1.wsgi.application"\nUSE_TZ = True\n'
    ),
    "site1/urls.py": (
        "from django.http import HttpResponse\nfrom django.urls import path\n"
        'urlpatterns = [path("", lambda request: HttpResponse("hello from django"))]\n'
    ),
    "site1/wsgi.py": (
        "import os\nfrom django.core.wsgi import get_wsgi_application\n"
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")\n'
        "application = get_wsgi_application()\n"
    ),
}
FORMS = {
    "app in app.py": ({"app.py": HELLO % "here"}, "app:app"),
    "application in app.py": ({"app.py": CALLABLE % "here"}, "app:application"),
    "app in main.py": ({"main.py": HELLO % "here"}, "main:app"),
    "application in wsgi.py": ({"wsgi.py": CALLABLE % "here"}, "wsgi:application"),
    "entrypoint in isopod.toml": (
        {
            "shop/__init__.py": "",
            "shop/web.py": (HELLO % "here").replace("def app(", "def serve("),
            "isopod.toml": '[app]\nentrypoint = "shop.web:serve"\n',
        },
        "shop.web:serve",
    ),
}


def deployed(node: Node, *arguments: str) -> dict:
    return json.loads(node.cli("deploy", *arguments, "--json"))


@pytest.mark.parametrize("form", FORMS)
def test_an_app_is_found_where_it_is_usual(node, tmp_path, form):
    files, entrypoint = FORMS[form]
    done = node.run("deploy", str(folder(tmp_path / "app", files)), "--name", "found")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"detect +{re.escape(entrypoint)} ", done.stderr)
    assert text(node, "found") == "here"


def test_a_django_5_2_project_is_deployed_as_it_is(node, tmp_path):
    done = node.run("deploy", str(folder(tmp_path / "site", DJANGO)), "--name", "django")
    assert done.returncode == 0, done.stderr
    assert "site1.wsgi:application" in done.stderr
    assert text(node, "django") == "hello from django"


def test_name_and_variables_come_from_the_manifest_and_the_command_line_wins(node, tmp_path):
    made = folder(
        tmp_path / "app",
        {
            "app.py": (APPS / "kitchen" / "app.py").read_text(),
            "isopod.toml": '[app]\nname = "named"\n[env]\nE2E_A = "file"\nE2E_B = "file"\n',
        },
    )
    assert deployed(node, str(made), "--env", "E2E_B=given=1")["app"] == "named"
    with Caller(node.gateway_port, "named") as caller:
        assert caller.json("/echo")["env"] == {"E2E_A": "file", "E2E_B": "given=1"}


def test_the_same_input_gives_the_same_digest_and_no_new_build(node, tmp_path):
    first = deployed(node, str(hello(tmp_path / "a", "the same")), "--name", "same")
    again = deployed(node, str(hello(tmp_path / "b", "the same")), "--name", "same")
    assert first["built"] and not again["built"] and again["unchanged"]
    assert again["digest"] == first["digest"] and again["version"] == first["version"] == 1


def test_a_changed_variable_makes_a_version_without_a_new_build(node, tmp_path):
    made = str(hello(tmp_path / "app"))
    first = deployed(node, made, "--name", "varied")
    done = node.run("deploy", made, "--name", "varied", "--env", "E2E_A=1")
    assert re.search(r"dependencies +As built before", done.stderr), done.stderr
    assert re.search(r"compile +As built before", done.stderr)
    app = node.json("app", "varied")["app"]
    assert app["version"] == 2 and app["digest"] != first["digest"]


def test_rollback_goes_to_the_version_before_and_to_any_other(node, tmp_path):
    for number in (1, 2, 3):
        made = hello(tmp_path / f"v{number}", f"version {number}")
        assert deployed(node, str(made), "--name", "back")["version"] == number
    assert text(node, "back") == "version 3"
    node.cli("rollback", "back")
    assert text(node, "back") == "version 2"
    node.cli("rollback", "back", "1")
    assert text(node, "back") == "version 1"
    node.cli("rollback", "back", "3")
    assert text(node, "back") == "version 3"
    assert Failed(node, "rollback", "back", "9").code == "version_not_found"
    assert Failed(node, "rollback", "nobody").code == "app_not_found"
    assert text(node, "back") == "version 3"


def test_a_new_version_takes_over_without_an_error(node, tmp_path):
    deployed(node, str(hello(tmp_path / "a", "old")), "--name", "moving")
    process = node.popen("deploy", str(hello(tmp_path / "b", "new")), "--name", "moving")
    seen = []
    while process.poll() is None:
        seen.append(get(node, "moving"))
    process.communicate()
    assert process.returncode == 0
    assert {(answer.status, answer.text) for answer in seen} <= {(200, "old"), (200, "new")}
    assert text(node, "moving") == "new"  # acknowledged: every worker knows


def test_of_two_deploys_at_once_one_wins_and_the_other_is_told(node, tmp_path):
    deployed(node, str(hello(tmp_path / "old", "old")), "--name", "raced")
    # A second of import, so that they meet.
    slow = "import time\ntime.sleep(1)\n" + HELLO
    folders = [folder(tmp_path / n, {"app.py": slow % n}) for n in ("one", "two")]
    racing = [node.popen("deploy", str(f), "--name", "raced") for f in folders]
    said = [process.communicate() for process in racing]
    statuses = [process.returncode for process in racing]
    assert sorted(statuses) == [0, 2], said
    loser = said[statuses.index(2)][1]
    assert "code: deploy_in_progress" in loser
    print(f"SEEN two deploys at once: {loser.strip()}")
    assert text(node, "raced") == ("one", "two")[statuses.index(0)]


def test_a_deploy_given_up_with_ctrl_c_leaves_the_old_version_and_frees_the_name(node, tmp_path):
    deployed(node, str(hello(tmp_path / "old", "old")), "--name", "given-up")
    hanging = folder(tmp_path / "new", {"app.py": "while True: pass\ndef app(e, s): ...\n"})
    process = node.popen("deploy", str(hanging), "--name", "given-up")
    until("a builder", lambda: builders(node))
    process.send_signal(2)
    assert process.communicate() and process.returncode == 130
    until("no builder", lambda: not builders(node))
    assert text(node, "given-up") == "old"
    assert deployed(node, str(hello(tmp_path / "next", "next")), "--name", "given-up")


def builders(node: Node) -> list:
    return [process for process in node.children() if " isopod.builder" in process.command]
