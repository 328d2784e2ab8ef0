"""`isopod login`: remember a node on another machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from isopod.cli import output
from isopod.errors import UsageError
from isopod.settings import ClientSettings


def register(cli: typer.Typer) -> None:
    cli.command(
        epilog="Examples:\n\nisopod login http://10.0.0.5:8081\n\n"
        "isopod login http://10.0.0.5:8081 --token-stdin < token"
    )(login)


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="The address of the node's API.")],
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read the token from standard input.")
    ] = False,
) -> None:
    """Check a node's address and token, and use them from now on.

    A tenant's token comes from its admin (`isopod tokens create`), the operator's is in the file
    `token` of the node's data directory. It is taken from ISOPOD_TOKEN, from standard input, or
    asked for.
    """
    from isopod.client import Client, NodeAddress, checked_url, write_login

    settings = ClientSettings.load()
    address = checked_url(url)
    token = _token(settings, token_stdin=token_stdin)
    with Client(NodeAddress(address, token, "the command line")) as client:
        found = client.health()
        who = client.whoami()
    write_login(settings.login_path, address, token)
    output.say(f"logged in to {address} (isopod {found['version']})")
    state = ", suspended: it may only look" if who["suspended"] else ""
    output.say(f"{who['name']} of tenant {who['tenant']}: {', '.join(who['scopes'])}{state}")
    output.note(f"kept in {settings.login_path}; delete that file to log out")


def _token(settings: ClientSettings, *, token_stdin: bool) -> str:
    if token_stdin:
        token = sys.stdin.readline().strip()
    elif settings.token:
        token = settings.token
    elif sys.stdin.isatty():
        from getpass import getpass

        token = getpass("Token: ").strip()
    else:
        raise UsageError("no token", hint="set ISOPOD_TOKEN, or give it with --token-stdin")
    if not token or not token.isascii() or not token.isprintable():
        raise UsageError("the token is empty or holds characters that no token has")
    return token
