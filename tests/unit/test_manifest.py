from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import ManifestInvalid
from isopod.manifest import Manifest, load, parse
from isopod.model.app import Health, Limits, Scaling
from isopod.model.ids import AppName

FULL = """\
[app]
name = "shop"
runtime = "python"
entrypoint = "shop.wsgi:application"

[scaling]
max_instances = 4
idle_s = 1.5
queue = 10

[limits]
memory_mib = 128
deadline_ms = 5000
max_request_mib = 1

[health]
path = "/healthz?x=1"

[env]
DEBUG = "1"
MODE = "from the file"
"""


def test_everything_can_be_said_and_the_command_line_wins() -> None:
    manifest = parse(FULL)
    spec = manifest.to_spec(
        name=AppName("shop"), runtime="python", entrypoint="a:b", env={"MODE": "given"}
    )
    assert manifest.name == "shop"
    assert manifest.entrypoint == "shop.wsgi:application"
    assert spec.scaling == Scaling(max_instances=4, idle_s=1.5, queue=10)
    assert spec.limits == Limits(memory_mib=128, deadline_ms=5000, max_request_mib=1)
    assert spec.health == Health("/healthz?x=1")
    assert spec.env == {"DEBUG": "1", "MODE": "given"}


def test_nothing_has_to_be_said(tmp_path: Path) -> None:
    assert load(tmp_path) == parse("") == Manifest()
    spec = Manifest().to_spec(name=AppName("a"), runtime="python", entrypoint="a:b", env={})
    assert (spec.scaling, spec.limits, spec.health) == (Scaling(), Limits(), Health())


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("[app]\nnmae = 'x'", 2, "app.nmae", "known"),
        ("[app]\n\n[scalling]\nqueue=1", 3, "scalling", "known"),
        ("app = 3", 1, "app", "must be a section"),
        ("[app]\nname = 'Shop!'", 2, "app.name", "not a DNS label"),
        ("[app]\nname = 7", 2, "app.name", "must be text"),
        ("[app]\nentrypoint = 'app'", 2, "app.entrypoint", "module:object"),
        ("[app]\nentrypoint = 'app:create_app()'", 2, "app.entrypoint", "not a call"),
        ("[app]\nentrypoint = '../app:x'", 2, "app.entrypoint", "module:object"),
        ("[limits]\n# deadline_ms = 1\nmemory_mib = 1", 3, "limits.memory_mib", "from 32 to 4,095"),
        ("[limits]\nmemory_mib = 128.0", 2, "limits.memory_mib", "whole number"),
        ("[limits]\nmemory_mib = true", 2, "limits.memory_mib", "whole number"),
        ("limits.deadline_ms = -1", 1, "limits.deadline_ms", "whole number"),
        ("limits = { deadline_ms = -1 }", 1, "limits.deadline_ms", "whole number"),
        ("[scaling]\nidle_s = nan", 2, "scaling.idle_s", "must be a number"),
        ("[scaling]\nidle_s = '60'", 2, "scaling.idle_s", "must be a number"),
        ("[health]\npath = 'up'", 2, "health.path", "starts with"),
        ("[health]\npath = '/a\\n b'", 2, "health.path", "printable"),
        ("[env]\nA = 'x'\nB = 1", 3, "env.B", "text in quotes"),
        ("[env]\n'A-B' = 'x'", 2, "env.A-B", "letters, digits"),
        ("[env.A]\nB = 'x'", 1, "env.A", "text in quotes"),
        ("[app]\nname = ", 2, None, "invalid value"),
        ("[app]\n[app]\n", 2, None, "cannot declare"),
        ("[app", 1, None, "expected"),
    ],
)
def test_a_mistake_is_shown_with_its_line_and_key(
    text: str, line: int, key: str | None, says: str
) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse(text)
    error = caught.value
    assert error.message.startswith(f"isopod.toml, line {line}: ")
    assert says in error.message + error.hint
    assert error.details["line"] == line
    assert error.details.get("key") == key


def test_a_secret_in_env_is_not_shown() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse("[env]\nPIN = 90210")
    assert "90210" not in str(caught.value.to_wire())


def test_a_file_that_is_not_utf8_or_huge_is_refused(tmp_path: Path) -> None:
    (tmp_path / "isopod.toml").write_bytes(b"[app]\nname = '\xff'\n")
    with pytest.raises(ManifestInvalid, match="line 2: not UTF-8"):
        load(tmp_path)
    (tmp_path / "isopod.toml").write_bytes(b"#" * (1 << 20))
    with pytest.raises(ManifestInvalid, match="larger than"):
        load(tmp_path)


@given(st.text())
def test_any_text_gives_a_manifest_or_our_error(text: str) -> None:
    try:
        parse(text)
    except ManifestInvalid as error:
        assert error.details["file"] == "isopod.toml"


VALUES = st.recursive(
    st.one_of(st.integers(), st.floats(), st.booleans(), st.text("ab:./\\'\0", max_size=9)),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return str(value)


@given(
    st.sampled_from(["app", "scaling", "limits", "health", "env", "other"]),
    st.sampled_from(["name", "runtime", "entrypoint", "queue", "idle_s", "memory_mib", "path"]),
    VALUES,
)
def test_any_value_for_any_key_gives_a_manifest_or_our_error_with_the_line(
    section: str, key: str, value: object
) -> None:
    try:
        parse(f"\n[{section}]\n{key} = {toml(value)}\n")
    except ManifestInvalid as error:
        assert error.details["line"] in (2, 3)


def test_deeply_nested_input_is_our_error() -> None:
    with pytest.raises(ManifestInvalid):
        parse("a = " + "[" * 100_000)
    with pytest.raises(ManifestInvalid):
        parse("a = " + "9" * 10_000)
