"""A language of one sentence: an app is a file `greeting.toy`, and its guests say what it holds.

It shows how little a runtime is to the rest of isopod. Its guests are no WebAssembly: nobody else
should do that.
"""

from pathlib import Path

from isopod.errors import AppNotDetected, AppSyntaxError
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import plain
from isopod.runtimes.base import Claim
from isopod.runtimes.guest import GuestResponse
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed

_FILE = "greeting.toy"
_DIGEST = Digest("70" * 32)


class ToyGuest:
    def __init__(self, greeting, env):
        self._greeting, self._env = greeting, env
        self.idle = False
        self.waiting = True
        self.blocked = False
        self.cpu_ns = self.host_ns = self.memory_bytes = self.peak_memory_bytes = 0
        self.private_bytes = self.sent_bytes = 0
        self.client_wait_s = 0.0
        self.capacity = 1
        self.speaker = ""
        self.ended = True

    def private_of(self, memory_bytes):
        return 0

    def exchange(self):
        return self

    def socket(self):
        return None

    async def start(self):
        self.idle = True

    async def send(self, request, read_body):
        body = f"{self._greeting} {request.path} {self._env.get('WHO', '')}".encode()
        return GuestResponse(200, [(b"content-type", b"text/plain")], body, more=False)

    async def next_chunk(self):
        return None

    async def finish(self):
        pass

    def abandon(self):
        pass

    def stop(self):
        self.close()

    def close(self):
        self.idle = False


class ToyGuests:
    image_digest = _DIGEST
    base_image = Path()

    def new_guest(self, order):
        return ToyGuest((order.app_tree / _FILE).read_text(), order.env)


class Toy:
    name = "toy"
    mounts_volumes = False
    prepared_by_up = True

    def info(self, cache_dir):
        return RuntimeInfo("toy", "1.0", _DIGEST, 0, True, "Apache-2.0")

    def digest(self):
        return _DIGEST

    def image_digest(self):
        return _DIGEST

    def prepare(self, cache_dir, progress):
        progress(1.0, "a toy is always ready")

    def claim(self, folder, manifest):
        return Claim.SURE if (folder / _FILE).is_file() else Claim.NO

    def detect(self, folder, manifest):
        if not (folder / _FILE).is_file():
            raise AppNotDetected(f"there is no {_FILE}")
        return _FILE

    def install_dependencies(self, cache_dir, folder, site):
        site.mkdir()
        return Installed((), _DIGEST, "None")

    def compile_app(self, cache_dir, folder, manifest):
        path = folder / _FILE
        if not path.read_text().strip():
            raise AppSyntaxError(f"{_FILE}: says nothing")
        path.write_text(path.read_text().strip().upper())
        return "The greeting"

    def compile_site(self, cache_dir, site):
        pass

    def check_health(self, cache_dir, *, app_tree, site_tree, spec, tmp_root):
        return HealthResult(200, 0.0, 0.0, "")

    def take_snapshot(self, cache_dir, *, app_tree, site_tree, spec, images, work, secrets):
        return plain("a toy boots at once")

    def in_worker(self, lent):
        return ToyGuests()


def runtime():
    return Toy()
