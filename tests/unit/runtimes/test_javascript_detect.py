"""Which folder is a worker's, and which of its files is the worker."""

from pathlib import Path

import pytest

from isopod.errors import AppNotDetected
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim
from isopod.runtimes.javascript import detect

WORKER = "export default { fetch() { return new Response('x') } }\n"


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize(
    ("files", "entrypoint"),
    [
        ({"worker.js": WORKER}, "worker.js"),
        ({"src/index.ts": WORKER}, "src/index.ts"),
        ({"package.json": '{"main": "lib/a.mjs"}', "lib/a.mjs": WORKER, "index.js": WORKER},
         "lib/a.mjs"),
        ({"package.json": '{"main": "/etc/passwd.js"}', "index.js": WORKER}, "index.js"),
        ({"package.json": "[[[", "app.mjs": "const x = 1\nexport { x as default }"}, "app.mjs"),
        ({"index.js": "console.log(1)", "worker.js": WORKER}, "worker.js"),
        ({"worker.js": f"var a=1;{WORKER}"}, "worker.js"),
        ({"worker.js": "function f(){}export default{fetch:f};"}, "worker.js"),
    ],
)  # fmt: skip
def test_a_module_with_a_default_export_is_the_app(tmp_path, files, entrypoint):
    app = folder(tmp_path, files)
    assert detect.claim(app, Manifest()) is Claim.SURE
    assert detect.detect(app, Manifest()) == entrypoint


def test_scripts_without_an_export_are_no_worker_and_told_why(tmp_path):
    app = folder(tmp_path, {"server.js": "require('http').createServer().listen(80)"})
    assert detect.claim(app, Manifest()) is Claim.MAYBE
    with pytest.raises(AppNotDetected, match=r"'server\.js' has no default export"):
        detect.detect(app, Manifest())
    assert detect.claim(folder(tmp_path / "x", {"a.txt": ""}), Manifest()) is Claim.NO


@pytest.mark.parametrize("page", ["index.html", "public/index.html"])
def test_what_a_front_ends_build_begins_with_is_no_worker(tmp_path, page):
    """Vite, Svelte, Vue, Create React App."""
    app = folder(
        tmp_path,
        {
            "package.json": '{"scripts": {"build": "vite build"}}',
            page: "<script type=module src=/src/main.ts></script>",
            "src/main.ts": "export default mount(App)\n",
            "src/index.js": "render(App)\n",
        },
    )
    assert detect.claim(app, Manifest()) is Claim.NO
    folder(app, {"worker.js": WORKER})
    assert detect.detect(app, Manifest()) == "worker.js"
    folder(app, {"package.json": '{"main": "src/main.ts", "scripts": {"build": "tsc"}}'})
    assert detect.detect(app, Manifest()) == "src/main.ts"
