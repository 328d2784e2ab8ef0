"""The real control process, over the stub builder and without runtimes."""

import os
import sys

from isopod import runtimes
from isopod.control import builds, renewing
from isopod.runtimes.registry import Registry
from isopod.server import control_process

builds.BUILDER = "stub_builder"
runtimes.known = lambda: Registry({})


async def nothing(*_: object) -> None:
    """The stub builder's apps have no snapshot, and shall have none."""


renewing.Renewing.round = nothing
status = control_process.main()
sys.stderr.flush()
os._exit(status)
