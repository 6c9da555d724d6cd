"""Instants as people type them. Pure but for the clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from streams.durations import parse_duration_ms
from streams.errors import InvalidInput
from streams.records import now

_AGO = re.compile(r"(?P<duration>.+?)\s+ago", re.IGNORECASE)


def moment(text: str, clock: datetime | None = None) -> datetime:
    """An instant: RFC 3339 (without a zone it is UTC, without a time midnight), `10m ago` or `10m`, `now`, `today`, `yesterday`.

    `clock`: now. Raises `InvalidInput` (`time.invalid`).
    """
    clock = now() if clock is None else clock
    stripped = text.strip()
    midnight = clock.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": clock, "today": midnight, "yesterday": midnight - timedelta(days=1)}.get(stripped.lower())
    if named is not None:
        return named
    try:
        found = datetime.fromisoformat(stripped.upper().replace(" ", "T", 1)) if "-" in stripped else None
        if found is not None:
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        ago = _AGO.fullmatch(stripped)
        return clock - timedelta(milliseconds=parse_duration_ms(ago["duration"] if ago else stripped))
    except (ValueError, OverflowError, InvalidInput):
        raise InvalidInput(
            "time.invalid", f"{text!r} is neither an instant (2026-01-31T12:00:00Z, 2026-01-31) nor a time ago (10m, 24h ago)."
        ) from None
