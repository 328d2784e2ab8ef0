"""Tiny guests, real engine: one per test session, guests driven by hand or by a scheduler."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wasmtime

from isopod.engine.config import MIB, EngineSettings, make_engine
from isopod.engine.instance import Instance, InstanceSpec, State
from isopod.engine.linker import Linkage
from isopod.errors import IsopodError

GUESTS = Path(__file__).parents[2] / "guests"
Calls = Sequence[tuple[str, bytes | None]]


@dataclass
class Told:
    """What an embedder was told: frames, and how the guest ended."""

    instance: Instance
    frames: list[bytes] = field(default_factory=list)
    ended: bool = False
    error: IsopodError | None = None

    def run(self, replies: Sequence[bytes] = ()) -> "Told":
        """Poll to the end, or to a call for which there is no reply."""
        waiting = iter(replies)
        for _ in range(100_000):
            if self.instance.state is State.READY:
                self.instance.poll()
                frame = self.instance.take_frame()
                if frame is not None:
                    self.frames.append(frame)
            elif self.instance.state is State.CALLING:
                reply = next(waiting, None)
                if reply is None:
                    return self
                self.instance.reply(reply)
            else:
                return self
        raise AssertionError("the guest goes on for ever")


Make = Callable[..., Told]


@pytest.fixture(scope="session")
def engine() -> wasmtime.Engine:
    return make_engine(EngineSettings())


@pytest.fixture(scope="session")
def linkages(engine: wasmtime.Engine) -> Callable[[str], Linkage]:
    made: dict[str, Linkage] = {}

    def get(name: str) -> Linkage:
        if name not in made:
            module = wasmtime.wat2wasm((GUESTS / f"{name}.wat").read_text())
            made[name] = Linkage(engine, wasmtime.Module(engine, module))
        return made[name]

    return get


@pytest.fixture
def guest(linkages: Callable[[str], Linkage]) -> Iterator[Make]:
    made: list[Instance] = []

    def make(
        name: str, calls: Calls, *, memory_mib: int = 128, env: tuple = (), share: tuple = ("", "")
    ) -> Told:
        spec = InstanceSpec(
            argv=("guest",), env=env, preopens=(), memory_bytes=memory_mib * MIB, share=share
        )
        told = Told(Instance(linkages(name), spec))
        made.append(told.instance)

        def on_exit(error: IsopodError | None) -> None:
            told.ended, told.error = True, error

        told.instance.on_call = told.frames.append
        told.instance.on_exit = on_exit
        told.instance.start(calls)
        return told

    yield make
    for instance in made:
        instance.close()
