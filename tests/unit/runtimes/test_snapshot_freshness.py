"""An instance from an image lives in its own present: environment, clocks, files, hooks."""

import asyncio
import time

import pytest
from tests.unit.runtimes.snapshots import ASK, FINE, Lab, spec

from isopod.errors import AppFailedToStart

STATE = """
import gc, logging, os, random, socket, sys, tempfile, time, uuid
os.environ.setdefault("SETTINGS_MODULE", "shop.settings")
os.environ["OVERRIDDEN"] = "by the app"
del os.environ["UNWANTED"]
began, ran, used = time.monotonic(), time.perf_counter(), time.process_time()
warmed = 0
data = open("/app/data.txt")
data.read(3)
raw = open("/app/data.txt", "rb", buffering=0)
raw.read(6)
closed = open("/app/app.py"); closed.close()
os.makedirs("/tmp/made/here")
with open("/tmp/made/here/cache.txt", "w") as file: file.write("cached")
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s", stream=sys.stdout)
log = logging.getLogger("shop")
aside = logging.StreamHandler(); aside.setLevel(logging.ERROR); log.addHandler(aside)
log.info("imported")
print("half a line", end="")
text_hash = hash("a text")
cache = {}
pid = os.getpid()
"""
ENV = {"COLOUR": "red", "UNWANTED": "x", "OVERRIDDEN": "y", "SECRET": "s3cr3t-of-the-deploy"}


@pytest.fixture(scope="module")
def shop(lab: Lab):
    app = lab.app({"app.py": STATE + ASK, "data.txt": "0123456789" * 10, "other.txt": "other" * 20})
    taken, image = lab.take(app, spec(ENV))
    assert (taken.findings, taken.read, taken.kept, taken.entropy) == ((), {}, False, ())

    def restore(env=ENV, **options):
        return lab.restore(app, image, env, **options)

    restore.image, restore.taken, restore.app = image, taken, app
    return restore


def test_the_environment_is_the_instances_own(shop):
    one = shop(dict(ENV, COLOUR="blue", NEW="new"))
    assert one.ask("os.environ['COLOUR']") == "blue"
    assert one.ask("os.getenv('NEW')") == "new"
    assert one.ask("os.environb[b'COLOUR'].decode()") == "blue"
    assert shop({}).ask("[os.getenv('COLOUR'), os.getenv('NEW'), 'COLOUR' in os.environ]") == [
        None, None, False,
    ]  # fmt: skip
    assert shop({"COLOUR": ""}).ask("os.environ['COLOUR']") == ""


def test_what_the_app_made_of_its_environment_stays(shop):
    one = shop()
    assert one.ask("os.environ['SETTINGS_MODULE']") == "shop.settings"
    assert one.ask("os.environ['OVERRIDDEN']") == "by the app"
    assert one.ask("'UNWANTED' in os.environ") is False
    assert one.ask("[os.environ['HOME'], os.environ['TMPDIR']]") == ["/tmp", "/tmp"]


def test_the_clocks_never_go_back(shop):
    for _ in range(2):
        one = shop()
        for clock, mark in (("monotonic", "began"), ("perf_counter", "ran"),
                            ("process_time", "used")):  # fmt: skip
            values = [one.ask(f"time.{clock}() - {mark}") for _ in range(2)]
            assert 0 <= values[0] <= values[1] < 600, clock  # in steps of 1 ms


def test_the_wall_clock_is_the_hosts(shop):
    before = time.time_ns() // 1_000_000 / 1000  # guests see milliseconds
    assert before <= shop().ask("time.time()") <= time.time()
    assert before - 1 <= shop().ask("logging._startTime / 1e9") <= time.time()


def test_a_sleep_until_an_absolute_time_lasts_as_long_as_it_should(shop):
    one = shop()
    for asked in (0.0, 0.05):
        one.run(f"t = time.monotonic(); time.sleep({asked}); took = time.monotonic() - t")
        assert asked <= one.ask("took") + 1e-9 < asked + 20


def test_a_file_that_was_being_read_is_read_on(shop):
    one, two = shop(), shop()
    assert one.ask("data.read()") == ("0123456789" * 10)[3:]
    assert two.ask("raw.read().decode()") == ("0123456789" * 10)[6:]
    assert two.ask("data.read(4)") == "3456"
    two.run("data.seek(1)")
    assert two.ask("data.read(2)") == "12"


def test_a_new_file_never_takes_the_number_of_an_old_one(shop):
    one = shop()
    one.run("others = [open('/app/other.txt', 'rb') for _ in range(5)]")
    numbers = one.ask("[file.fileno() for file in others]")
    assert not {one.ask("data.fileno()"), one.ask("raw.fileno()")} & set(numbers)
    assert one.ask("{file.read().decode() for file in others} == {'other' * 20}") is True
    assert one.ask("raw.read(4).decode()") == "6789"


