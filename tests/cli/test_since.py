import pytest

from isopod.cli.logs import parse_since
from isopod.errors import UsageError


@pytest.mark.parametrize(
    ("text", "at"),
    [("30s", 9970), ("10m", 9400), ("2h", 2800), ("1.5min", 9910), ("1d", 0)],
)
def test_a_span_counts_back_from_now(text, at):
    assert parse_since(text, 10_000) == at


def test_a_time_with_a_zone_is_that_moment():
    assert parse_since("1970-01-01T01:00:00+00:00", 0) == 3600


@pytest.mark.parametrize("text", ["soon", "10", "-5m", "10y", "2026-13-01"])
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="--since"):
        parse_since(text, 0)
