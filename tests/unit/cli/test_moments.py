"""Instants as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.cli.moments import moment
from streams.errors import InvalidInput

NOW = datetime(2026, 11, 23, 12, 30, 15, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T10:00:00Z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23T10:00:00.5+02:00", datetime(2026, 11, 23, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23T10:00:00", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23 10:00", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23t10:00:00z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("now", NOW),
        ("Today", datetime(2026, 11, 23, tzinfo=UTC)),
        ("yesterday", datetime(2026, 11, 22, tzinfo=UTC)),
        ("10m ago", NOW - timedelta(minutes=10)),
        ("1.5h AGO", NOW - timedelta(hours=1.5)),
        ("90s", NOW - timedelta(seconds=90)),
        (" PT1H ago ", NOW - timedelta(hours=1)),
    ],
)
def test_what_is_understood(text: str, expected: datetime) -> None:
    found = moment(text, NOW)
    assert (found, found.utcoffset()) == (expected, timedelta(0))


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-13-01", "2026-11-23T25:00", "ago", "-5m", "10 fortnights ago", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"time\.invalid"):
        moment(text, NOW)
