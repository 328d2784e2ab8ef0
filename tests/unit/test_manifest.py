import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod import toml_text
from isopod.errors import ManifestInvalid
from isopod.manifest import Manifest, load, parse
from isopod.model.app import AppSpec, Health, Isolation, Limits, Scaling, Startup, WarmupRequest
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

[startup]
snapshot = false
warmup = ["/", {path = "/x", method = "POST", headers = {Accept = "*/*"}, body = "a=1"}]
before_snapshot = "shop.hooks:before"
after_restore = "shop.hooks:after"

[isolation]
mode = "request"

[static]
"/static/" = "public/"
"/" = "./site"

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
    assert spec.startup == Startup(
        snapshot=False,
        warmup=(WarmupRequest("/"), WarmupRequest("/x", "POST", (("Accept", "*/*"),), "a=1")),
        before_snapshot="shop.hooks:before",
        after_restore="shop.hooks:after",
    )
    assert spec.isolation == Isolation("request")
    assert spec.static == {"/static": "public", "/": "site"}
    assert AppSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_warm_up_is_the_health_request_when_nothing_else_is_said() -> None:
    def warmup(text: str) -> tuple[WarmupRequest, ...]:
        spec = parse(text).to_spec(name=AppName("a"), runtime="python", entrypoint="a:b", env={})
        return spec.startup.warmup

    assert warmup("") == (WarmupRequest("/"),)
    assert warmup("[health]\npath = '/up'") == (WarmupRequest("/up"),)
    assert warmup("[health]\npath = '/up'\n[startup]\nwarmup = []") == ()
    tables = "[[startup.warmup]]\npath = '/a'\n[[startup.warmup]]\npath = '/b'"
    assert warmup(tables) == (WarmupRequest("/a"), WarmupRequest("/b"))


def test_a_specification_from_before_snapshots_has_their_defaults() -> None:
    spec = parse(FULL).to_spec(name=AppName("a"), runtime="python", entrypoint="a:b", env={})
    old = spec.to_json()
    del old["startup"], old["isolation"]
    again = AppSpec.from_json(old)
    assert again.startup == Startup(warmup=(WarmupRequest("/healthz?x=1"),))
    assert again.isolation == Isolation()


