"""Tenants' own modules on their way to the compiler."""

import pytest

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.machine_code import CompiledHere, compile_module
from isopod.engine.sections import split
from isopod.errors import ModuleInvalid

_HEAD = b"\0asm\x01\0\0\0"
_NAMELESS = b"\0\1\0"  # a custom section without a name or a content


def test_a_module_of_sections_without_number_is_refused_before_they_are_kept(tmp_path):
    engine = make_engine(EngineSettings())
    compile_module(engine, _HEAD + _NAMELESS * 10_000)
    with pytest.raises(ModuleInvalid, match="more than 10,000 sections"):
        compile_module(engine, _HEAD + _NAMELESS * 10_001)
    # Who looks for what it exports does not read 20 million of them either.
    with pytest.raises(ValueError, match="more than 10,000"):
        split(_HEAD + _NAMELESS * (20 << 20))
    file = tmp_path / "a.wasm"
    file.write_bytes(_HEAD + _NAMELESS * 10_001)
    with pytest.raises(ModuleInvalid, match="sections"):
        CompiledHere(engine).compiled(file)


def test_what_is_malformed_is_said_as_the_engine_says_it():
    with pytest.raises(ModuleInvalid, match=r"the module cannot be compiled: .*at offset"):
        compile_module(make_engine(EngineSettings()), _HEAD + b"\x01\xff\xff\xff\xff\x0f")
