"""`isopod members` and `isopod tokens`: who may use a tenant, and by which tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from isopod.cli import output
from isopod.cli.logs import span_s
from isopod.cli.options import AsJson, DataDir, InTenant, connect, subcommand_follows
from isopod.errors import UsageError

_HELP = {"help_option_names": ["-h", "--help"]}
_members = typer.Typer(invoke_without_command=True, context_settings=_HELP)
_tokens = typer.Typer(invoke_without_command=True, context_settings=_HELP)
Member = Annotated[str, typer.Argument(metavar="NAME", help="The member, such as alice or ci.")]


def register(cli: typer.Typer) -> None:
    cli.add_typer(
        _members,
        name="members",
        help="List the members of a tenant, add or remove one.",
        epilog="Examples:\n\nisopod members --json\n\nisopod members add alice --tenant acme",
    )
    cli.add_typer(
        _tokens,
        name="tokens",
        help="List the tokens of a tenant, make or revoke one.",
        epilog="Examples:\n\nisopod tokens --json\n\n"
        "isopod tokens create --member ci --scope deploy --expires 30d\n\n"
        "isopod tokens revoke 0123456789abcdef",
    )


@_members.callback()
def members(
    context: typer.Context,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    if not subcommand_follows(context):
        list_members(as_json=as_json, tenant=tenant, data_dir=data_dir)


@_members.command("list", epilog="Example: isopod members list --json")
def list_members(
    as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """List the members of the tenant."""
    with connect(data_dir, tenant) as client:
        found = client.members()
    if as_json:
        output.print_json(found)
        return
    output.table(
        ("MEMBER", "TOKENS", "ADDED"),
        ((one["name"], one["tokens"], output.ago(one["created_at"])) for one in found),
    )


@_members.command(epilog="Example: isopod members add alice --tenant acme")
def add(
    name: Member, as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """Add somebody who may hold tokens."""
    with connect(data_dir, tenant) as client:
        made = client.add_member(name)
    if as_json:
        output.print_json(made)
    else:
        output.say(f"member {name!r} is added; `isopod tokens create --member {name}` is next")


@_members.command(epilog="Example: isopod members remove alice")
def remove(
    name: Member, as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None
) -> None:
    """Remove a member, and revoke every token the member holds."""
    with connect(data_dir, tenant) as client:
        done = client.remove_member(name)
    if as_json:
        output.print_json(done)
    else:
        output.say(f"member {name!r} is removed; {done['tokens_revoked']} tokens are revoked")


@_tokens.callback()
def tokens(
    context: typer.Context,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    if not subcommand_follows(context):
        list_tokens(as_json=as_json, tenant=tenant, data_dir=data_dir)


@_tokens.command("list", epilog="Example: isopod tokens list --json")
def list_tokens(as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None) -> None:
    """List the tokens of the tenant, newest first."""
    with connect(data_dir, tenant) as client:
        found = client.tokens()
    if as_json:
        output.print_json(found)
        return
    output.table(
        ("TOKEN", "MEMBER", "SCOPES", "MADE", "EXPIRES", "LAST USED", ""),
        (
            (
                one["id"],
                one["member"],
                ",".join(one["scopes"]),
                output.ago(one["created_at"]),
                output.moment(one["expires_at"])[:16] if one["expires_at"] else "never",
                output.ago(one["last_used_at"]) if one["last_used_at"] else "never",
                "revoked" if one["revoked_at"] else "",
            )
            for one in found
        ),
    )


@_tokens.command(
    epilog="Examples:\n\nisopod tokens create --member ci --scope deploy --expires 30d\n\n"
    "isopod tokens create --member alice --scope deploy --scope read --scope usage"
)
def create(
    *,
    member: Annotated[str, typer.Option("--member", metavar="NAME", help="Who holds it.")],
    scope: Annotated[
        list[str], typer.Option("--scope", metavar="S", help="deploy, read, usage or admin.")
    ],
    expires: Annotated[
        str, typer.Option("--expires", metavar="SPAN", help="30d, 12h, or never.")
    ] = "90d",
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Make a token for a member; it is printed this once."""
    expires_in_s = _expiry(expires)
    with connect(data_dir, tenant) as client:
        made = client.create_token(member=member, scopes=scope, expires_in_s=expires_in_s)
    if as_json:
        output.print_json(made)
        return
    until = f"until {output.moment(made['expires_at'])[:16]}" if made["expires_at"] else "for ever"
    output.note(f"token {made['id']} of {member}, {', '.join(made['scopes'])}, {until};")
    output.note("keep it secret; it is not shown again:")
    output.say(made["token"])


@_tokens.command(epilog="Example: isopod tokens revoke 0123456789abcdef")
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, as `tokens` shows it.")],
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Revoke a token: from now on it is worth nothing."""
    if token.startswith("ip_"):
        # A whole token in a path would be in logs on its way.
        raise UsageError("that is the token itself", hint="name its id: the part between the '_'")
    with connect(data_dir, tenant) as client:
        done = client.revoke_token(token)
    if as_json:
        output.print_json(done)
    else:
        output.say(f"token {token!r} is revoked")


def _expiry(text: str) -> float | None:
    if text == "never":
        return None
    span = span_s(text)
    if span is None or span < 1:
        raise UsageError(
            f"--expires {text!r} is no span of time", hint="e.g. 30d, 12h, 90min or never"
        )
    return span
