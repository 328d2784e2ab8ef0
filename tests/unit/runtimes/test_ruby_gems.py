"""Gems from a lock file: which, from where, and what is refused."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.gem_shelf import Registry, gem, lock, registry, tar_of

from isopod.errors import DependencyFailed, DependencyInvalid, DependencyNativeOnly
from isopod.runtimes.installed import Installed
from isopod.runtimes.ruby import gem_file, gems
from isopod.runtimes.ruby.lockfile import parse, read_gemfile

HELLO = gem("hello", "1.0", {"lib/hello.rb": "HELLO = 1\n", "README": "x"})
NEEDED = gem("needed", "2.1.0", {"lib/needed.rb": ""})


class Shop:
    def __init__(self, folder: Path, shelf: Registry) -> None:
        self.folder, self.shelf = folder / "app", shelf
        self.site = folder / "site"
        self.source = gems.Source(shelf.address, folder / "cache")
        self.folder.mkdir()

    def install(self, lock_text: str, gemfile: str = "") -> Installed:
        (self.folder / "Gemfile").write_text(gemfile)
        (self.folder / "Gemfile.lock").write_text(lock_text)
        return gems.install(self.folder, self.site, self.source)


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    with registry() as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path, shelf: Registry) -> Shop:
    shelf.files.clear()
    shelf.asked.clear()
    shelf.add("hello", "1.0", HELLO)
    shelf.add("needed", "2.1.0", NEEDED)
    return Shop(tmp_path, shelf)


def test_gems_and_what_they_need_are_verified_unpacked_and_on_the_load_path(shop):
    text = lock(
        {"hello (1.0)": HELLO, "needed (2.1.0)": NEEDED, "json (2.9)": None, "puma (6.5)": None},
        needs={"hello": ["needed", "json"], "puma": ["nio4r"]},
        direct=["hello", "puma"],
    )
    done = shop.install(text, "gem 'hello', require: 'hello/all'\ngem 'puma'\n")
    assert done.distributions == (("hello", "1.0"), ("needed", "2.1.0"))
    assert "without puma" in done.text
    paths = (shop.site / gems.LOAD_PATH).read_text().split()
    assert paths == ["gems/hello-1.0/lib", "gems/needed-2.1.0/lib"]
    assert (shop.site / paths[0] / "hello.rb").read_text() == "HELLO = 1\n"
    assert (shop.site / gems.REQUIRE).read_text() == "hello/all\n"
    assert shop.shelf.asked == ["/gems/hello-1.0.gem", "/gems/needed-2.1.0.gem"]
    # Once more, for another app: from the cache.
    again = gems.install(shop.folder, shop.site.with_name("again"), shop.source)
    assert again == done and len(shop.shelf.asked) == 2


def test_a_lock_file_without_checksums_takes_those_of_the_index(shop):
    assert shop.install(lock({"hello (1.0)": None})).distributions == (("hello", "1.0"),)
    assert shop.shelf.asked == ["/info/hello", "/gems/hello-1.0.gem"]


def test_gems_in_vendor_cache_need_no_registry(shop):
    (shop.folder / "vendor" / "cache").mkdir(parents=True)
    (shop.folder / "vendor" / "cache" / "hello-1.0.gem").write_bytes(HELLO)
    assert shop.install(lock({"hello (1.0)": HELLO})).text == "1 gem"
    assert not shop.shelf.asked


def test_an_app_without_a_gemfile_needs_nothing(shop):
    assert gems.install(shop.folder, shop.site, shop.source).distributions == ()


NATIVE = gem("fast", "1.0", {"ext/extconf.rb": ""}, extensions=["ext/extconf.rb"])
FOREIGN = gem("other", "1.0", platform="java")


def test_gems_with_native_extensions_are_refused_by_their_names(shop):
    shop.shelf.add("fast", "1.0", NATIVE)
    shop.shelf.add("other", "1.0", FOREIGN)
    text = lock({"hello (1.0)": HELLO, "fast (1.0)": NATIVE, "other (1.0)": FOREIGN})
    with pytest.raises(DependencyNativeOnly, match="fast, other") as refused:
        shop.install(text)
    assert refused.value.details["gems"] == ["fast", "other"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (lock({"hello (1.0)": NEEDED}), DependencyInvalid, "checksum that is locked"),
        (lock({"none (1.0)": HELLO}), DependencyFailed, "answered 404"),
        (lock({"none (1.0)": None}), DependencyFailed, "answered 404"),
        (lock({"hello (9)": None}), DependencyInvalid, "no hello 9 with a checksum"),
        (lock({"hello (1.0-x86_64-linux)": HELLO}), DependencyNativeOnly, "x86_64-linux"),
        (lock({"hello (1.0)": HELLO}, remote="http://10.0.0.1/"), DependencyInvalid, "10.0.0.1"),
        (lock({"hello (1.0)": HELLO}, direct=["gone"]), DependencyInvalid, "'gone'"),
        (lock({"../x (1.0)": HELLO}), DependencyInvalid, "'../x'"),
        (lock({"x (..%2f..)": HELLO}), DependencyInvalid, "no gem"),
        ("PATH\n  remote: .\n  specs:\n    mine (1)\n\n", DependencyInvalid, "a path or from git"),
        ("what is this\n", DependencyInvalid, "not a lock file"),
    ],
)
def test_a_lock_file_that_cannot_be_followed_says_why(shop, text, error, message):
    with pytest.raises(error, match=message):
        shop.install(text)


def test_a_gemfile_without_a_lock_file_is_refused(shop):
    (shop.folder / "Gemfile").write_text("gem 'hello'\n")
    with pytest.raises(DependencyInvalid, match="no Gemfile"):
        gems.install(shop.folder, shop.site, shop.source)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a tar", "no gem, or damaged"),
        (HELLO[:700], "damaged"),
        (tar_of({"data.tar.gz": b""}), "has no metadata.gz"),
        (tar_of({"metadata.gz": b"\x1f\x8b\x08xx"}), "damaged"),
        (gem("x", files={"../out.rb": ""}), "outside of itself"),
        (gem("x", files={"/etc/x": ""}), "outside of itself"),
        (gem("x", extensions=["../x"]), "in 'extensions'"),
        (tar_of({"metadata.gz": gzip.compress(b"extensions:\n- a\n  b\n")}), "has no data"),
    ],
)
def test_a_hostile_gem_is_refused_and_leaves_nothing_outside(tmp_path, data, message):
    path = tmp_path / "x.gem"
    path.write_bytes(data)
    target = tmp_path / "out" / "site"
    with pytest.raises(DependencyInvalid, match=message):
        gem_file.read_metadata(path)
        gem_file.unpack(path, target, gem_file.Room())
    assert not (tmp_path / "out" / "out.rb").exists()


def test_all_gems_of_an_app_together_have_a_bound(tmp_path):
    path, room = tmp_path / "x.gem", gem_file.Room(bytes=100)
    path.write_bytes(gem("x", files={"lib/x.rb": "#" * 60}))
    gem_file.unpack(path, tmp_path / "one", room)
    with pytest.raises(DependencyInvalid, match="too much together"):
        gem_file.unpack(path, tmp_path / "two", room)
    with pytest.raises(DependencyInvalid, match="too much together"):
        gem_file.unpack(path, tmp_path / "three", gem_file.Room(files=0))


def test_the_usual_lines_of_a_gemfile_are_read():
    said = read_gemfile(
        """
        source "https://rubygems.org"
        ruby "4.0.0"
        gem "rack", "~> 3"
        gem("sinatra", require: "sinatra/base")
        gem 'quiet', require: false
        group :development, :test do
          gem "rspec"
          if true
            gem "debug", platforms: %i[mri]
          end
          gem "rack"  # in both
        end
        gem "pry", group: :development
        gem "both", groups: [:test, :production]
        platforms :ruby do
          gem "late"
        end
        """
    )
    assert said.not_to_run == {"rspec", "debug", "pry"}
    assert dict(said.required) == {"sinatra": ("sinatra/base",), "quiet": ()}


def test_a_pure_gem_goes_before_compiled_ones_of_its_version():
    text = lock({"x (1-java)": None, "x (1)": None})
    assert [gem.file_name for gem in parse(text).reachable(())] == ["x-1.gem"]
