"""What ruby.wasm imports: the bindings for JavaScript, of which one call is used.

`JS.eval(text)` is how a guest says a frame. Handles of Ruby's values are the addresses that Ruby
gives, so the host keeps none. What else a page's JavaScript would answer ends the guest.
"""

from __future__ import annotations

from isopod.engine.linker import HostImport
from isopod.errors import GuestFailed

_HOST, _ABI = "rb-js-abi-host", "canonical_abi"
_VALUE = "handle<js-abi-value>"
_RESULT = f"variant {{ success({_VALUE}), failure({_VALUE}) }}"
_KEPT = frozenset({"resource_new_rb-abi-value", "resource_get_rb-abi-value"})
_IGNORED = frozenset({"resource_drop_js-abi-value"})


def _host(name: str, parameters: int, *, gives: bool = True, is_float: bool = False) -> HostImport:
    return HostImport(_HOST, name, parameters, has_result=gives, is_float=is_float)


IMPORTS = (
    HostImport(
        *(_HOST, f"eval-js: func(code: string) -> {_RESULT}", 3),
        has_result=False,
        waits=True,
        says=True,
    ),
    *(HostImport(_ABI, name, 1) for name in sorted(_KEPT)),
    *(HostImport(_ABI, name, 1, has_result=False) for name in sorted(_IGNORED)),
    _host("rb_wasm_throw_prohibit_rewind_exception", 2, gives=False),
    _host(f"is-js: func(value: {_VALUE}) -> bool", 1),
    _host(f"instance-of: func(value: {_VALUE}, klass: {_VALUE}) -> bool", 2),
    _host(f"global-this: func() -> {_VALUE}", 0),
    _host(f"int-to-js-number: func(value: s32) -> {_VALUE}", 1),
    _host(f"float-to-js-number: func(value: float64) -> {_VALUE}", 1, is_float=True),
    _host(f"string-to-js-string: func(value: string) -> {_VALUE}", 2),
    _host(f"bool-to-js-bool: func(value: bool) -> {_VALUE}", 1),
    _host(f"proc-to-js-function: func(value: u32) -> {_VALUE}", 1),
    _host(f"rb-object-to-js-rb-value: func(raw-rb-abi-value: u32) -> {_VALUE}", 1),
    _host(f"js-value-to-string: func(value: {_VALUE}) -> string", 2, gives=False),
    _host(
        f"js-value-to-integer: func(value: {_VALUE}) -> "
        "variant { as-float(float64), bignum(string) }",
        2,
        gives=False,
    ),
    _host(f"export-js-value-to-host: func(value: {_VALUE}) -> ()", 1, gives=False),
    _host(f"import-js-value-from-host: func() -> {_VALUE}", 0),
    _host(f"js-value-typeof: func(value: {_VALUE}) -> string", 2, gives=False),
    _host(f"js-value-equal: func(lhs: {_VALUE}, rhs: {_VALUE}) -> bool", 2),
    _host(f"js-value-strictly-equal: func(lhs: {_VALUE}, rhs: {_VALUE}) -> bool", 2),
    _host(
        f"reflect-apply: func(target: {_VALUE}, this-argument: {_VALUE}, "
        f"arguments: list<{_VALUE}>) -> {_RESULT}",
        5,
        gives=False,
    ),
    _host(
        f"reflect-get: func(target: {_VALUE}, property-key: string) -> {_RESULT}", 4, gives=False
    ),
    _host(
        f"reflect-set: func(target: {_VALUE}, property-key: string, value: {_VALUE}) -> {_RESULT}",
        5,
        gives=False,
    ),
)


def answer(name: str, numbers: list[int]) -> int:
    """See `Instance.on_import`. Raises GuestFailed."""
    if name in _KEPT:
        return numbers[0]
    if name in _IGNORED:
        return 0
    raise GuestFailed(f"the app called {name.partition(':')[0]!r} of JavaScript, which is not here")
