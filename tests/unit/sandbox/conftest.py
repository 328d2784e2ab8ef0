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
