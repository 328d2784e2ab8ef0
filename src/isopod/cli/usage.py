"""`isopod usage`: what was used and what it costs; and statements, made and checked."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, connect, subcommand_follows
from isopod.errors import StatementInvalid, UsageError

By = Literal["app", "day", "hour"]
_GIB = 2**30
_TEXTS = ("tenant", "app", "start")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run the cell

usage = typer.Typer(
    name="usage",
    help="What apps used and cost, beside what the same traffic costs billed by wall-clock time.",
    epilog="Examples:\n\nisopod usage --from 2026-11-01 --to 2026-11-30 --by day\n\n"
    "isopod usage --app shop --csv > shop.csv\n\n"
    "isopod usage statement --month 2026-11 > statement.json\n\n"
    "isopod usage verify statement.json --key node.key",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Tenant = Annotated[
    str,
    typer.Option("--tenant", metavar="T", help="Another tenant, deleted or not; the operator's."),
]


def register(cli: typer.Typer) -> None:
    cli.add_typer(usage)


@usage.callback(invoke_without_command=True)
def bill(
    *,
    context: typer.Context,
    tenant: Tenant = "",
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Of every tenant; the operator's.")
    ] = False,
    app: Annotated[str, typer.Option("--app", metavar="NAME", help="Of one app.")] = "",
    since: Annotated[
        str,
        typer.Option(
            "--from", metavar="WHEN", help="2026-11-01 or 2026-11-01T08:30Z. (this month's start)"
        ),
    ] = "",
    until: Annotated[
        str, typer.Option("--to", metavar="WHEN", help="UTC; a date includes that day. (now)")
    ] = "",
    by: Annotated[By, typer.Option("--by", help="One line for each.")] = "app",
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, all amounts in full.")] = False,
    data_dir: DataDir = None,
) -> None:
    """What apps used and cost, beside what the same traffic costs billed by wall-clock time."""
    if subcommand_follows(context):
        return
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    if all_tenants and tenant:
        raise UsageError("--tenant and --all-tenants exclude each other")
    with connect(data_dir) as client:
        asked = "*" if all_tenants else tenant
        found = client.usage(tenant=asked, app=app, since=since, until=until, by=by)
    if as_json:
        output.print_json(found)
    elif as_csv:
        _print_csv(found)
    else:
        _print_table(found, several=all_tenants)


@usage.command(epilog="Example: isopod usage statement --month 2026-11 > statement.json")
def statement(
    month: Annotated[str, typer.Option("--month", metavar="MONTH", help="2026-11, in UTC.")],
    tenant: Tenant = "",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Print a month's usage, signed with the node's key (Ed25519), as JSON."""
    with connect(data_dir) as client:
        found = client.usage_statement(tenant=tenant, month=month)
    output.print_json(found)
    if not as_json and not found["statement"]["period"]["over"]:
        output.note(f"{month} is not over: the statement is of what was used so far")


@usage.command(
    epilog="Examples:\n\nisopod usage verify statement.json --key node.key\n\n"
    "isopod usage verify - --key 3b6a27bc... < statement.json\n\n"
    "Ends with 0 when the statement is sound, with 1 when it is not, with 2 when it was asked "
    "wrongly. Needs no node."
)
def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A statement; - is standard input.")],
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help="The node's public key, or its file.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check a statement's signature, offline."""
    from isopod.metering.signing import parse_key
    from isopod.metering.statement import MAX_BYTES, check

    key_file = Path(key)
    public_key = parse_key(
        _read(key_file, 1000).decode("utf-8", "replace") if key_file.is_file() else key
    )
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else _read(Path(file), MAX_BYTES + 1)
    try:
        checked = check(data, public_key)
    except StatementInvalid as bad:
        if as_json:
            output.print_json({"sound": False, "why": bad.message})
        else:
            output.print_error(bad)
        raise typer.Exit(1) from bad
    found = checked.statement
    if as_json:
        output.print_json({"sound": True, "key_id": checked.key_id, "statement": dict(found)})
        return
    period, money = found["period"], found["prices"]["currency"]
    output.say(f"sound: signed with key {checked.key_id}, and unchanged since")
    output.fields(
        [
            ("tenant", found["tenant"]),
            ("period", f"{period['from']} to {period['to']}"),
            ("made at", found["made_at"] + ("" if period["over"] else " (before its end)")),
            ("total", f"{found['total']['cost']['total']} {money}"),
        ]
    )


