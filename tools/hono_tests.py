"""Runs Hono's own tests inside a guest, and says which share passes.

    git clone --depth 1 --branch v4.13.19 https://github.com/honojs/hono
    python -m tools.hono_tests hono [src/router src/utils/cookie.test.ts]

npm's package of Hono has no tests, so they are those of a checkout. `--package 4.13.19` tests
that version of npm's package with them: the checkout needs nothing but tests then. Each file is
bundled by itself and run in a guest of its own. `expect` and spies are vitest's; suites are
`tools/hono/vitest.js`. Files that cannot be bundled (they need Node's modules or vitest's module
mocks) are not run, and are counted apart; so are tests of types. What needs fake timers fails.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.guest_tests import Guests, files_of, summary, told

VITEST = "5.1.1"
_SHIM = Path(__file__).parent / "hono" / "vitest.js"
# Of other platforms, builds and types: nothing of them runs in an app.
_NOT_FOR_GUESTS = re.compile(r"/adapter/|/types\.test|/build/|/helper/ssg/")


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser(description="run Hono's own tests in guests")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("wanted", nargs="*", default=["src"], help="files or folders of it")
    parser.add_argument("--package", metavar="VERSION", help="test npm's package, not its sources")
    parser.add_argument("--control", action="store_true", help="run in Node what fails in a guest")
    given = parser.parse_args(arguments)
    root = given.checkout.resolve()
    ran = []
    with tempfile.TemporaryDirectory(prefix="isopod-hono-") as scratch:
        work = Path(scratch)
        packages = [f"@vitest/expect@{VITEST}", f"@vitest/spy@{VITEST}"]
        if given.package:
            packages.append(f"hono@{given.package}")
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*npm, "--prefix", str(work), *packages], check=True)
        if given.package:
            dist = work / "node_modules" / "hono" / "dist"
            root = tests_over_package(root, dist, work / "tree")
        (work / "vitest.js").write_bytes(_SHIM.read_bytes())
        guests = Guests(work, control=given.control)
        for path in files(root, given.wanted):
            one = guests.run(
                'import { runAll } from "vitest";\n'
                f"import {json.dumps(str(path))};\n"
                "export default { fetch: async () => Response.json(await runAll()) };\n",
                *("--keep-names", f"--alias:vitest={work / 'vitest.js'}"),
                environment={"NODE_PATH": str(work / "node_modules")},
            )
            told(str(path.relative_to(root)), one)
            ran.append(one)
    print(summary(ran))
    return 0


def files(root: Path, wanted: list[str]) -> list[Path]:
    return files_of(root, wanted, "*.test.ts*", but=_NOT_FOR_GUESTS)


def tests_over_package(checkout: Path, dist: Path, tree: Path) -> Path:
    """A tree as a checkout is, whose sources are the package's modules: `../hono` of a test is its
    `hono.js`. The checkout's own sources stay behind, since a bundler would take `.ts` first."""
    shutil.copytree(dist, tree / "src", ignore=shutil.ignore_patterns("cjs", "types"))
    for path in files(checkout, ["src"]):
        to = tree / path.relative_to(checkout)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    return tree


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
