"""Key-value bindings: values that outlive instances; volumes that hold what no app put there."""

import json
import os
import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.apps import App
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import GuestProtocolError, ManifestInvalid
from isopod.model.app import AppSpec
from isopod.model.ids import AppName
from isopod.model.volume import VolumeMount
from isopod.runtimes.base import LentVolume
from isopod.runtimes.javascript import kv
from isopod.runtimes.javascript.building import check_bindings
from isopod.runtimes.javascript.kv import KeyValues, binding_name

# Does what it is told: a list of calls, and gives their results.
CALLS = worker(
    """
    const out = [];
    for (const [name, ...given] of await request.json()) {
      try {
        const made = given.map((one) => one?.times ? new Uint8Array(one.times).fill(120) : one);
        const found = await env.KV[name](...made);
        out.push(typeof found === "string" && found.length > 1000 ? found.length : found ?? null);
      } catch (error) { out.push(`${error.name}: ${error.message}`); }
    }
    return Response.json(out);
    """
)


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("values")) as made:
        yield made


def lent(folder: Path, size_bytes: int = 1 << 30, mount: str = "/kv") -> LentVolume:
    folder.mkdir(exist_ok=True)
    return LentVolume(folder, mount, size_bytes, 0)


def calls(app: App, *all_of_them: list) -> list:
    return json.loads(app.text(body=json.dumps(all_of_them).encode()))


def test_values_of_all_kinds_outlive_their_instance(shop, tmp_path):
    volume = lent(tmp_path / "v")
    app = shop.start(CALLS, volumes=(volume,))
    put = calls(
        app,
        ["put", "text", "wört"], ["put", "text", "wörter"], ["put", "", "x"],
        ["put", "big", {"times": 300_000}],
        ["put", "json", '{"a": [1]}', {"metadata": {"by": "me"}}],
        ["put", "later", "x", {"expirationTtl": 90}],
        ["put", "soon", "x", {"expirationTtl": 3}], ["put", "k" * 181, "x"], ["put", "none", 7],
        ["put", "huge", {"times": (8 << 20) + 1}], ["put", "meta", "x", {"metadata": "m" * 3000}],
    )  # fmt: skip
    assert put[:2] + put[3:6] == [None] * 5
    for at, what in ((2, "1 to 180 bytes"), (6, "60 s"), (7, "1 to 180"), (8, "a value is"),
                     (9, "8,388,608"), (10, "2048 bytes")):  # fmt: skip
        assert what in put[at]
    app.guest.close()
    again = shop.start(CALLS, volumes=(volume,))
    assert calls(
        again, ["get", "text"], ["get", "big"], ["get", "json", "json"], ["get", "nothing"],
        ["getWithMetadata", "json"], ["delete", "text"], ["get", "text"], ["delete", "text"],
    ) == [
        "wörter", 300_000, {"a": [1]}, None,
        {"value": '{"a": [1]}', "metadata": {"by": "me"}, "cacheStatus": None}, None, None, None,
    ]  # fmt: skip
    (listed,) = calls(again, ["list"])
    assert [one["name"] for one in listed["keys"]] == ["big", "json", "later"]
    assert listed["keys"][1]["metadata"] == {"by": "me"} and listed["keys"][2]["expiration"] > 0
    assert not list((volume.folder / "kv").glob(".*"))


def test_lists_come_in_pages_in_the_order_of_the_keys(shop, tmp_path):
    app = shop.start(CALLS, volumes=(lent(tmp_path / "v"),))
    names = [f"ä/{number:03}" for number in range(250)]
    calls(app, *(["put", name, "x"] for name in [*names, "b", "ü"]))
    (first,) = calls(app, ["list", {"prefix": "ä/", "limit": 120}])
    assert (len(first["keys"]), first["list_complete"]) == (120, False)
    rest = {"prefix": "ä/", "cursor": first["cursor"]}
    (second,) = calls(app, ["list", rest])
    assert second["list_complete"]
    assert [one["name"] for one in first["keys"] + second["keys"]] == names
    assert [one["name"] for one in calls(app, ["list"])[0]["keys"]][:1] == ["b"]
    assert calls(app, ["list", {"prefix": "zz"}])[0]["keys"] == []


def test_an_expired_value_is_gone(shop, tmp_path):
    volume = lent(tmp_path / "v")
    app = shop.start(CALLS, volumes=(volume,))
    header = b'{"expires": 1000}'
    path = volume.folder / "kv" / urlsafe_b64encode(b"old").decode()
    path.parent.mkdir()
    path.write_bytes(b"ikv1" + struct.pack("<I", len(header)) + header + b"value")
    assert calls(app, ["list"], ["get", "old"]) == [
        {"keys": [], "list_complete": True, "cacheStatus": None}, None,
    ]  # fmt: skip
    assert not path.exists()


