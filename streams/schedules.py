"""Cron schedules: which instants an expression of five fields names in a time zone. Pure; times are microseconds since the epoch.

An expression is local wall-clock time. Where clocks are put forward or back it means what Vixie cron made of it: an expression
whose hours begin with `*` goes on in real time (every quarter of an hour is every quarter of an hour); any other names times of
day, each of which comes once a day: one that is left out runs at the moment of the change, one that comes twice runs the first time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streams.errors import InvalidInput
from streams.records import from_micros, to_micros

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CHARACTERS_MAX = 200
#: What one field may be made of. croniter also knows `R`, a random number, and hashes: nothing that a second worker would repeat.
_FIELD = re.compile(r"(?:[0-9*/,#?-]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT|L)+", re.IGNORECASE)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_SECOND = timedelta(seconds=1)
#: Where the search for the latest instant begins; each further look goes back twice as far.
_LOOK_BACK_US = 60_000_000


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of a name of the IANA data base. Raises `InvalidInput` (`timezone.unknown`)."""
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(
            "timezone.unknown", f"There is no time zone {name[:60]!r}: write a name such as Europe/Berlin or UTC."
        ) from error


@dataclass(frozen=True)
class Cron:
    """A schedule: minute, hour, day of month, month, day of week (or `@daily` and its like), in a time zone."""

    expression: str
    timezone: str = "UTC"

    @classmethod
    def checked(cls, expression: str, timezone: str = "UTC") -> Cron:
        """The schedule. Raises `InvalidInput` (`cron.invalid`, `timezone.unknown`); one that never comes is invalid too."""
        zone_of(timezone)
        check_expression(expression)
        return cls(expression, timezone)

    def next_after(self, time_us: int) -> int:
        """The first instant after `time_us`. Raises `InvalidInput` (`cron.invalid`) if there is none within 50 years."""
        found = self._real(time_us) if self._goes_on else self._by_the_day(time_us)
        return to_micros(found)

    def instants(self, after_us: int, until_us: int) -> Iterator[int]:
        """All instants after `after_us` up to and with `until_us`."""
        while (after_us := self.next_after(after_us)) <= until_us:
            yield after_us

    def latest(self, after_us: int, until_us: int) -> int | None:
        """The last instant after `after_us` up to and with `until_us`; None: there is none. Cheap however long the time between is."""
        back_us = _LOOK_BACK_US
        while True:
            begin_us = max(after_us, until_us - back_us)
            found = max(self.instants(begin_us, until_us), default=None)
            if found is not None or begin_us == after_us:
                return found
            back_us *= 2

    @cached_property
    def _fields(self) -> str:
        return _ALIASES.get(self.expression.strip().lower(), self.expression)

    @property
    def _goes_on(self) -> bool:
        return self._fields.split()[1].startswith("*")

    def _real(self, time_us: int) -> datetime:
        """Real time: the local clock is followed up to its next change, and anew from there."""
        zone, since = zone_of(self.timezone), from_micros(time_us)
        begin = since
        while True:
            offset = _offset(since, zone)
            found = (_following(self._fields, (begin + offset).replace(tzinfo=None)) - offset).replace(tzinfo=UTC)
            changed = _change(zone, since, found)
            if changed is None:
                return found
            since, begin = changed, changed - _SECOND

    def _by_the_day(self, time_us: int) -> datetime:
        """Times of day, each once."""
        zone, at = zone_of(self.timezone), from_micros(time_us)
        local = at.astimezone(zone).replace(tzinfo=None)
        while True:
            local = _following(self._fields, local)
            found = local.replace(tzinfo=zone).astimezone(UTC)
            if found.astimezone(zone).replace(tzinfo=None) != local:  # clocks were put forward over it
                found = _change(zone, found - timedelta(days=1), found) or found
            if found > at:
                return found


def check_expression(text: str) -> None:
    """Raises `InvalidInput` (`cron.invalid`) if `text` is no expression that ever comes."""
    expression = _ALIASES.get(text.strip().lower(), text)
    fields = expression.split()
    if len(text) > _CHARACTERS_MAX or len(fields) != 5 or not all(_FIELD.fullmatch(field) for field in fields):
        raise InvalidInput(
            "cron.invalid", f"{text[:60]!r} is no cron expression: write minute hour day month weekday, such as 0 9 * * MON-FRI, or @daily."
        )
    _following(expression, datetime(2024, 1, 1))


def _following(expression: str, local: datetime) -> datetime:
    from croniter import croniter  # takes its time to load, and few workflows have a schedule

    try:
        found: datetime = croniter(expression, local).get_next(datetime)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("cron.invalid", f"{expression[:60]!r} is no cron expression that ever comes: {error}.") from error
    return found


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def _change(zone: ZoneInfo, begin: datetime, end: datetime) -> datetime | None:
    """When the zone's clocks change first after `begin` up to and with `end`, to the second; None: they do not."""
    before = _offset(begin, zone)
    at = begin
    while at < end:  # two changes may undo each other, never within a week
        step = min(at + timedelta(days=7), end)
        if _offset(step, zone) != before:
            low, high = at, step
            while high - low > _SECOND:
                middle = low + (high - low) // 2
                low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
            return high.replace(microsecond=0)
        at = step
    return None
