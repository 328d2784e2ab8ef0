"""What a language runtime offers to the rest of isopod. A runtime is one package below
`isopod.runtimes`, or another distribution's entry point, that fulfils this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from isopod.blobs.images import ImageCache
from isopod.blobs.trees import TreeCache
from isopod.errors import RuntimeNotPrepared
from isopod.manifest import Manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot
from isopod.runtimes.direct import Direct
from isopod.runtimes.guest import Guest, OutputSink
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed

if TYPE_CHECKING:  # whoever only lists runtimes does not load the engine
    from isopod.engine.config import Engine
    from isopod.engine.image import Image
    from isopod.engine.machine_code import MachineCode
    from isopod.engine.run_queue import Share
    from isopod.engine.scheduler import Scheduler
    from isopod.host.capabilities import World

Progress = Callable[[float, str], None]


class Claim(IntEnum):
    """Whether a folder holds an app of this runtime."""

    NO = 0
    MAYBE = 1  # it would serve it if nobody is surer, or can say what is wrong with it
    SURE = 2


@dataclass(frozen=True, slots=True)
class LentVolume:
    """A folder that outlives the instance, which alone has it now."""

    folder: Path
    mount: str
    size_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class GuestOrder:
    """One guest, as a worker wants it. `command`: the words of one that it runs instead of serving;
    it has started when that has ended. `image`: to start from it, and call `after_restore`
    ("module:function"). `share`: whose part of the CPU it runs on. `world`: what it may reach as
    `app`, its label."""

    scheduler: Scheduler
    app_tree: Path
    site_tree: Path
    tmp: Path
    entrypoint: str
    env: Mapping[str, str]
    memory_mib: int
    disk_mib: int
    output: OutputSink
    image: Image | None
    after_restore: str
    share: Share
    world: World
    app: str
    volumes: tuple[LentVolume, ...] = ()
    command: tuple[str, ...] = ()


class Guests(Protocol):
    """A runtime in a worker that makes guests."""

    @property
    def image_digest(self) -> Digest:
        """What its memory images belong to; one of another digest is never restored."""

    @property
    def base_image(self) -> Path:
        """The memory that every image has in common."""

    def new_guest(self, order: GuestOrder) -> Guest:
        """`await guest.start()` boots or restores it."""


@runtime_checkable
class RunsCommands(Protocol):
    """Guests whose apps have commands, too."""

    def new_command(self, order: GuestOrder) -> Guest:
        """A guest that runs `order.command`, without an image. `await guest.start()` returns when
        that has ended with status 0, and raises CommandFailed when with another."""


@runtime_checkable
class LoadsModules(Protocol):
    """Guests whose apps bring modules of their own, which take a compiler's time to load."""

    def module(self, app_tree: Path, site_tree: Path, entrypoint: str) -> Path:
        """Where it is, in one of the app's trees."""

    async def make(self, module: Path, tenant: str) -> None:
        """Have machine code of it, for any worker to load. Raises ModuleInvalid and its kin."""

    async def load(self, module: Path, tenant: str) -> object:
        """Before `new_guest`, which cannot wait; as long as somebody holds what it gives. Raises
        ModuleInvalid and its kin."""


@dataclass(frozen=True, slots=True)
class InWorker:
    """What a worker lends to a runtime. All runtimes of a worker share one engine. `machine_code`:
    of apps' own modules, which come and go while the worker runs."""

    engine: Engine
    cache_dir: Path
    trees: TreeCache
    machine_code: MachineCode
    precise_clocks: bool


class Runtime(Protocol):
    """Everything a node, a builder and the command line ask of a language."""

    @property
    def name(self) -> str: ...

    @property
    def mounts_volumes(self) -> bool:
        """Whether its guests see the volumes of an order; an app that wants some is refused
        otherwise."""

    @property
    def prepared_by_up(self) -> bool:
        """Whether `isopod up` prepares it: it needs nothing that is not installed. Others are
        prepared when an operator says so."""

    def info(self, cache_dir: Path) -> RuntimeInfo:
        """What `isopod runtimes` shows; cheap."""

    def digest(self) -> Digest:
        """Of everything a build depends on beside the package."""

    def image_digest(self) -> Digest:
        """What a memory image belongs to; one of another digest is never restored."""

    def prepare(self, cache_dir: Path, progress: Progress) -> None:
        """Make it ready on this machine: compile its module into the cache."""

    def claim(self, folder: Path, manifest: Manifest) -> Claim:
        """Whether `folder` is for this runtime; asked when the manifest names none."""

    def detect(self, folder: Path, manifest: Manifest) -> str:
        """The app's entrypoint. Raises AppNotDetected and its kin."""

    def install_dependencies(self, cache_dir: Path, folder: Path, site: Path) -> Installed:
        """Install what the app in `folder` asks for into the new folder `site`. Raises
        DependencyInvalid and its kin."""

    def compile_app(self, cache_dir: Path, folder: Path, manifest: Manifest) -> str:
        """Compile the app in `folder` in place; what was done, for people. Raises AppSyntaxError
        and its kin."""

    def compile_site(self, cache_dir: Path, site: Path) -> None:
        """Compile dependencies in place; what does not compile stays as it is."""

    def check_health(
        self, cache_dir: Path, *, app_tree: Path, site_tree: Path, spec: AppSpec, tmp_root: Path
    ) -> HealthResult:
        """Boot the app and send it its health request."""

    def take_snapshot(
        self,
        cache_dir: Path,
        *,
        app_tree: Path,
        site_tree: Path,
        spec: AppSpec,
        images: ImageCache,
        work: Path,
        secrets: Mapping[str, str],
    ) -> Snapshot:
        """Boot the app, warm it and keep its memory, or say why not. `work` is scratch space.
        `secrets`: what instances get beside `spec.env`, and no image may hold."""

    def in_worker(self, lent: InWorker) -> Guests | Direct:
        """What serves its apps in a worker: instances, or the gateway itself. Called once, before
        the worker gives up the right to map machine code. Raises RuntimeNotPrepared."""


def not_prepared(language: str, name: str) -> RuntimeNotPrepared:
    """For a deploy of an app whose runtime `name` this node lacks."""
    return RuntimeNotPrepared(
        f"the {language} runtime is not prepared on this node",
        hint=f"its operator runs `isopod runtimes prepare {name}`, and starts it again",
    )
