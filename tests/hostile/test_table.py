"""docs/hostile.md says of every attack what it gets, and names tests that there are."""

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCS = (ROOT / "docs" / "hostile.md").read_text()
# | attack | outcome |, | attack | outcome | languages |, or | attack | outcome | `path::test` |
ROW = re.compile(
    r"^\| (?P<tried>[^|]+?) \| (?P<got>[^|]+?) \|"
    r"(?: (?:`(?P<where>.+?)`|(?P<languages>[A-Z][A-Za-z, ]*)) \|)?$",
    re.MULTILINE,
)


def rows() -> dict[str, str]:
    return {row["tried"]: row["got"] for row in ROW.finditer(DOCS)}


def test_every_attack_of_this_run_has_its_row(request):
    marks = [item.get_closest_marker("attack") for item in request.session.items]
    known = rows()
    attacks = {mark.args[0]: mark.args[1:] for mark in marks if mark is not None}
    assert not {tried: got for tried, (got, *_) in attacks.items() if known.get(tried) != got}
    languages = {row["tried"]: row["languages"] for row in ROW.finditer(DOCS)}
    tried_in = {tried: ", ".join(more[0]) for tried, (_, *more) in attacks.items() if more}
    assert {tried: languages[tried] for tried in tried_in} == tried_in


def test_every_row_is_an_attack_of_the_suite_or_names_its_test():
    sources = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    # As Python joins neighbouring texts.
    joined = re.sub(r'"\s*f?"', "", sources).replace('\\"', '"')
    for row in ROW.finditer(DOCS):
        if row["tried"] == "attack" or set(row["tried"]) == {"-"}:
            continue
        if row["where"] is None:
            assert row["tried"] in joined, row["tried"]
            continue
        path, _, name = row["where"].partition("::")
        assert re.search(rf"^def {re.escape(name)}\(", (ROOT / path).read_text(), re.MULTILINE), row
    assert len(rows()) > 60
