"""Images of workers: what each instance has for itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.workers import Workshop, worker

from isopod.engine.written import WrittenPages

FRESH = worker(
    """
    if (new URL(request.url).pathname === "/") return new Response("warm");
    return Response.json({
      random: Math.random(), uuid: crypto.randomUUID(), key: env.KEY ?? null,
      bytes: [...crypto.getRandomValues(new Uint8Array(8))], now: Date.now(),
      elapsed: performance.now() - began });
    """,
    before="const began = performance.now();",
)


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("images")) as made:
        yield made


def test_an_image_restored_twice_has_its_own_randomness_clock_and_settings(shop):
    snapshot = shop.snapshot(FRESH)
    assert (snapshot.verdict, snapshot.private, snapshot.findings) == ("sound", False, ())
    one = shop.restore(FRESH, snapshot, env={"KEY": "one"})
    two = shop.restore(FRESH, snapshot, env={"KEY": "two"})
    first, second = json.loads(one.text("/x")), json.loads(two.text("/x"))
    assert (first["key"], second["key"]) == ("one", "two")
    assert all(first[name] != second[name] for name in ("random", "uuid", "bytes"))
    assert second["now"] >= first["now"] > 1_700_000_000_000
    assert first["elapsed"] > 0 and second["elapsed"] > 0
    again = json.loads(one.text("/x"))
    assert again["elapsed"] >= first["elapsed"]


def test_a_setting_that_was_read_is_in_no_image(shop):
    warmed = worker("cached ??= env.KEY ?? 'none'; return new Response(cached)", "let cached;")
    snapshot = shop.snapshot(warmed)
    assert snapshot.verdict == "unwarmed"
    assert [one.what for one in snapshot.findings] == ["KEY is read before the snapshot"]
    assert shop.restore(warmed, snapshot, env={"KEY": "mine"}).text() == "mine"
    loaded = """
        export default class { constructor(ctx, env) { this.all = Object.keys(env).length }
          fetch() { return new Response(String(this.all)) } }
        """
    snapshot = shop.snapshot(loaded)
    assert (snapshot.verdict, snapshot.image) == ("plain", "")
    assert shop.start(loaded, env={"KEY": "x"}).text() == "1"


def test_random_numbers_of_the_load_make_an_image_private(shop):
    snapshot = shop.snapshot(worker("return new Response(id)", "const id = crypto.randomUUID();"))
    assert snapshot.private and [one.kind for one in snapshot.findings] == ["entropy"]


def test_an_instance_that_rests_shares_again_what_is_as_in_its_image(shop):
    counts = worker(
        "seen.push(request.url); return new Response(seen.length + '')", "let seen = []"
    )
    app = shop.restore(counts, shop.snapshot(counts))
    count = int(app.text())
    before = app.guest.private_bytes
    written = WrittenPages.open()
    assert written is not None
    app.guest.instance.give_back(written)
    written.close()
    assert app.guest.private_bytes < before - (100 << 10)
    assert int(app.text()) == count + 1
    assert app.guest.private_bytes == before


def test_a_restored_instance_has_the_limits_of_its_app(shop):
    greedy = worker("const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1));")
    snapshot = shop.snapshot(greedy, warmup=())
    app = shop.restore(greedy, snapshot, memory_mib=16)
    with pytest.raises(Exception, match="16 MiB"):
        app.call()
    assert app.guest.peak_memory_bytes <= 16 << 20
