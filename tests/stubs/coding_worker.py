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
HOG = 10  # modules of one tenant that take as long as they may


def main(data_dir: str, seconds: str) -> None:
    settings = NodeSettings(data_dir=Path(data_dir), build_timeout_s=float(seconds))
    named = json.loads((settings.data_dir / "modules.json").read_text())
    features = probe()
    folders = WorkerFolders.of(settings, 0, None)
    needs = folders.prepare(settings)
    coder = start_coder(
        settings,
        features,
        trees=folders.trees,
        folder=folders.machine_code,
        alone=False,
        others=(),
    )
    rights = kernel_rights()
    sandbox = shut_in(needs, features=features)
    engine = make_engine(EngineSettings())
    coder.use(engine)
    imports = Imports(engine)
    sandbox.guard(shown_code=True)
    files = {name: folders.trees / tree / "tree" / "app.wasm" for name, tree in named.items()}
    seen = {"sandbox": sandbox.to_json()}
    seen |= asyncio.run(load_all(coder, imports, files, folders.machine_code))
    seen["rights"] = rights()
    seen["write its folder"] = tried(lambda: (folders.machine_code / "x.cwasm").write_bytes(b""))
    seen["gone"] = coder.is_gone()
    print(json.dumps(seen))


async def load_all(coder, imports, files, folder) -> dict:
    seen = {}
    async with Scheduler(imports.engine) as scheduler:
        for turn in ("compiled", "kept"):
            loaded = await coder.load(files["gives"], "acme")
            linkage = Linkage(imports.engine, loaded.module, imports)
            weakref.finalize(linkage, loaded.release)
            seen[turn] = await returned(scheduler, linkage)
            del linkage, loaded
            gc.collect()
        other = await coder.load(files["other"], "acme")
        seen["other"] = await returned(scheduler, Linkage(imports.engine, other.module, imports))
        await coder.load(files["gives"], "globex")
        seen["files"] = len(list(folder.glob("*.cwasm")))
    seen["answers"] = {
        name: await refused_for(coder, files.get(name, folder / "none"))
        for name in (
            *("text", "component", "threads", "exceptions", "swapped", "beside", "dots"),
            *("no such tree", "no such file"),
        )
    }
    seen |= await beside_slow_ones(coder, files)
    seen["failures"] = len(list(folder.glob("*.failed")))
    seen["left"] = sorted(path.name for path in folder.glob(".*"))
    return seen


async def beside_slow_ones(coder, files) -> dict:
    """One tenant has more compiled than there are places, each of which takes too long."""
    slow = [asyncio.create_task(refused_for(coder, files[f"bomb {n}"])) for n in range(HOG)]
    # They are being compiled, or wait for that, and all of it before these.
    loaded = await coder.load(files["gives"], "acme")
    loaded.release()
    mine = await coder.load(files["third"], "globex")
    mine.release()
    ended_before = sum(task.done() for task in slow)
    codes = await asyncio.gather(*slow)
    again = await refused_for(coder, files["bomb 0"])
    return {"ended before": ended_before, "slow": codes, "again": again}


async def refused_for(coder, file) -> str:
    try:
        await coder.load(file, "initech")
    except IsopodError as error:
        return f"{error.code}: {error.message}"
    return ""


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
    except OSError as error:
        return str(error.strerror)
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
