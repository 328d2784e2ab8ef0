import wasmtime

from isopod.engine.config import EngineSettings, make_engine

LOADS = "(module (memory 1) (func (param i32) (result i32) (i32.load (local.get 0))))"
_ON = b"\x02\x01"  # in a module's own list of settings: a flag, and that it is set


def test_machine_code_is_made_with_the_mitigations_of_spectre():
    code = bytes(wasmtime.Module(make_engine(EngineSettings()), LOADS).serialize())
    for access in (b"heap", b"table"):
        name = b"enable_" + access + b"_access_spectre_mitigation"
        _, found, after = code.partition(name)
        assert found, "wasmtime has renamed the setting"
        assert after.startswith(_ON), name
