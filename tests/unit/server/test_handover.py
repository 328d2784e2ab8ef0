import subprocess
import sys

import pytest

from isopod.sandbox.features import probe
from isopod.server.handover import Handover
from isopod.settings import NodeSettings

TAKE = (
    "import os\nfrom isopod.server.handover import Handover\nfound = Handover.take()\n"
    "print(found.settings.port, found.features.kernel, os.readlink('/proc/self/fd/0'))"
)


def run(handed: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", TAKE], check=False, input=handed, capture_output=True
    )


def test_a_child_takes_what_it_is_handed_once(tmp_path):
    features = probe()
    handed = Handover(NodeSettings(data_dir=tmp_path, port=4321), features)
    done = run(handed.to_bytes())
    assert done.stdout.decode().split() == ["4321", features.kernel, "/dev/null"]


@pytest.mark.parametrize("handed", [b"", b"rubbish"])
def test_a_child_that_nobody_started_properly_says_so(handed):
    done = run(handed)
    assert done.returncode
    assert b"only `isopod up` starts this" in done.stderr
