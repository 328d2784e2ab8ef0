"""`coding_worker.py DATA_DIR SECONDS`: a process shut in as a worker is, which is shown machine
code. Says as JSON what it tried and what came of it."""

import asyncio
import ctypes
import gc
import json
import mmap
import os
import sys
import weakref
from pathlib import Path

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.instance import Instance, InstanceSpec
from isopod.engine.linker import Imports, Linkage
from isopod.engine.scheduler import Scheduler
from isopod.errors import IsopodError
from isopod.sandbox.features import probe
from isopod.sandbox.worker import shut_in
from isopod.server.coder import start_coder
from isopod.server.worker_folders import WorkerFolders
from isopod.settings import NodeSettings

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def main(data_dir: str, seconds: str) -> None:
    settings = NodeSettings(data_dir=Path(data_dir), build_timeout_s=float(seconds))
    features = probe()
    folders = WorkerFolders.of(settings, 0, None)
    needs = folders.prepare(settings)
    coder = start_coder(
        settings, features, trees=folders.trees, folder=folders.machine_code, others=()
    )
    rights = kernel_rights()
    sandbox = shut_in(needs, features=features)
    engine = make_engine(EngineSettings())
    coder.use(engine)
    imports = Imports(engine)
    sandbox.guard(shown_code=True)
    seen = {"sandbox": sandbox.to_json(), **asyncio.run(load_all(coder, imports, folders))}
    seen["rights"] = rights()
    seen["answers"] = {
        name: tried(lambda path=path: coder.load(path, "acme"))
        for name, path in {
            "a file outside of the trees": data_dir_file(settings),
            "no module": folders.trees / "text.wasm",
            "a component": folders.trees / "component.wasm",
            "threads": folders.trees / "threads.wasm",
            "nothing": folders.trees / "none.wasm",
            "a bomb": folders.trees / "bomb.wasm",
        }.items()
    }
    seen["write its folder"] = tried(lambda: (folders.machine_code / "x.cwasm").write_bytes(b""))
    seen["gone"] = coder.is_gone()
    print(json.dumps(seen))


def data_dir_file(settings: NodeSettings) -> Path:
    return settings.data_dir / "secret.wasm"


async def load_all(coder, imports, folders) -> dict:
    seen = {}
    async with Scheduler(imports.engine) as scheduler:
        for turn in ("compiled", "kept"):
            loaded = coder.load(folders.trees / "gives.wasm", "acme")
            linkage = Linkage(imports.engine, loaded.module, imports)
            weakref.finalize(linkage, loaded.release)
            seen[turn] = await returned(scheduler, linkage)
            del linkage, loaded
            gc.collect()
        other = coder.load(folders.trees / "other.wasm", "acme")
        seen["other"] = await returned(scheduler, Linkage(imports.engine, other.module, imports))
        coder.load(folders.trees / "gives.wasm", "globex")
        seen["files"] = len(list(folders.machine_code.glob("*.cwasm")))
        for path in folders.machine_code.glob("*.cwasm"):
            seen["size"] = path.stat().st_size
    return seen


async def returned(scheduler: Scheduler, linkage: Linkage) -> int:
    spec = InstanceSpec(argv=(), env=(), preopens=(), memory_bytes=1 << 20)
    instance, ended = Instance(linkage, spec), asyncio.get_running_loop().create_future()
    instance.on_exit = ended.set_result
    instance.start([("gives", None)])
    scheduler.wake(instance)
    assert await ended is None
    instance.close()
    return instance.returned


def kernel_rights():
    """Of this process's memory: asked before, tried when it is shut in."""
    window = next(
        int(line.split("-")[0], 16)
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "machine-code" in line
    )

    def rights() -> dict[str, str]:
        own = libc.mmap(None, PAGE, mmap.PROT_READ | mmap.PROT_WRITE, 0x22, -1, 0)
        return {
            "make memory executable": refused(libc.mprotect(own, PAGE, 7)),
            "map executable memory": refused(libc.mmap(None, PAGE, 5, 0x22, -1, 0)),
            "write to the window": refused(libc.mprotect(window, PAGE, 3)),
        }

    return rights


def refused(result: int) -> str:
    failed = result in (-1, ctypes.c_void_p(-1).value)
    return os.strerror(ctypes.get_errno()) if failed else ""


def tried(what) -> str:
    try:
        what()
    except IsopodError as error:
        return error.code
    except OSError as error:
        return str(error.strerror)
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