def test_nothing_has_to_be_said(tmp_path: Path) -> None:
    assert load(tmp_path) == parse("") == Manifest()
    spec = Manifest().to_spec(name=AppName("a"), runtime="python", entrypoint="a:b", env={})
    assert (spec.scaling, spec.limits, spec.health) == (Scaling(), Limits(), Health())


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("[app]\nnmae = 'x'", 2, "app.nmae", "known"),
        ('[static]\n"/a" = "."', 2, "static./a", "below the app's own"),
        ('[static]\n"/a" = "../b"', 2, "static./a", "a folder of the app"),
        ('[static]\n"/a" = 1', 2, "static./a", "must be text"),
        ('[static]\n"/../a" = "b"', 2, "static./../a", "must be a path"),
        ('[static]\n"/a b" = "b"', 2, "static./a b", "must be a path"),
        ('[static]\n"/a" = "b"\n"/a/" = "c"', 3, "static./a/", "is there twice"),
        ('[static]\nroot = "d"\n"/a" = "b"', 2, "static.root", "keep one of the two"),
        ('[static]\nspa = true\n"/a" = "b"', 2, "static.spa", "keep one of the two"),
        ('[static]\nstatic = "b"', 2, "static.static", "is not known"),
        ("[static]\n" + "".join(f'"/{n}" = "b"\n' for n in range(21)), 1, "static", "20 paths"),
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
        ("[startup]\nsnapshot = 'no'", 2, "startup.snapshot", "must be true or false, not 'no'"),
        ("[startup]\nwarmup = '/'", 2, "startup.warmup", "must be a list"),
        ("[startup]\nwarmup = ['/', 'x']", 2, "startup.warmup", "entry 2 must be a path"),
        ("[startup]\nwarmup = [7]", 2, "startup.warmup", "entry 1 must be a path"),
        ("[startup]\nwarmup = [{}]", 2, "startup.warmup", "entry 1 lacks its path"),
        ("[startup]\nwarmup = [{path='/', x=1}]", 2, "startup.warmup", "holds 'x'"),
        ("[startup]\nwarmup = [{path='x'}]", 2, "startup.warmup", "entry 1 has a path that"),
        ("[startup]\nwarmup = [{path='/', method='get'}]", 2, "startup.warmup", "GET, HEAD"),
        ("[startup]\nwarmup = [{path='/', method=[]}]", 2, "startup.warmup", "GET, HEAD"),
        ("[startup]\nwarmup = [{path='/', headers=[]}]", 2, "startup.warmup", "as a table"),
        ("[startup]\nwarmup = [{path='/', headers={'a b'='c'}}]", 2, "startup.warmup", "'a b'"),
        ("[startup]\nwarmup = [{path='/', headers={a=1}}]", 2, "startup.warmup", "header 'a'"),
        (
            "[startup]\nwarmup = [{path='/', headers={Content-Length='1'}}]",
            2,
            "startup.warmup",
            "follows from",
        ),
        ("[startup]\nwarmup = [{path='/', body=1}]", 2, "startup.warmup", "a body that must be"),
        (f"[startup]\nwarmup = {['/'] * 21}", 2, "startup.warmup", "at most 20 requests, not 21"),
        ("[[startup.warmup]]\npath = 'x'", 1, "startup.warmup", "entry 1"),
        ("[startup]\nbefore_snapshot = 'a'", 2, "startup.before_snapshot", "module:function"),
        ("[startup]\nafter_restore = 'a:b.c'", 2, "startup.after_restore", "module:function"),
        ("[isolation]\nmode = 'none'", 2, "isolation.mode", '"app" or "request"'),
        ("[isolation]\nmode = []", 2, "isolation.mode", '"app" or "request"'),
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


def test_a_warm_up_body_is_bounded_in_bytes_and_no_header_is_shown() -> None:
    head = "[startup]\nwarmup = [{path = '/', headers = {authorization = 'hunter2'}, body = "
    parse(f"{head}'{'x' * (64 << 10)}'}}]")
    with pytest.raises(ManifestInvalid, match="larger than 64 KiB") as caught:
        parse(f"{head}'{'é' * (40 << 10)}'}}]")
    assert "hunter2" not in str(caught.value.to_wire())
    with pytest.raises(ManifestInvalid, match="header 'authorization'") as caught:
        parse("[startup]\nwarmup = [{path = '/', headers = {authorization = \"hunter2\\u0000\"}}]")
    assert "hunter2" not in str(caught.value.to_wire())


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
    st.sampled_from(["app", "scaling", "limits", "health", "startup", "isolation", "env", "other"]),
    st.sampled_from(
        [
            *("name", "runtime", "entrypoint", "queue", "idle_s", "memory_mib", "path"),
            *("snapshot", "warmup", "before_snapshot", "mode"),
        ]
    ),
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


def test_max_instances_may_stand_in_either_section_or_in_both_with_one_value():
    for text in (
        "[limits]\nmax_instances = 3",
        "[scaling]\nmax_instances = 3",
        "[limits]\nmax_instances = 3\n[scaling]\nmax_instances = 3",
    ):
        assert parse(text).max_instances == 3


@pytest.mark.parametrize(("first", "second"), [("scaling", "limits"), ("limits", "scaling")])
def test_two_values_of_max_instances_are_refused(first, second):
    with pytest.raises(ManifestInvalid) as caught:
        parse(f"[{first}]\nmax_instances = 3\n[{second}]\nmax_instances = 4")
    assert caught.value.message == (
        f"isopod.toml, line 4: [{second}] max_instances says 4 and [{first}] max_instances says 3: "
        "keep one of the two"
    )
    assert caught.value.details["key"] == f"{second}.max_instances"


