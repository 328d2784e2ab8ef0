"""Options that many commands share, and the client they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isopod.settings import ClientSettings

if TYPE_CHECKING:
    from isopod.client import Client

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="D", help="The node's folder, else ISOPOD_DATA_DIR."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The app's name.")]


def connect(data_dir: Path | None) -> Client:
    """The client of the node that the options and the environment mean."""
    from isopod.client import Client, find_node

    return Client(find_node(ClientSettings.load(data_dir)))
