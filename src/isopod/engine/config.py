"""How the engine is set, and the fingerprint that its compiled code depends on."""

from __future__ import annotations

import functools
import hashlib
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import wasmtime

from isopod.engine.ffi import raw

MIB = 1 << 20
Engine = wasmtime.Engine  # for those who hand one on


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Changing a field that shapes machine code changes `fingerprint`, and so recompiles."""

    # 512 KiB, the engine's default, traps on json.loads('[' * 200_000).
    wasm_stack_bytes: int = 8 * MIB
    # What our callbacks run in: they execute Python on the fiber's own stack.
    host_stack_bytes: int = 2 * MIB
    # Cooperative time slices: checks at loop heads and function entries.
    epochs: bool = True

    @property
    def fiber_stack_bytes(self) -> int:
        return self.wasm_stack_bytes + self.host_stack_bytes


def make_engine(settings: EngineSettings) -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_exceptions = True  # CPython for WASI is built with them
    config.epoch_interruption = settings.epochs
    # Before max_wasm_stack: the other way round the process aborts.
    raw.wasmtime_config_async_stack_size_set(config.ptr(), settings.fiber_stack_bytes)
    config.max_wasm_stack = settings.wasm_stack_bytes
    # Guests have one linear memory and no threads; refuse the rest at compile time.
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    return wasmtime.Engine(config)


@functools.cache
def fingerprint(settings: EngineSettings) -> str:
    """What, beside the module, decides the machine code: engine version, settings, CPU."""
    parts = (version("wasmtime"), sorted(asdict(settings).items()), platform.machine(), _cpu())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _cpu() -> str:
    """The CPU's feature flags: code compiled for AVX-512 must not be used without it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
