"""Apps in Python that attack before their first request: while they are imported, or restored.

On a node the start has 60 s (`BOOT_DEADLINE_S`, `START_DEADLINE_S`); here it is cut shorter, and a
neighbour boots and answers meanwhile, on the same loop."""

import asyncio
import time

import pytest
from tests.unit.runtimes.snapshots import FINE, Lab, laboratory, request

from isopod.errors import IsopodError

attack = pytest.mark.attack
CUT_S = 1.5  # for those that loop; what ends by itself is waited for


@pytest.fixture(scope="module")
def lab(prepared_cache, tmp_path_factory):
    with laboratory(prepared_cache, tmp_path_factory.mktemp("boots")) as made:
        yield made


def boot(lab: Lab, files, output: list[bytes], **options):
    guest = lab.runtime.new_guest(
        scheduler=lab.scheduler,
        app_tree=lab.app(files),
        site_tree=lab.folder / "site",
        tmp=lab.tmp(),
        entrypoint="app:app",
        env={},
        memory_mib=96,
        disk_mib=8,
        output=lambda _stream, data: output.append(data),
        **options,
    )
    lab.guests.append(guest)
    return guest


async def nothing(_size: int) -> bytes:
    return b""


def beside_a_neighbour(lab: Lab, attacker, cut_s: float = 120.0) -> tuple[str, float]:
    """How the attacker's start ended, and how long the neighbour took to boot and answer."""

    async def main() -> tuple[str, float]:
        started = asyncio.ensure_future(attacker.start())
        began = time.monotonic()
        neighbour = boot(lab, FINE, [])
        await neighbour.start()
        assert (await neighbour.send(request(), nothing)).body == b"fine"
        took = time.monotonic() - began
        neighbour.close()
        await asyncio.wait({started}, timeout=cut_s)
        how = "served"
        if not started.done():
            how = "still at it"
            attacker.close()
        try:
            await started
        except IsopodError as error:
            how = how if how == "still at it" else error.code
        return how, took

    return lab.run(asyncio.wait_for(main(), 240))


LOOPS = {
    "at the top": "while True: pass",
    "in a class body": "class A:\n    while True: pass",
    "in a decorator": "def d(f):\n    while True: pass\n@d\ndef app(e, s): pass",
    "in a finalizer": "class A:\n    def __del__(self):\n        while True: pass\nA()",
    "in an import hook": (
        "import sys\nclass Hook:\n    def find_spec(self, *_):\n        while True: pass\n"
        "sys.meta_path.insert(0, Hook())\nimport nothing_of_that_name"
    ),
    "in generated code": "exec('x = 1\\n' * 10**5 + 'while True: pass')",
}


@pytest.mark.parametrize("where", LOOPS)
@attack(
    "an infinite loop when the app is imported: at the top, in a class body, a decorator, a "
    "finalizer, an import hook, in 100,000 generated lines",
    "ended at the deadline of starts; neighbours boot and answer meanwhile",
)
def test_a_loop_at_import(lab, where, seen):
    how, took = beside_a_neighbour(lab, boot(lab, LOOPS[where], []), CUT_S)
    seen(f"a neighbour's boot and answer {took:.1f} s")
    assert how in ("still at it", "memory_limit_exceeded")


@pytest.mark.parametrize(
    ("code", "codes"),
    [
        ("x = [0] * 10**9", {"memory_limit_exceeded"}),
        ("def f(): return f()\nf()", {"app_failed_to_start"}),
        ("import os\nos._exit(0)", {"app_failed_to_start"}),
        ("import _host\n_host.call(b'S\\6\\0\\0\\x00200 OK')", {"guest_protocol_error"}),
        ("import _host\n_host.call(b'I' + bytes(8))", {"guest_protocol_error"}),
        ("import _host\n_host.call(bytes(9 << 20))", {"guest_protocol_error"}),
        ("raise SystemExit(0)", {"app_failed_to_start"}),
        ("import sys\nsys.modules.clear()", {"app_failed_to_start", "served"}),
        ("import builtins\nbuiltins.__dict__.clear()", {"app_failed_to_start"}),
        ("import sys\nsys.stdout = sys.stderr = None", {"entrypoint_not_found"}),
        ("import isopod_wsgi\ndel isopod_wsgi.serve", {"entrypoint_not_found"}),
    ],
)
@attack(
    "an app that, when imported, takes all memory, recurses, exits, forges frames, or takes the "
    "runtime's own modules apart",
    "it does not start, and is told why; it never serves in another's name",
)
def test_sabotage_at_import(lab, code, codes):
    how, _ = beside_a_neighbour(lab, boot(lab, code, []))
    assert how in codes


@attack(
    "announcing by hand that one is ready, at import, without an app",
    "its own requests get its own frames: 502; nobody else notices",
)
def test_ready_without_an_app(lab):
    guest = boot(lab, "import _host\nwhile True: _host.call(b'Q')", [])
    how, _ = beside_a_neighbour(lab, guest)
    assert how == "served"

    async def ask() -> None:
        await guest.send(request(), nothing)

    with pytest.raises(IsopodError) as raised:
        lab.run(asyncio.wait_for(ask(), 60))
    assert raised.value.code == "guest_protocol_error"


@attack(
    "an infinite loop in the hook after a restore",
    "ended at the deadline of starts, in the builder already: such an app gets no image",
)
def test_a_loop_after_restore(lab):
    app = lab.app(FINE + "\ndef spin():\n    while True: pass\n")
    _, image = lab.take(app)
    guest = lab.runtime.new_guest(
        scheduler=lab.scheduler,
        app_tree=app,
        site_tree=lab.folder / "site",
        tmp=lab.tmp(),
        entrypoint="app:app",
        env={},
        memory_mib=256,
        disk_mib=8,
        output=lambda *_: None,
        image=image,
        after_restore="app:spin",
    )
    lab.guests.append(guest)
    assert beside_a_neighbour(lab, guest, CUT_S)[0] == "still at it"
