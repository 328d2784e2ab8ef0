"""The cache of compiled modules, with a tiny module and real compilations (0.2 s each)."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from isopod.engine import config
from isopod.engine.config import EngineSettings
from isopod.engine.linker import Linkage
from isopod.engine.module_cache import ModuleCache
from isopod.errors import EngineError, RuntimePrepareFailed

SETTINGS = EngineSettings()


def quiet(_done: float, _text: str) -> None:
    pass


@pytest.fixture
def module(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "echo.wasm"
    text = (Path(__file__).parents[2] / "guests" / "echo.wat").read_text()
    path.write_bytes(wasmtime.wat2wasm(text))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> ModuleCache:
    return ModuleCache(tmp_path / "modules", SETTINGS)


def test_the_key_covers_module_settings_engine_and_cpu(monkeypatch, cache):
    keys = {cache.key("a"), cache.key("b")}
    keys.add(ModuleCache(cache.root, EngineSettings(epochs=False)).key("a"))
    keys.add(ModuleCache(cache.root, EngineSettings(wasm_stack_bytes=1 << 20)).key("a"))
    for name, value in (("version", lambda _: "999.0"), ("_cpu", lambda: "flags: none")):
        with monkeypatch.context() as patch:
            patch.setattr(config, name, value)
            config.fingerprint.cache_clear()
            keys.add(cache.key("a"))
        config.fingerprint.cache_clear()
    assert len(keys) == 6
    assert cache.key("a") in keys


def test_a_module_is_compiled_once_and_runs(cache, module):
    assert cache.entry(module[1]) is None
    texts: list[str] = []
    compiled = cache.ensure(*module, lambda _, text: texts.append(text))
    assert texts[-1] == "compiled echo.wasm"
    assert cache.entry(module[1]) == compiled
    assert Linkage.load(compiled, SETTINGS).pre is not None

    inode = compiled.stat().st_ino
    cache.ensure(*module, lambda *_: pytest.fail("it is compiled already"))
    assert compiled.stat().st_ino == inode
    assert sorted(path.name for path in cache.root.iterdir()) == [
        cache.key(module[1]),
        f"{cache.key(module[1])}.lock",
    ]


@pytest.mark.parametrize(
    "damage", ["flipped byte", "cut short", "no entry.json", "gone", "nonsense"]
)
def test_a_damaged_entry_is_noticed_and_built_again(cache, module, damage):
    compiled = cache.ensure(*module, quiet)
    good = compiled.read_bytes()
    entry = compiled.with_name("entry.json")
    if damage == "flipped byte":
        compiled.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    elif damage == "cut short":
        compiled.write_bytes(good[:-1])
    elif damage == "no entry.json":
        entry.unlink()
    elif damage == "gone":
        compiled.unlink()
    else:
        entry.write_text("[1, 2]")
    texts: list[str] = []
    cache.ensure(*module, lambda _, text: texts.append(text))
    assert "the cached module is damaged; compiling it again" in texts
    assert json.loads(entry.read_text())["size"] == len(compiled.read_bytes())
    assert Linkage.load(compiled, SETTINGS).pre is not None
    assert len(list(cache.root.iterdir())) == 2


def test_a_damaged_module_is_not_loaded(cache, module):
    compiled = cache.ensure(*module, quiet)
    compiled.write_bytes(b"\0" * 100)
    with pytest.raises(EngineError, match="cannot be loaded"):
        Linkage.load(compiled, SETTINGS)


def test_two_processes_compile_it_once(cache, module):
    code = (
        "import sys; from pathlib import Path; from isopod.engine.config import EngineSettings\n"
        "from isopod.engine.module_cache import ModuleCache\n"
        "def say(done, text): print(text, flush=True)\n"
        "ModuleCache(Path(sys.argv[1]), EngineSettings()).ensure("
        "Path(sys.argv[2]), sys.argv[3], say)"
    )
    command = [sys.executable, "-c", code, str(cache.root), str(module[0]), module[1]]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count("compiled echo.wasm") == 1
    assert cache.entry(module[1]) is not None


def test_what_a_killed_process_left_is_removed(cache, module):
    left = cache.root / f".new-{cache.key(module[1])[:16]}-abc"
    left.mkdir(parents=True)
    (left / "module.cwasm").write_bytes(b"half")
    other = cache.root / ".new-0123456789abcdef-abc"  # of another module: may be at work
    other.mkdir()
    cache.ensure(*module, quiet)
    assert not left.exists()
    assert other.exists()


def test_a_module_that_does_not_compile_leaves_nothing(cache, tmp_path):
    bad = tmp_path / "bad.wasm"
    bad.write_bytes(b"\0asm but not really")
    with pytest.raises(RuntimePrepareFailed, match=r"compiling 'bad\.wasm' failed"):
        cache.ensure(bad, "d" * 64, quiet)
    assert cache.entry("d" * 64) is None
    assert [path.suffix for path in cache.root.iterdir()] == [".lock"]


def test_a_cache_folder_that_cannot_be_is_named(tmp_path, module):
    (tmp_path / "file").write_text("")
    cache = ModuleCache(tmp_path / "file" / "modules", SETTINGS)
    with pytest.raises(RuntimePrepareFailed, match="cannot keep compiled modules in"):
        cache.ensure(*module, quiet)


def test_a_module_with_unknown_imports_is_refused(engine):
    module = wasmtime.Module(engine, '(module (import "env" "anything" (func)))')
    with pytest.raises(EngineError, match="imports cannot be satisfied"):
        Linkage(engine, module)
