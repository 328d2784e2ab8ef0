from isopod.engine import traps
from isopod.engine.ffi import raw
from isopod.errors import GuestFailed, IsopodError


def test_every_trap_code_of_the_engine_has_an_error_of_ours():
    for code in raw.wasmtime_trap_code_enum:
        kind, text = traps.TRAPS[code.value]
        assert issubclass(kind, IsopodError)
        assert kind.whose == "app"
        assert text.startswith("the guest ")
        assert "wasmtime" not in text.lower()


def test_a_trap_without_a_code_is_the_guests_failure():
    message = raw.wasm_byte_vec_t()
    raw.wasm_byte_vec_new_uninitialized(message, 0)
    text = b"out of fuel, perhaps"
    trap = raw.wasmtime_trap_new(text, len(text))
    error = traps.from_trap(trap)
    assert type(error) is GuestFailed
    assert error.details["trap"] == "out of fuel, perhaps"