def test_small_files_in_tmp_are_there_in_each_instance_and_its_own(shop):
    one, two = shop(), shop()
    one.run("open('/tmp/made/here/cache.txt', 'a').write('!')")
    assert one.ask("open('/tmp/made/here/cache.txt').read()") == "cached!"
    assert two.ask("open('/tmp/made/here/cache.txt').read()") == "cached"


def test_the_log_goes_on_and_repeats_nothing(shop):
    one = shop()
    one.run("log.info('first'); log.error('second'); print('third')")
    lines = one.said().splitlines()
    assert sorted(lines) == ["second", "shop first", "shop second", "third"]
    assert {stream for stream, data in one.output if b"second" in data} == {"stdout", "stderr"}


def test_texts_hash_alike_in_instances_of_one_image_and_not_in_those_of_two(lab, shop):
    one, two = shop(), shop()
    assert one.ask("hash('a text') == text_hash") is True
    assert one.ask("text_hash") == two.ask("text_hash")
    _, other = lab.take(shop.app, spec(ENV))
    assert lab.restore(shop.app, other).ask("text_hash") != one.ask("text_hash")


def test_the_process_id_is_the_same_for_all_as_in_a_container(shop):
    assert shop().ask("os.getpid() == pid") is True


def test_the_image_does_not_hold_a_setting_that_nobody_read(shop):
    memory = shop.taken.path.read_bytes()
    for value in ENV.values():
        if len(value) > 3:
            assert value.encode() not in memory


def test_garbage_is_collected_in_an_instance(shop):
    one = shop()
    one.run("class C: pass")
    one.run("a, b = C(), C(); a.b, b.a = b, a; import weakref; r = weakref.ref(a); del a, b")
    assert one.ask("r() is not None") is True
    assert one.ask("gc.collect() >= 2") is True
    assert one.ask("r()") is None


def test_two_thousand_requests_behave_and_memory_does_not_grow(shop):
    one = shop()
    one.run(
        "def work(n):\n"
        "    import json, re\n"
        "    cache[n % 50] = [{'k': str(n), 'v': (n, [n] * 20)} for _ in range(20)]\n"
        "    x = C(); x.me = x\n"
        "    assert json.loads(json.dumps(cache[n % 50][0]['k'])) == str(n)\n"
        "    assert re.sub('a+', str(n), 'caat') == f'c{n}t'\n"
        "    return n * 2\n"
        "class C: pass\n"
    )
    sizes = []
    for number in range(2000):
        assert one.ask(f"work({number})") == number * 2
        if number % 500 == 499:
            sizes.append(one.guest.memory_bytes)
    assert sizes[-1] == sizes[0]
    assert sizes[-1] - shop.taken.size < 4 << 20


HOOKS = """
import isopod_guest
calls = []
@isopod_guest.before_snapshot
def close(): calls.append("imported before")
@isopod_guest.after_restore
def open_again(): calls.append("imported after")
def named_before(): calls.append("named before")
def named_after(): calls.append("named after")
"""


def test_the_hooks_are_called_once_each(lab):
    app = lab.app(HOOKS + ASK)
    _, image = lab.take(app, spec(before_snapshot="app:named_before"))
    for _ in range(2):
        one = lab.restore(app, image, hook="app:named_after")
        assert one.ask("calls") == [
            "imported before", "named before", "imported after", "named after",
        ]  # fmt: skip


@pytest.mark.parametrize("hook", ["app:missing", "nothing:there", "app:fails"])
def test_a_hook_that_fails_is_told(lab, hook):
    app = lab.app("def fails(): raise ValueError('the hook')\n" + FINE)
    with pytest.raises(AppFailedToStart) as told:
        lab.take(app, spec(before_snapshot=hook))
    assert "Error" in told.value.details["traceback"]
    _, image = lab.take(app)
    with pytest.raises(AppFailedToStart, match="Error"):
        lab.restore(app, image, hook=hook)


def test_a_restored_guest_can_be_closed_at_any_moment(lab, shop):
    async def close_early(turns: int) -> None:
        guest = lab.runtime.new_guest(
            scheduler=lab.scheduler, app_tree=shop.app, site_tree=lab.folder / "site",
            tmp=lab.tmp(), entrypoint="app:app", env={}, memory_mib=256, disk_mib=64,
            output=lambda *_: None, image=shop.image,
        )  # fmt: skip
        starting = asyncio.create_task(guest.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        guest.close()
        async with asyncio.timeout(60):
            await asyncio.gather(starting, return_exceptions=True)

    for turns in range(12):
        lab.run(close_early(turns))
    assert shop().ask("warmed") == 0