def test_a_full_volume_refuses_and_keeps_what_it_has(shop, tmp_path):
    volume = lent(tmp_path / "v", size_bytes=1 << 20)
    app = shop.start(CALLS, volumes=(volume,))
    one, full, still, room = calls(
        app, ["put", "a", {"times": 500_000}], ["put", "a", {"times": 900_000}], ["get", "a"],
        ["put", "b", "small"],
    )  # fmt: skip
    assert (one, still, room) == (None, 500_000, None) and "no space left" in full
    assert calls(app, ["delete", "a"], ["put", "c", {"times": 900_000}]) == [None, None]


def test_what_a_volume_holds_is_not_trusted(shop, tmp_path):
    volume, secret = lent(tmp_path / "v"), tmp_path / "secret"
    secret.write_bytes(b"ikv1" + bytes(4) + b"of another tenant")
    folder = volume.folder / "kv"
    folder.mkdir()
    name = {
        key: urlsafe_b64encode(key.encode()).decode() for key in ("link", "dir", "short", "long")
    }
    (folder / name["link"]).symlink_to(secret)
    (folder / name["dir"]).mkdir()
    (folder / name["short"]).write_bytes(b"ikv")
    (folder / name["long"]).write_bytes(b"ikv1\xff\xff\xff\xffx")
    os.mkfifo(folder / urlsafe_b64encode(b"pipe").decode())
    (folder / "not base64!").write_text("x")
    (folder / ".new-left").write_text("of one that was killed")
    app = shop.start(CALLS, volumes=(volume,))
    for key in ("link", "dir", "short", "long", "pipe"):
        (found,) = calls(app, ["get", key])
        assert found.startswith("Error: "), key
    assert calls(app, ["put", "link", "mine"], ["get", "link"]) == [None, "mine"]
    assert secret.read_bytes().endswith(b"of another tenant")
    assert not (folder / ".new-left").exists()
    other = lent(tmp_path / "w")
    (other.folder / "kv").symlink_to(tmp_path)
    (found,) = calls(shop.start(CALLS, volumes=(other,)), ["get", "secret"])
    assert "cannot be used" in found


def test_a_folder_of_too_many_files_is_looked_at_once_and_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr(kv, "_MAX_LOOKED_AT", 3)
    volume = lent(tmp_path / "v")
    (volume.folder / "kv").mkdir()
    for number in range(5):
        (volume.folder / "kv" / f"no key {number}").touch()
    values = KeyValues([volume])
    for _ in range(2):
        assert b"holds too many files" in values.call(b"\0l\5\0\0")
    values.close()


def test_so_many_keys_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(kv, "MAX_KEYS", 2)
    values = KeyValues([lent(tmp_path / "v")])

    def put(key: bytes) -> bytes:
        return values.call(b"\0p\3\0\0" + struct.pack("<H", len(key)) + key + b"value")

    assert [put(b"a"), put(b"b"), put(b"a")] == [b"\0"] * 3
    assert b"at most 2 keys" in put(b"c")
    values.close()


@pytest.mark.parametrize(
    "frame",
    [b"", b"\0", b"\1gxxxx", b"\0g\0", b"\0?", b"\0l", b"\0l\1\xff\xff", b"\0p\0\0\0\1\0kx",
     b"\0p\3\xff\xff"],
)  # fmt: skip
def test_a_call_that_is_none_ends_the_guest(tmp_path, frame):
    values = KeyValues([lent(tmp_path / "v")])
    with pytest.raises(GuestProtocolError):
        values.call(frame)
    values.close()


def test_an_app_without_a_volume_has_no_binding(shop):
    app = shop.start(worker("return Response.json([typeof env.KV, Object.keys(env)])"))
    assert json.loads(app.text()) == ["undefined", []]
    with pytest.raises(GuestProtocolError):
        app.guest._values.call(b"\0d" + b"key")


def test_bindings_are_named_by_their_mounts():
    assert [binding_name(one) for one in ("/kv", "/app/my-sessions.2")] == ["KV", "MY_SESSIONS_2"]
    mounts = (VolumeMount("a", "/x/kv"), VolumeMount("b", "/y/kv"))
    with pytest.raises(ManifestInvalid, match=r"env\.KV"):
        check_bindings(AppSpec(AppName("x"), "javascript", "worker.js", volumes=mounts))


def test_an_image_holds_nothing_of_the_empty_volume_of_a_build(shop, tmp_path):
    source = worker("cached ??= await env.KV.get('x'); return new Response(cached)", "let cached;")
    mounts = (VolumeMount("data", "/kv"),)
    snapshot = shop.snapshot(source, mounts)
    assert [one.kind for one in snapshot.findings] == ["volume"]
    assert snapshot.verdict == "unwarmed"
    volume = lent(tmp_path / "v")
    calls(shop.start(CALLS, volumes=(volume,)), ["put", "x", "true"])
    assert shop.restore(source, snapshot, volumes=(volume,)).text() == "true"
    only_named = worker("return new Response(typeof env.KV)")
    assert shop.snapshot(only_named, mounts).verdict == "sound"
