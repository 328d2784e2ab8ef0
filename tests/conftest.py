"""What tests of several packages share."""

from pathlib import Path

import pytest

from isopod import runtimes
from isopod.settings import NodeSettings


@pytest.fixture(scope="session")
def prepared_cache() -> Path:
    """The cache of this machine with the Python runtime in it; a minute where it is new."""
    cache_dir = NodeSettings.load().cache_dir
    runtimes.prepare("python", cache_dir, lambda *_: None)
    return cache_dir
