"""Runs Web Platform Tests inside a guest, and says which share passes.

    git clone --depth 1 https://github.com/web-platform-tests/wpt
    python -m tools.wpt_tests wpt url encoding fetch/api/headers [--control]

Those of a checkout, or of a folder that has some of its files: `*.any.js`, which are made for any
global scope. Each is run in a guest of its own with the scripts that its META lines name;
`tools/wpt/harness.js` stands in for testharness.js. What needs WPT's own server fails.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

from tools.guest_tests import Guests, Ran, files_of, summary, told

_HARNESS = Path(__file__).parent / "wpt" / "harness.js"
_SCRIPT = re.compile(r"^// META: script=(\S+)\s*$", re.MULTILINE)
# Interfaces as IDL files describe them, and other globals: nothing an app has.
_NOT_FOR_GUESTS = re.compile(r"idlharness|shadowrealm|/tentative/|\.window\.|serviceworker")


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser(description="run Web Platform Tests in guests")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("wanted", nargs="*", default=["."], help="files or folders of it")
    parser.add_argument("--control", action="store_true", help="run in Node what fails in a guest")
    given = parser.parse_args(arguments)
    root = given.checkout.resolve()
    ran = []
    with tempfile.TemporaryDirectory(prefix="isopod-wpt-") as scratch:
        guests = Guests(Path(scratch), control=given.control)
        for path in files_of(root, given.wanted, "*.any.js", but=_NOT_FOR_GUESTS):
            try:
                one = guests.run(harness_entry(root, path))
            except FileNotFoundError as error:
                one = Ran(why=f"a script of it is not there: {error.filename}")
            told(str(path.relative_to(root)), one)
            ran.append(one)
    print(summary(ran))
    return 0


def harness_entry(root: Path, path: Path) -> str:
    """Raises FileNotFoundError for a script that is not there."""
    return (
        f"import {{ run }} from {json.dumps(str(_HARNESS))};\n"
        f"const source = {json.dumps(script(root, path))};\n"
        f"const files = {json.dumps(resources(path))};\n"
        "export default { fetch: async () => Response.json(await run(source, files)) };\n"
    )


def script(root: Path, path: Path) -> str:
    """A test with the scripts it names, in the order in which a browser runs them. Together: what
    one declares at its top the next may use. Raises FileNotFoundError for one that is not there."""
    text = path.read_text()
    before = []
    for name in _SCRIPT.findall(text):
        other = root / name[1:] if name.startswith("/") else path.parent / name
        if other.name not in ("subset-tests.js", "subset-tests-by-key.js"):  # the harness has them
            before.append(other.read_text())
    return "\n".join([*before, text])


def resources(path: Path) -> dict[str, str]:
    """The data beside a test, by the address it asks for it."""
    folder = path.parent / "resources"
    return {f"resources/{one.name}": one.read_text() for one in sorted(folder.glob("*.json"))}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
