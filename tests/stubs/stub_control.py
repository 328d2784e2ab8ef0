"""The real control process, over the stub builder and without runtimes."""

import os
import sys

from isopod import runtimes
from isopod.control import builds
from isopod.server import control_process

builds.BUILDER = "stub_builder"
runtimes.names = tuple
status = control_process.main()
sys.stderr.flush()
os._exit(status)
