"""What the control process gives up. It keeps what it needs to start builders: other programs, and
the network that dependencies come from. It runs no guest and maps no memory image.
"""

from __future__ import annotations

from isopod.sandbox import kernel, privileges
from isopod.sandbox.features import Features


def give_up_privileges(features: Features) -> None:
    """While it has one thread. Its builders inherit all of it."""
    privileges.no_traces()
    if features.no_new_privs:
        privileges.no_new_privileges()
    kernel.drop_capabilities(features.last_capability)
