"""Usage statements: a tenant's month, signed by the node, checked by anybody without it.

    {"statement": {...}, "signature": {"algorithm": "Ed25519", "key_id", "public_key", "value"}}

Signed are the bytes of `statement` in canonical JSON (RFC 8785): reordering or indenting the file
changes nothing, changing any value does. What that leaves to the reader is refused here: names
given twice, and every number but whole ones (money and large amounts are text). A statement also
names its key, which proves nothing: whoever checks brings the key that they trust.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import rfc8785

from isopod.errors import StatementInvalid
from isopod.metering.bill import Bill, Used, moment, usage_json
from isopod.metering.reading import Faults
from isopod.metering.signing import ALGORITHM, SigningKey, key_id, signed_by

FORMAT = "isopod-usage-statement"
VERSION = 1
MAX_BYTES = 64 << 20
_SIGNED = frozenset({"algorithm", "key_id", "public_key", "value"})


@dataclass(frozen=True, slots=True)
class Checked:
    """What a statement says, once it was found sound."""

    statement: Mapping[str, Any]
    key_id: str


def make_statement(
    bill: Bill,
    used: Iterable[Used],
    *,
    tenant: str,
    faults: Faults,
    made_at: int,
    key: SigningKey,
) -> dict[str, Any]:
    """The signed statement of a bill. `used`: the ledger's days that it was made of; their digest
    holds whoever signed to them."""
    body = bill.to_json()
    days = [
        {"app": one.app, "day": moment(one.start), **usage_json(one.sums, one.stored)}
        for one in sorted(used, key=lambda one: (one.app, one.start))
    ]
    statement = {
        "format": FORMAT,
        "version": VERSION,
        "node": key.key_id,
        "tenant": tenant,
        "period": {"from": body["from"], "to": body["to"], "over": made_at >= bill.until},
        "made_at": moment(made_at),
        "prices": body["prices"],
        "price_sheets": body["price_sheets"],
        "lines": body["lines"],
        "total": body["total"],
        "records": {one.name: getattr(faults, one.name) for one in fields(faults)},
        "ledger": {"days": len(days), "sha256": hashlib.sha256(canonical(days)).hexdigest()},
    }
    return {
        "statement": statement,
        "signature": {
            "algorithm": ALGORITHM,
            "key_id": key.key_id,
            "public_key": key.public_key,
            "value": key.sign(canonical(statement)),
        },
    }


def canonical(value: Any) -> bytes:
    """RFC 8785. Numbers are whole; StatementInvalid for what it cannot hold."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, RecursionError) as bad:
        raise StatementInvalid(f"it has no canonical form: {bad}") from bad


def check(data: bytes, public_key: str) -> Checked:
    """Whether `data` is a statement signed with that key, unchanged since. StatementInvalid."""
    body = _read(data)
    statement, signature = body["statement"], body["signature"]
    if statement.get("format") != FORMAT:
        raise StatementInvalid(f"not a usage statement: its format is not {FORMAT!r}")
    if statement.get("version") != VERSION or type(statement["version"]) is not int:
        shown = repr(statement.get("version"))[:40]
        raise StatementInvalid(
            f"a statement of version {shown}; this isopod checks version {VERSION}",
            hint="check it with the isopod that wrote it",
        )
    if set(signature) != _SIGNED or signature["algorithm"] != ALGORITHM:
        raise StatementInvalid(f"its signature is not one of {ALGORITHM}")
    if (signature["public_key"], signature["key_id"]) != (public_key, key_id(public_key)):
        raise StatementInvalid(
            f"signed with another key: it names {str(signature['key_id'])[:16]!r}, yours is "
            f"{key_id(public_key)!r}",
            hint="ask the node for its key: `isopod usage key`",
        )
    if not signed_by(public_key, canonical(statement), signature["value"]):
        raise StatementInvalid(
            "the signature does not match: the statement was changed after it was signed",
            hint="get it again from the node: `isopod usage statement`",
        )
    return Checked(statement, key_id(public_key))


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise StatementInvalid(f"not a usage statement: larger than {MAX_BYTES >> 20} MiB")
    try:
        body = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_named_once,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as bad:  # UnicodeDecodeError is a ValueError
        raise StatementInvalid("not a usage statement: not JSON") from bad
    if not isinstance(body, dict) or set(body) != {"statement", "signature"}:
        raise StatementInvalid("not a usage statement: it holds no statement and signature alone")
    if not all(isinstance(part, dict) for part in body.values()):
        raise StatementInvalid("not a usage statement: its parts are no objects")
    return body


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise StatementInvalid("it gives a name twice: readers would differ in what it says")
    return found


def _refuse_number(text: str) -> Any:
    raise StatementInvalid(f"it holds {text[:40]!r}: numbers of a statement are whole")
