import socket
from collections.abc import Iterator

import pytest

from isopod.sandbox.features import NAMESPACES, Features


@pytest.fixture
def everything() -> Features:
    """A kernel that has all that the sandbox would use."""
    return Features(
        kernel="6.18",
        no_new_privs=True,
        seccomp=True,
        libseccomp="2.5.4",
        landlock_abi=7,
        landlock_why="",
        namespaces=dict.fromkeys(NAMESPACES, ""),
        last_capability=40,
        capabilities_held=0,
    )


@pytest.fixture
def unused_server() -> Iterator[int]:
    """The port of a server that nobody serves: connections wait in its backlog."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made.getsockname()[1]
