"""What esbuild read and whose it is, by the names that it gives files."""

import json
import os
from pathlib import Path

import pytest

from isopod.errors import PackageUnsafe
from isopod.runtimes.javascript.esbuild import Bundled, Complaint
from isopod.runtimes.javascript.outside import refuse


@pytest.fixture
def check(tmp_path):
    app, packages = tmp_path / "app", tmp_path / "npm"
    app.mkdir()
    packages.mkdir()

    def check_all(*names: str, said: str = "") -> None:
        inputs = tmp_path / "inputs.json"
        inputs.write_text(json.dumps({"inputs": {name: {"bytes": 1} for name in names}}))
        done = Bundled((Complaint("no", "", 0),) if said else (), said)
        refuse(done, inputs, folder=app, own=(app, packages))

    return check_all


def test_what_is_the_apps_or_a_packages_is_let(check):
    check("i.js", "a/b.txt?x#/../../../y", "a.txt with { type: 'text' }", "(disabled):x.js")
    check("../npm/node_modules/hono/index.js", "<define:process.env.NODE_ENV>", "a#b/c.js")


@pytest.mark.parametrize(
    "name",
    [
        "../other.json",
        "../../../../../../../../../../etc/passwd",
        "../npm-other/x.js",
        "../app2/x.js",
        "(disabled):../other.json",
        "../other.json with { type: 'text' }",
        "../other.json?/../app/i.js",
        "../other.json#/../app/i.js",
        "../other.json with { type: 'x/../../app/i.js' }",
        "/etc/passwd",
    ],
)
def test_what_is_another_s_is_refused_and_none_of_it_shown(check, name):
    with pytest.raises(PackageUnsafe, match="none of its files"):
        check("i.js", name)
    shown = f'X [ERROR] Unexpected "root"\n\n    {name.split(" ")[0]}:1:0:\n      1 | root:x:0\n'
    with pytest.raises(PackageUnsafe) as told:
        check(said=shown)
    assert "root:x:0" not in str(told.value.details)


def test_a_folder_behind_a_link_is_its_own(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps({"inputs": {"i.js": {}, os.path.relpath(real / "x", real): {}}}))
    refuse(Bundled((), ""), inputs, folder=tmp_path / "link", own=(Path(tmp_path / "link"),))
