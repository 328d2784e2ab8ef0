"""One runtime and one scheduler per file of snapshot tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.snapshots import Lab, laboratory


@pytest.fixture(scope="module")
def lab(prepared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with laboratory(prepared_cache, tmp_path_factory.mktemp("snapshots")) as made:
        yield made
