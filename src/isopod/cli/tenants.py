"""`isopod tenants`: for the node's operator."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, connect, subcommand_follows
from isopod.errors import UsageError

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]
QuotaOption = Annotated[
    list[str] | None,
    typer.Option("--quota", metavar="K=N", help="A bound on all its apps together; 0: none."),
]
CordonOption = Annotated[
    Literal["shared", "tenant"] | None,
    typer.Option("--cordon", help="tenant: a worker process of its own; or shared."),
]

EgressOption = Annotated[
    list[str] | None,
    typer.Option(
        "--egress",
        metavar="H:P",
        help="What its apps may list; '*' is any host or port. Alone: any, none.",
    ),
]

_group = typer.Typer(
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(cli: typer.Typer) -> None:
    cli.add_typer(
        _group,
        name="tenants",
        help="List the tenants of the node, or make, change and end one. For its operator.",
        epilog="Examples:\n\nisopod tenants --json\n\n"
        "isopod tenants create acme --quota requests_per_s=50 --quota memory_mib=2048\n\n"
        "isopod tenants set acme --quota apps=20\n\nisopod tenants suspend acme",
    )


@_group.callback()
def tenants(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    if not subcommand_follows(context):
        list_tenants(as_json=as_json, data_dir=data_dir)


@_group.command("list", epilog="Example: isopod tenants list --json")
def list_tenants(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the tenants of the node."""
    with connect(data_dir) as client:
        found = client.tenants()
    if as_json:
        output.print_json(found)
        return
    output.table(
        ("TENANT", "APPS", "MEMBERS", "CORDON", "STATE", "QUOTA", "MADE"),
        (
            (
                one["name"],
                one["apps"],
                one["members"],
                one["cordon"],
                "suspended" if one["suspended"] else "active",
                _quota(one["quota"]),
                output.ago(one["created_at"]),
            )
            for one in found
        ),
    )


@_group.command(epilog="Example: isopod tenants create acme --quota requests_per_s=50")
def create(
    tenant: Tenant,
    *,
    quota: QuotaOption = None,
    cordon: CordonOption = None,
    egress: EgressOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a tenant. Its name is never given again."""
    amounts = _amounts(quota or [])
    with connect(data_dir) as client:
        made = client.create_tenant(tenant, quota=amounts, cordon=cordon, egress=egress)
    _show(made, as_json=as_json)
    if not as_json:
        output.note(
            f"next: isopod members add NAME --tenant {tenant}, then "
            f"isopod tokens create --member NAME --scope deploy --tenant {tenant}"
        )


@_group.command(epilog="Example: isopod tenants show acme --json")
def show(tenant: Tenant, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show one tenant, its quota and how much there is of it."""
    with connect(data_dir) as client:
        _show(client.tenant(tenant), as_json=as_json)


@_group.command(
    "set",
    epilog="Examples:\n\nisopod tenants set acme --quota requests_per_s=50\n\n"
    "isopod tenants set acme --quota apps=0 --quota memory_mib=4096\n\n"
    "isopod tenants set acme --egress '*.example.com:443' --egress 'db.internal:*'\n\n"
    "isopod tenants set acme --egress any",
)
def set_tenant(
    tenant: Tenant,
    *,
    quota: QuotaOption = None,
    cordon: CordonOption = None,
    egress: EgressOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Change a tenant's quota, cordon or egress; what is not named stays."""
    if not quota and cordon is None and not egress:
        raise UsageError("nothing to set", hint="e.g. --quota requests_per_s=50")
    amounts = _amounts(quota or [])
    with connect(data_dir) as client:
        changed = client.change_tenant(tenant, quota=amounts, cordon=cordon, egress=egress)
    _show(changed, as_json=as_json)


@_group.command(epilog="Example: isopod tenants suspend acme")
def suspend(tenant: Tenant, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Let a tenant's apps answer 403, and its tokens only read."""
    with connect(data_dir) as client:
        changed = client.change_tenant(tenant, suspended=True)
    _say(changed, f"tenant {tenant!r} is suspended", as_json=as_json)


@_group.command(epilog="Example: isopod tenants resume acme")
def resume(tenant: Tenant, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """End a suspension."""
    with connect(data_dir) as client:
        changed = client.change_tenant(tenant, suspended=False)
    _say(changed, f"tenant {tenant!r} serves again", as_json=as_json)


@_group.command(epilog="Example: isopod tenants delete acme --yes")
def delete(
    tenant: Tenant,
    *,
    force: Annotated[bool, typer.Option("--force", help="With all its apps.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Delete a tenant, its members and tokens. Its audit log and usage stay."""
    with connect(data_dir) as client:
        if not yes:
            found = client.tenant(tenant)
            if not sys.stdin.isatty():
                raise UsageError(
                    f"deleting tenant {tenant!r} cannot be undone", hint="say --yes to do it"
                )
            apps = f" and its {found['apps']} apps" if force else ""
            sys.stderr.write(f"Delete tenant {tenant!r}{apps} for ever? [y/N] ")
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                output.note("Nothing was deleted.")
                raise typer.Exit(1)
        done = client.delete_tenant(tenant, force=force)
    _say(done, f"tenant {tenant!r} is deleted", as_json=as_json)


def _amounts(given: list[str]) -> dict[str, int]:
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if not name or not value.isascii() or not value.isdigit():
            raise UsageError(
                f"--quota takes NAME=NUMBER, not {text!r}", hint="e.g. --quota requests_per_s=50"
            )
        found[name] = int(value)
    return found


def _quota(quota: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in quota.items() if value) or "none"


def _egress(rules: object) -> str:
    if rules is None:
        return "any public address"
    assert isinstance(rules, list)
    return ", ".join(rules) or "none"


def _show(tenant: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        output.print_json(tenant)
        return
    quota = tenant["quota"]
    assert isinstance(quota, dict)
    output.fields(
        [
            ("tenant", tenant["name"]),
            ("state", "suspended" if tenant["suspended"] else "active"),
            ("cordon", tenant["cordon"]),
            ("quota", _quota(quota)),
            ("egress", _egress(tenant["egress"])),
            ("apps", tenant["apps"]),
            ("members", tenant["members"]),
        ]
    )


def _say(done: dict[str, object], text: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(done)
    else:
        output.say(text)
