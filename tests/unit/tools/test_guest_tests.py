"""The tools that run somebody else's tests in guests: what they count is what happened."""

from pathlib import Path

import pytest

from tools.guest_tests import Guests, Ran, counted, summary
from tools.hono_tests import tests_over_package as over_package
from tools.wpt_tests import harness_entry

WPT = """
// META: title=What may come of a test
// META: script=resources/given.js
test(() => assert_equals(given, 7), "one passes");
test(() => assert_throws_js(TypeError, () => { throw new RangeError("no") }), "one fails");
async_test((t) => setTimeout(t.step_func_done(() => assert_true(true)), 1), "one is late");
promise_test(async (t) => {
  await promise_rejects_dom(t, "AbortError", Promise.reject(new DOMException("x", "AbortError")));
  assert_array_equals([...await (await fetch("resources/data.json")).json()], [1, 2]);
}, "one promises");
test(() => assert_implements_optional(false), "one is not for us");
for (name in { a: 1 }) test(() => assert_equals(name, "a"), "it is no module");
"""


def wpt(root: Path) -> Path:
    (root / "api" / "resources").mkdir(parents=True)
    (root / "api" / "resources" / "given.js").write_text("const given = 7;")
    (root / "api" / "resources" / "data.json").write_text("[1, 2]")
    (root / "api" / "some.any.js").write_text(WPT)
    return root / "api" / "some.any.js"


def test_a_web_platform_test_is_counted_test_by_test_in_a_guest_and_in_node(
    tmp_path, prepared_javascript
):
    path = wpt(tmp_path / "wpt")
    work = tmp_path / "work"
    work.mkdir()
    guests = Guests(work, control=True, cache=prepared_javascript)
    ran = guests.run(harness_entry(tmp_path / "wpt", path))
    assert (ran.why, ran.passed, ran.skipped) == ("", 4, 1)
    assert ran.failed == (("one fails", "expected TypeError, got RangeError: no"),)
    assert ran.elsewhere == {"one fails"}
    assert guests.run("import 'nothing';").why == 'cannot be bundled: Could not resolve "nothing"'
    assert guests.run("throw new Error('at once');").why.startswith("did not run: ")
    assert guests.run("export default { fetch: () => new Response('x') };").why == (
        "did not run: b'x'"
    )


def test_a_test_whose_scripts_are_not_there_is_not_run(tmp_path):
    path = wpt(tmp_path)
    (tmp_path / "api" / "resources" / "given.js").unlink()
    with pytest.raises(FileNotFoundError, match=r"given\.js"):
        harness_entry(tmp_path, path)


def test_tests_of_a_checkout_are_laid_over_the_package_without_its_sources(tmp_path):
    checkout, dist = tmp_path / "checkout", tmp_path / "dist"
    for path in ("src/hono.ts", "src/hono.test.ts", "src/router/a/router.test.ts"):
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(path)
    for path in ("hono.js", "router/a/index.js", "cjs/hono.js", "types/hono.d.ts"):
        (dist / path).parent.mkdir(parents=True, exist_ok=True)
        (dist / path).write_text(path)
    tree = over_package(checkout, dist, tmp_path / "tree")
    found = sorted(str(one.relative_to(tree)) for one in tree.rglob("*") if one.is_file())
    assert found == [
        "src/hono.js",
        "src/hono.test.ts",
        "src/router/a/index.js",
        "src/router/a/router.test.ts",
    ]


def test_what_fails_in_node_too_is_counted_apart():
    one = counted(b'[{"name": "a"}, {"name": "b", "error": "no"}, {"name": "c", "error": "no"}]')
    assert (one.passed, [name for name, _ in one.failed]) == (1, ["b", "c"])
    both = Ran(one.passed, 0, one.failed, elsewhere=frozenset({"b"}))
    assert summary([both, Ran(why="it could not")]) == (
        "1 passed, 1 failed, 1 failed in Node too, 1 files, 1 files not run"
    )
