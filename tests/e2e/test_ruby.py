"""Rack apps on a real node: gems installed, deployed, called; what is refused, and how."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.nodes import Failed, folder, get, messages, text, until, up
from tests.unit.runtimes.gem_shelf import Registry, gem, lock, registry

from tools.http_calls import Caller
from tools.node import Node

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELLO = gem("hello-rack", "1.2", {"lib/hello/rack.rb": "module Hello; NAME = 'a gem'; end\n"})
FAST = gem("fast", "1.0", {"ext/extconf.rb": "exit 1"}, extensions=["ext/extconf.rb"])


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    with registry() as made:
        made.add("hello-rack", "1.2", HELLO)
        made.add("fast", "1.0", FAST)
        yield made


@pytest.fixture(scope="module")
def node(
    prepared_ruby: Path, shelf: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("ruby") / "data"
    with up(data, extra_env={"BUNDLE_MIRROR__ALL": shelf.address}) as node:
        yield node


def test_the_example_answers_streams_and_wakes_from_its_image(node):
    done = node.run(
        "deploy", str(EXAMPLES / "rack-hello"), "--name", "rack", "--env", "GREETED=<you>"
    )
    assert done.returncode == 0, done.stderr
    assert "(ruby)" in done.stderr and "sound" in done.stderr
    answer = get(node, "rack")
    assert answer.text == "<h1>Hello &lt;you&gt;</h1>\n"
    assert answer["Server-Timing"].startswith("app;dur=")
    assert text(node, "rack", "/stream") == "line 0\nline 1\nline 2\n"
    assert get(node, "rack", "/nowhere").status == 404
    with Caller(node.gateway_port, "rack") as caller:
        sent = caller.call("/api/x", "POST", b'{"a": [1]}', Content_Type="application/json")
        assert sent.json() == {"path": "/x", "method": "POST", "sent": {"a": [1]}}
    seen = [get(node, "rack", "/random").text]
    node.cli("sleep", "rack")
    seen.append(get(node, "rack", "/random").text)
    assert len(set(seen)) == 2
    assert text(node, "rack", "/later") == "now\n"
    until("the line", lambda: "done after the response" in messages(node, "rack"))
    assert get(node, "rack", "/error").status == 502
    until("the backtrace", lambda: "/app/config.ru:" in messages(node, "rack"))
    assert "on purpose (ArgumentError)" in messages(node, "rack")


def test_gems_come_from_the_lock_file_and_bundler_requires_them(node, tmp_path):
    files = {
        "config.ru": 'require "bundler/setup"\nBundler.require(:default)\n'
        "run ->(_) { [200, {}, [Hello::NAME]] }\n",
        "Gemfile": 'source "https://rubygems.org"\ngem "hello-rack"\ngem "puma"\n'
        'group :test do\n  gem "fast"\nend\n',
        "Gemfile.lock": lock({"hello-rack (1.2)": HELLO, "fast (1.0)": FAST, "puma (6)": None}),
    }
    done = node.run("deploy", str(folder(tmp_path / "gems", files)), "--name", "gems")
    assert done.returncode == 0, done.stderr
    assert "1 gem, without puma" in done.stderr
    assert text(node, "gems") == "a gem"


def test_deadlines_and_memory_end_an_instance_and_the_next_request_has_a_new_one(node, tmp_path):
    source = """
    run do |env|
      case env["PATH_INFO"]
      when "/loop" then loop {}
      when "/sleep" then sleep
      when "/memory" then all = []; loop { all << "x" * 1_000_000 }
      else [200, {}, ["fine"]]
      end
    end
    """
    files = {"config.ru": source, "isopod.toml": "[limits]\ndeadline_ms = 3000\nmemory_mib = 96\n"}
    node.cli("deploy", str(folder(tmp_path / "faults", files)), "--name", "rb-faults")
    until("its first start", lambda: get(node, "rb-faults").status == 200)
    for path, status in (("/loop", 504), ("/sleep", 504), ("/memory", 507)):
        assert get(node, "rb-faults", path).status == status, path
        assert text(node, "rb-faults") == "fine"


APP = "run ->(_) { [200, {}, ['x']] }\n"


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        ({"config.ru": "run ->(env) {\n"}, "app_syntax_error", "config.ru"),
        ({"config.ru": "raise 'at the start'\n"}, "app_failed_to_start", "at the start"),
        ({"config.ru": "run 1\n"}, "entrypoint_not_callable", "no method call"),
        ({"config.ru": "run ->(_) { [500, {}, []] }\n"}, "health_failed", "500"),
        ({"app.rb": "require 'sinatra'\n"}, "app_not_detected", "no config.ru"),
        ({"config.ru": APP, "Gemfile": "gem 'x'\n"}, "dependency_invalid", "no Gemfile.lock"),
        ({"config.ru": APP, "Gemfile": "", "Gemfile.lock": lock({"fast (1.0)": FAST})},
         "dependency_native_only", "fast"),
        ({"config.ru": APP, "Gemfile": "", "Gemfile.lock": lock({"fast (1.0)": HELLO})},
         "dependency_invalid", "checksum"),
        ({"config.ru": APP, "Gemfile": "", "Gemfile.lock": lock({"none (1.0)": HELLO})},
         "dependency_failed", "404"),
        ({"config.ru": APP, "isopod.toml": "[[volumes]]\nname = 'v'\nmount = '/data'\n"},
         "volume_not_found", "'v'"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)  # fmt: skip
def test_what_cannot_be_deployed_is_named(node, tmp_path, files, code, message):
    failed = Failed(node, "deploy", str(folder(tmp_path / "bad", files)), "--name", "bad")
    assert (failed.code, message in failed.message) == (code, True), failed.err
    assert "LoadError" not in failed.err  # an app without the gem rack does not lack it


def test_the_template_is_deployed_as_it_is_written(node, tmp_path):
    node.cli("init", "--template", "ruby", str(tmp_path / "new"))
    node.cli("deploy", str(tmp_path / "new"), "--name", "new-ruby")
    assert text(node, "new-ruby") == "Hello from Rack\n"


SINATRA = {
    "config.ru": "require './app'\nrun Shop\n",
    "app.rb": """