@usage.command(epilog="Example: isopod usage key > node.key")
def key(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Print the public key that checks this node's statements."""
    with connect(data_dir) as client:
        found = client.usage_key()
    if as_json:
        output.print_json(found)
    else:
        output.say(found["public_key"])


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as bad:
        raise UsageError(
            f"cannot read {str(path)!r}: {(bad.strerror or str(bad)).lower()}"
        ) from bad


def _print_table(found: dict[str, Any], *, several: bool) -> None:
    prices, total = found["prices"], found["total"]
    lines = found["lines"]
    places = _places([one["cost"][name] for one in lines for name in ("total", "wall_clock")])
    first = {"app": "APP", "day": "DAY", "hour": "HOUR"}[found["by"]]
    columns = (*(("TENANT",) if several else ()), first, "REQUESTS", "STARTS", "CPU", "WAITED")
    columns += ("MEMORY", "EGRESS", "SNAPSHOTS", "VOLUMES", "COST", "WALL-CLOCK", "SAVED")

    def cells(line: dict[str, Any], name: str) -> list[str]:
        used, cost = line["usage"], line["cost"]
        return [
            name,
            f"{used['requests']:,}",
            f"{used['starts']:,}",
            _seconds(int(used["cpu_ns"])),
            _seconds(int(used["wait_ns"])),
            f"{int(used['memory_byte_ms']) / _GIB / 1000:,.3f} GiB s",
            _size(int(used["bytes_out"])),
            f"{int(used['snapshot_byte_s']) / _GIB / 3600:,.3f} GiB h",
            f"{int(used['volume_byte_s']) / _GIB / 3600:,.3f} GiB h",
            f"{Decimal(cost['total']):,.{places}f}",
            f"{Decimal(cost['wall_clock']):,.{places}f}",
            _share(cost),
        ]

    def name(line: dict[str, Any]) -> str:
        if found["by"] == "app":
            return str(line["app"]) or "(no app)"  # of volumes
        return str(line["start"])[: 10 if found["by"] == "day" else 16].replace("T", " ")

    def tenant(line: dict[str, Any]) -> list[str]:
        return [line["tenant"]] if several else []

    output.say(
        f"{_moment(found['from'])} to {_moment(found['to'])} UTC, prices in {prices['currency']}"
    )
    output.say()
    output.table(
        columns,
        ([*tenant(line), *cells(line, name(line))] for line in lines),
        right=frozenset(columns) - {"TENANT", first},
        total=[*([""] if several else []), *cells(total, "total")],
    )
    output.say()
    output.say(
        "WALL-CLOCK is what the same requests cost where their time is billed, each rounded up to "
        f"100 ms, at {prices['wall_clock_memory_mib']} MiB."
    )


def _print_csv(found: dict[str, Any]) -> None:
    import csv

    amounts = [(part, name) for part in ("usage", "cost") for name in found["total"][part]]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([*_TEXTS, *(f"{part}.{name}" for part, name in amounts), "currency"])
    currency = found["prices"]["currency"]
    for line in found["lines"]:
        texts = [_cell(line[name] or "") for name in _TEXTS]
        out.writerow([*texts, *(line[part][name] for part, name in amounts), _cell(currency)])


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula. Numbers are left as they are."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _moment(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z").removesuffix(":00")


def _seconds(ns: int) -> str:
    if ns < 10**9:
        return f"{ns / 10**6:,.1f} ms"
    return f"{ns / 10**9:,.1f} s"


def _size(size: int) -> str:
    for unit, factor in (("GiB", _GIB), ("MiB", 2**20)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 1024:,.1f} KiB"


def _share(cost: dict[str, str]) -> str:
    """How much less than by wall-clock, in per cent; below 0 where that is cheaper."""
    wall_clock = Decimal(cost["wall_clock"])
    return f"{Decimal(cost['saved']) / wall_clock:.1%}" if wall_clock else "-"


def _places(amounts: list[str]) -> int:
    """So many that the smallest amount of a table shows two digits."""
    some = [amount for text in amounts if (amount := Decimal(text))]
    return min(12, max(2, *(1 - amount.adjusted() for amount in some))) if some else 2
