"""Images of Ruby apps: what they share, what each instance has for itself, what costs one."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.rubies import Workshop

from isopod.model.app import WarmupRequest
from isopod.model.volume import VolumeMount
from isopod.runtimes.base import LentVolume

DRAWS = r"""
require "json"
require "securerandom"
require "openssl"
MADE = Random.new
SEEDED = Random.new(42)
rand
run do |env|
  next [200, {}, ["warm"]] if env["PATH_INFO"] == "/"
  drawn = { rand: rand, random: Random.rand, secure: SecureRandom.uuid, made: MADE.rand,
            openssl: OpenSSL::Random.random_bytes(8).unpack1("H*"), shuffled: (0..50).to_a.shuffle,
            new: Random.new.rand, bytes: Random.bytes(8).unpack1("H*"),
            urandom: Random.urandom(8).unpack1("H*") }
  [200, {}, [JSON.generate(drawn:, seeded: SEEDED.rand(1 << 60),
             clock: Process.clock_gettime(Process::CLOCK_MONOTONIC), key: ENV["KEY"],
             all: ENV.to_h.keys.sort)]]
end
"""


@pytest.fixture(scope="module")
def shop(prepared_ruby: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_ruby, tmp_path_factory.mktemp("images")) as made:
        yield made


def test_instances_of_one_image_draw_different_numbers_and_have_their_own_settings(shop):
    source = shop.app(DRAWS)
    snapshot = shop.snapshot(source, env={"KEY": "of the build"})
    assert snapshot.verdict == "sound", snapshot
    assert snapshot.private and "random" in snapshot.why  # `rand` was seeded when it was loaded
    said = [
        json.loads(shop.restore(source, snapshot, env={"KEY": f"of {at}"}).text("/draw"))
        for at in range(2)
    ]
    for name in said[0]["drawn"]:
        assert said[0]["drawn"][name] != said[1]["drawn"][name], name
    # What the app asked for by a seed is what it gets.
    assert said[0]["seeded"] == said[1]["seeded"]
    assert [one["key"] for one in said] == ["of 0", "of 1"]
    assert said[0]["all"] == ["KEY", "RACK_ENV"]


def test_time_goes_on_after_a_restore(shop):
    source = shop.app(
        'BEGAN = Process.clock_gettime(Process::CLOCK_MONOTONIC)\nrun proc { [200, {}, '
        '[[BEGAN, Process.clock_gettime(Process::CLOCK_MONOTONIC), Time.now.to_f].join(" ")]] }'
    )  # fmt: skip
    snapshot = shop.snapshot(source)
    assert not snapshot.private
    began, now, wall = map(float, shop.restore(source, snapshot).text().split())
    assert began <= now
    assert abs(wall - time.time()) < 60


def test_an_instance_costs_little_and_counts_what_it_has(shop):
    source = shop.app("KEPT = 'x' * 3_000_000\nrun proc { [200, {}, ['hello']] }")
    snapshot = shop.snapshot(source)
    assert snapshot.verdict == "sound" and not snapshot.private, snapshot
    assert snapshot.own_bytes < 16 << 20, snapshot
    app = shop.restore(source, snapshot, memory_mib=64)
    assert app.text() == "hello"
    assert app.guest.private_bytes < 2 << 20
    assert 36 << 20 < app.guest.memory_bytes < 64 << 20
    # Without an image it has all of it to itself.
    assert shop.start(source, memory_mib=64).guest.private_bytes > 300 << 20


@pytest.mark.parametrize(
    ("source", "verdict", "finding"),
    [
        # A setting that is read when it is loaded: the image has the real one, and is its own.
        ("KEY = ENV.fetch('KEY')\nrun proc { [200, {}, [KEY]] }", "sound", "KEY is read"),
        ("run proc { [200, {}, [ENV.to_h['KEY'].to_s]] }", "sound", "KEY is read"),
        ("Integer(ENV['KEY'])\nrun proc { [200, {}, ['x']] }", "sound", "KEY is read"),
    ],
)
def test_a_setting_that_is_read_early_makes_the_image_private(shop, source, verdict, finding):
    app = shop.app(source)
    snapshot = shop.snapshot(app, env={"KEY": "4711"})
    assert (snapshot.verdict, snapshot.private) == (verdict, True), snapshot
    assert any(finding in one.text() and "config.ru:1" in one.text() for one in snapshot.findings)
    assert shop.restore(app, snapshot, env={"KEY": "4711"}).text() in ("4711", "x")


def test_no_image_holds_a_secret(shop):
    late = shop.app("run proc { |env| [200, {}, [ENV['TOKEN'].to_s]] }")
    snapshot = shop.snapshot(late, secrets={"TOKEN": "hidden"})
    assert snapshot.verdict == "unwarmed", snapshot
    assert shop.restore(late, snapshot, env={"TOKEN": "hidden"}).text() == "hidden"
    early = shop.app("TOKEN = ENV['TOKEN']\nrun proc { [200, {}, [TOKEN]] }")
    snapshot = shop.snapshot(early, secrets={"TOKEN": "hidden"})
    assert snapshot.verdict == "plain", snapshot
    assert any(one.kind == "secret" for one in snapshot.findings)


@pytest.mark.parametrize(
    ("source", "kind", "verdict"),
    [
        ("FILE = File.open(__FILE__)\nrun proc { [200, {}, []] }", "open file", "plain"),
        ("run proc { $f = File.open(__FILE__); [200, {}, []] }", "open file", "unwarmed"),
        ("run proc { File.write('/tmp/x', ''); [200, {}, []] }", "temporary file", "unwarmed"),
        ("run proc { raise 'cold' }", "warm-up", "unwarmed"),
    ],
)
def test_what_cannot_be_shared_costs_the_warm_up_or_the_image(shop, source, kind, verdict):
    snapshot = shop.snapshot(shop.app(source))
    assert snapshot.verdict == verdict, snapshot
    assert kind in {one.kind for one in snapshot.findings}


def test_hooks_run_before_the_image_and_after_each_restore(shop):
    source = shop.app(
        """
        module Store
          SEEN = []
          def self.before = SEEN << "before"
          def self.after = SEEN << "after"
        end
        run proc { [200, {}, [Store::SEEN.join(" ")]] }
        """
    )
    snapshot = shop.snapshot(source, before_snapshot="Store:before", after_restore="Store:after")
    assert snapshot.verdict == "sound", snapshot
    assert shop.restore(source, snapshot, after_restore="Store:after").text() == "before after"
    broken = shop.snapshot(source, before_snapshot="Store:gone", warmup=(WarmupRequest("/"),))
    assert broken.verdict == "plain" and any(one.kind == "hook" for one in broken.findings)


COUNTS = r"""
run do |env|
  next [200, {}, ["warm"]] if env["PATH_INFO"] == "/"
  before = File.exist?("/data/count") ? File.read("/data/count").to_i : 0
  File.write("/data/count", (before + 1).to_s)
  [200, {}, ["#{before + 1} #{Dir.children("/data")}"]]
rescue SystemCallError => error
  [200, {}, [error.class.name]]
end
"""


def test_a_volume_is_a_folder_that_outlives_instances_and_no_image_knows_what_is_in_it(
    shop, tmp_path
):
    source, mounts = shop.app(COUNTS), (VolumeMount("data", "/data"),)
    volumes = (LentVolume(tmp_path, "/data", 1 << 20, 0),)
    for path, verdict, count in (("/", "sound", 1), ("/count", "unwarmed", 2)):
        warm = (WarmupRequest(path=path, method="GET"),)
        snapshot = shop.snapshot(source, volumes=mounts, warmup=warm)
        assert snapshot.verdict == verdict
        if verdict == "unwarmed":
            assert snapshot.findings[0].kind == "volume"
        app = shop.restore(source, snapshot, volumes=volumes)
        assert app.text("/x") == f'{count} ["count"]'
        app.guest.close()
    assert (tmp_path / "count").read_text() == "2"


def test_without_a_volume_there_is_no_such_folder(shop):
    assert shop.start(shop.app(COUNTS)).text("/x") == "Errno::ENOENT"
