"""isopod-node.toml: settings that an operator writes down, and the price sheet.

    [node]      any setting but data_dir, by its name: workers = 4
    [prices]    see `Prices`

It is read only when --config or ISOPOD_CONFIG names it: a file that is found by itself would
change a node unseen. data_dir is not in it, because the command line has to find the node without
it. Anything unknown is refused with the file, the key and the line. Money is exact: a number
is read as the decimal that is written, and never becomes a float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from isopod import toml_text
from isopod.toml_text import TomlInvalid

FILE_NAME = "isopod-node.toml"
_MAX_FILE_BYTES = 256 << 10
_CURRENCY = re.compile(r"[A-Z]{3}")  # ISO 4217
_MAX_PRICE = 1_000_000
_MAX_DIGITS = 18  # behind the point: sums of products stay exact within the context of a bill


class SettingInvalid(ValueError):
    """A setting's text has the wrong form. Says where the value came from."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a node's tenants pay. Amounts of `currency`, before rounding; see docs/billing.md.

    The defaults are of the order that clouds ask for the same things; 0 makes a thing free.
    The last two price the comparison: the same traffic on a cloud that bills wall-clock time, each
    request rounded up to 100 ms, at a fixed memory size.
    """

    currency: str = "USD"  # ISO 4217; shown, never converted
    cpu_ms: Decimal = Decimal("0.00000002")  # a millisecond of guest CPU: 0.02 per million
    gib_s: Decimal = Decimal("0.0000025")  # a second of one GiB of live private memory
    request: Decimal = Decimal("0.0000002")  # 0.20 per million
    egress_gib: Decimal = Decimal("0.05")  # response heads and bodies
    snapshot_gib_month: Decimal = Decimal("0.02")  # of 30 days; compressed, as it is stored
    volume_gib_month: Decimal = Decimal("0.08")  # of what it may hold, and nobody else may use
    wall_clock_gib_s: Decimal = Decimal("0.0000166667")
    wall_clock_memory_mib: int = 256  # what [limits] memory_mib gives an app that says nothing

    def to_json(self) -> dict[str, str | int]:
        """Money as text: JSON's numbers are floats to most readers."""
        return {
            one.name: format(value, "f") if isinstance(value, Decimal) else value
            for one in fields(self)
            for value in (getattr(self, one.name),)
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Prices:
        values: dict[str, Any] = dict(body)
        for one in fields(Prices):
            if one.type == "Decimal":
                # A sheet of an isopod that did not bill it yet is what its time is billed by.
                values[one.name] = Decimal(values.get(one.name, 0))
        return Prices(**values)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What one file says. `node`: values of NodeSettings' fields, of the right types."""

    path: Path
    text: str = field(repr=False)
    node: Mapping[str, Any]
    prices: Prices

    def refuse(self, section: str, key: str, why: str) -> NoReturn:
        """Raises SettingInvalid that names the place."""
        _refuse(self.path, self.text, section, key, why)


def read(path: Path, kinds: Mapping[str, str]) -> SettingsFile:
    """`kinds`: the settings that [node] may hold, with their annotated types. SettingInvalid."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SettingInvalid(f"cannot read the settings file {str(path)!r}: {why}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise SettingInvalid(f"{str(path)!r} is larger than {_MAX_FILE_BYTES >> 10} KiB")
    try:
        text = toml_text.decode(data)
        body = toml_text.parse(text, parse_float=Decimal)
    except TomlInvalid as error:
        at = f", line {error.line}" if error.line else ""
        raise SettingInvalid(f"{path}{at}: {error.why}") from error
    sections: dict[str, dict[str, Any]] = {"node": {}, "prices": {}}
    price_kinds = {one.name: str(one.type) for one in fields(Prices)}
    known = {"node": kinds, "prices": price_kinds}
    for section, content in body.items():
        if section not in known:
            _refuse(path, text, "", section, "is not known; known are [node] and [prices]")
        if not isinstance(content, dict):
            _refuse(path, text, "", section, f"must be a section: [{section}]")
        for key, value in content.items():
            kind = known[section].get(key)
            if kind is None:
                names = ", ".join(known[section])
                _refuse(path, text, section, key, f"is not known; known here: {names}")
            try:
                sections[section][key] = _value(key, kind, value, folder=path.parent)
            except ValueError as error:
                _refuse(path, text, section, key, f"{error}, not {toml_text.shown(value)}")
    return SettingsFile(path, text, sections["node"], Prices(**sections["prices"]))


def _refuse(path: Path, text: str, section: str, key: str, why: str) -> NoReturn:
    line = toml_text.line_of(text, section, key)
    at = f"{path}, line {line}" if line else str(path)
    raise SettingInvalid(f"{at}: {f'[{section}] {key}' if section else f'[{key}]'} {why}")


def _value(key: str, kind: str, value: Any, *, folder: Path) -> Any:
    """Of the type that the setting has; ValueError says what it must be."""
    if kind == "Decimal":
        return _price(value)
    if kind == "int":
        if type(value) is not int:
            raise ValueError("must be a whole number")
        if key == "wall_clock_memory_mib" and not 1 <= value <= 1 << 20:
            raise ValueError("must be from 1 to 1,048,576")
        return value
    if kind == "float":
        if type(value) not in (int, Decimal):
            raise ValueError("must be a number")
        return float(value)
    if kind == "bool":
        if type(value) is not bool:
            raise ValueError("must be true or false")
        return value
    if kind.startswith("tuple"):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError('must be a list of texts, such as ["10.0.0.1"]')
        return tuple(value)
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("must be text in quotes")
    if key == "currency" and not _CURRENCY.fullmatch(value):
        raise ValueError('must be three capital letters, such as "EUR"')
    # What a file names is beside the file, wherever the node is started from.
    return folder.absolute() / Path(value).expanduser() if kind == "Path" else value


def _price(value: Any) -> Decimal:
    if type(value) not in (int, Decimal):
        raise ValueError("must be a number without quotes, such as 0.00000002")
    price = Decimal(value)
    if not price.is_finite() or not 0 <= price <= _MAX_PRICE:
        raise ValueError(f"must be from 0 to {_MAX_PRICE:,}")
    exponent = price.as_tuple().exponent
    assert isinstance(exponent, int)  # finite
    if -exponent > _MAX_DIGITS:
        raise ValueError(f"must have at most {_MAX_DIGITS} digits behind the point")
    return price