require "sinatra/base"
class Shop < Sinatra::Base
  enable :sessions, :inline_templates
  get("/") { "Hello #{params[:name] || "Sinatra"}" }
  get("/page/:n") { erb :page }
  post("/add") { session[:sum] = session[:sum].to_i + params[:n].to_i; session[:sum].to_s }
  get("/stream") { stream { |out| 3.times { |at| out << "#{at}\\n" } } }
  get("/fail") { raise "on purpose" }
end
__END__
@@ page
<p><%= params[:n] %></p>
""",
}


@pytest.fixture(scope="module")
def sinatra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app of Sinatra, with the gems of this machine's Debian in vendor/cache."""
    place = tmp_path_factory.mktemp("debian")
    names = ["rack", "sinatra", "mustermann", "tilt", "rack-protection", "ruby2-keywords"]
    download = ["apt-get", "-q", "download", *(f"ruby-{name}" for name in names)]
    if (
        shutil.which("apt-get") is None
        or subprocess.run(download, cwd=place, check=False, capture_output=True).returncode
    ):
        pytest.skip("Sinatra comes from Debian's packages, which cannot be had here")
    for package in place.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, place], check=True)
    return vendored(place, tmp_path_factory.mktemp("sinatra"))


def vendored(place: Path, app: Path) -> Path:
    """The unpacked Debian packages in `place` as an app's vendored gems."""
    shared = place / "usr/share/rubygems-integration/all"
    found = {}
    (app / "vendor" / "cache").mkdir(parents=True)
    for spec in (shared / "specifications").glob("*.gemspec"):
        name, _, version = spec.stem.rpartition("-")
        lib = shared / "gems" / spec.stem / "lib"
        if not lib.is_dir():
            lib = place / "usr/lib/ruby/vendor_ruby"
        files = {
            f"lib/{path.relative_to(lib)}": path.read_text(errors="replace")
            for path in lib.rglob("*.rb")
        }
        data = gem(name, version, files)
        (app / "vendor" / "cache" / f"{spec.stem}.gem").write_bytes(data)
        found[f"{name} ({version})"] = data
    (app / "Gemfile.lock").write_text(lock(found))
    (app / "Gemfile").write_text("gem 'sinatra'\n")
    return folder(app, SINATRA)


def test_sinatra_has_routes_templates_sessions_and_streams(node, sinatra):
    done = node.run("deploy", str(sinatra), "--name", "sinatra")
    assert done.returncode == 0, done.stderr
    assert "sound" in done.stderr
    assert text(node, "sinatra", "/?name=%C3%A4") == "Hello ä"
    assert text(node, "sinatra", "/page/7").strip() == "<p>7</p>"
    assert text(node, "sinatra", "/stream") == "0\n1\n2\n"
    assert get(node, "sinatra", "/nowhere").status == 404
    assert get(node, "sinatra", "/fail").status == 500
    form = "application/x-www-form-urlencoded"
    with Caller(node.gateway_port, "sinatra") as caller:
        first = caller.call("/add", "POST", b"n=2", Content_Type=form)
        assert first.text == "2"
        cookie = first["Set-Cookie"].partition(";")[0]
        node.cli("sleep", "sinatra")  # the next instance knows the session: one secret for all
        second = caller.call("/add", "POST", b"n=3", Content_Type=form, Cookie=cookie)
        assert second.text == "5"