def test_a_cordon_is_asked_for_or_not():
    assert parse("").cordon is None
    for cordon in ("shared", "tenant"):
        assert parse(f'[isolation]\ncordon = "{cordon}"').cordon == cordon
    with pytest.raises(ManifestInvalid, match='must be "shared" or "tenant"'):
        parse('[isolation]\ncordon = "app"')


def test_where_an_app_may_connect_to():
    manifest = parse('[network]\nallow = ["API.example.com.:443", "*.example.org:443"]\n')
    spec = manifest.to_spec(name=AppName("a"), runtime="python", entrypoint="a:b", env={})
    assert spec.network.to_json() == {"allow": ["api.example.com:443", "*.example.org:443"]}
    assert AppSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    nothing = parse("").to_spec(name=AppName("a"), runtime="python", entrypoint="a:b", env={})
    assert nothing.network.allow == ()
    assert "network" not in nothing.to_json()  # as versions of before it have it


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ('"api.example.com:443"', "must be a list"),
        ('["api.example.com"]', 'entry 1 must be "host:port"'),
        ('["a.example:1", "*:443"]', "entry 2 must be a host name"),
        ('["*.com:443"]', "two labels"),
        ("[443]", "entry 1 must be text"),
        (json.dumps([f"a{n}.example:1" for n in range(101)]), "at most 100"),
    ],
)
def test_a_wrong_list_is_refused_with_its_line(value, why):
    with pytest.raises(ManifestInvalid, match=r"line 2: \[network\] allow") as caught:
        parse(f"[network]\nallow = {value}\n")
    assert why in caught.value.message


def test_a_key_is_found_in_its_own_one_of_several_tables():
    text = '[app]\nname = "a"\n[[jobs]]\nname = "a"\n\n[[jobs]]\nname = "b"\npath = "/"\n'
    assert toml_text.line_of(text, "jobs", "name", 0) == 4
    assert toml_text.line_of(text, "jobs", "name", 1) == 7
    assert toml_text.line_of(text, "jobs", "path", 1) == 8
    assert toml_text.line_of(text, "", "jobs", 1) == 6


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("jobs = 1", "line 1: [jobs] must be one section or more: [[jobs]]"),
        ("[jobs]\nname = 'a'", "line 1: [jobs] must be one section or more: [[jobs]]"),
        ("[[volumes]]\nsize = 1", "line 2: [volumes] size is not known"),
        ("[[jobs]]\n[[jobs]]\nsize = 1", "line 1: [jobs] lacks its name"),
        ("[[jobs]]\n" * 51, "line 1: [jobs] may be there 50 times, not 51"),
    ],
)
def test_a_section_that_may_be_there_several_times_is_checked_like_others(text, why):
    with pytest.raises(ManifestInvalid, match=re.escape(why)):
        parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('name = "Data"\nmount = "/data"', "short DNS label"),
        ('name = "data"\nmount = "data"', "absolute path"),
        ('name = "data"\nmount = "/data/../etc"', "absolute path"),
        ('name = "data"\nmount = "/"', "absolute path"),
        ('name = "data"\nmount = "/app"', "absolute path"),
        ('name = "data"\nmount = "/tmp/x"', "the runtime's"),
        ('name = "data"\nmount = "/usr/local/lib"', "the runtime's"),
        ('name = "data"', "lacks its mount"),
        ('name = "a"\nmount = "/d"\n[[volumes]]\nname = "b"\nmount = "/d/e"', "inside another"),
        ('name = "a"\nmount = "/d"\n[scaling]\nmax_instances = 2', "one writer"),
    ],
)
def test_a_volume_that_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(ManifestInvalid, match=why):
        parse(f"[[volumes]]\n{text}\n")


def test_an_app_with_a_volume_has_one_instance() -> None:
    manifest = parse('[[volumes]]\nname = "data"\nmount = "/app/data"\n')
    name = AppName("shop")
    spec = manifest.to_spec(name=name, runtime="python", entrypoint="a:b", env={})
    assert spec.scaling.max_instances == 1
    assert AppSpec.from_json(spec.to_json()) == spec
