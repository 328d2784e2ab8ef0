"""Which runtime a folder is for, of all that there are, and what is said where it is for none."""

import pytest

from isopod import manifest, runtimes
from isopod.errors import AppNotDetected

_BUILT = '{"scripts": {"build": "vite build"}}'
_PAGE = "<script type=module src=/src/main.js></script>"
_SVELTE = "export default mount(App, {target: document.body})\n"


def choose(path, files):
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    known = manifest.load(path)
    chosen = runtimes.known().choose(path, known)
    return chosen.name, chosen.detect(path, known)


def test_a_front_end_that_is_built_is_a_site_and_no_worker(tmp_path):
    files = {"package.json": _BUILT, "index.html": _PAGE, "src/main.js": _SVELTE}
    with pytest.raises(AppNotDetected, match="has a build script") as told:
        choose(tmp_path, files)
    assert "build it first" in told.value.hint
    assert choose(tmp_path, {"dist/index.html": "built"}) == ("static", "dist")


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ({"README.md": "hello"}, "isopod init --list"),
        ({"web/app.py": "def app(environ, start_response): ..."}, "deploy the folder 'web'"),
        ({"package.json": _BUILT}, "build it first"),
        (
            {"isopod.toml": '[static]\n"/x" = "public"\n', "public/a": ""},
            '[static] root = "public"',
        ),
    ],
)
def test_a_folder_for_none_is_told_what_each_looked_for_and_what_to_do(tmp_path, files, hint):
    with pytest.raises(AppNotDetected, match="found no app in the folder") as told:
        choose(tmp_path, files)
    assert "config.ru" in told.value.message and "go.mod" in told.value.message
    assert hint in told.value.hint
