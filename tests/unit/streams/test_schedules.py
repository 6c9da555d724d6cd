"""Cron schedules: expressions, time zones, clocks that are put forward and back, and the latest of very many instants."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import InvalidInput
from streams.records import from_micros, to_micros
from streams.schedules import Cron, check_expression, zone_of

BERLIN = "Europe/Berlin"
MINUTE_US = 60_000_000


def at(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))


def local(cron: Cron, after: str, count: int) -> list[str]:
    """The next instants as local times with their offsets."""
    found, time_us = [], at(after)
    for _ in range(count):
        time_us = cron.next_after(time_us)
        found.append(from_micros(time_us).astimezone(zone_of(cron.timezone)).strftime("%d %H:%M %z"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 9 * * MON-FRI", ["02 09:00 +0000", "05 09:00 +0000"]),
        ("@daily", ["02 00:00 +0000", "03 00:00 +0000"]),
        ("@Weekly", ["04 00:00 +0000", "11 00:00 +0000"]),
        ("*/20 10 * * *", ["01 10:00 +0000", "01 10:20 +0000", "01 10:40 +0000", "02 10:00 +0000"]),
        ("0 0 L * *", ["31 00:00 +0000", "28 00:00 +0000"]),
        ("0 12 * * 5#2", ["09 12:00 +0000", "13 12:00 +0000"]),
    ],
)
def test_the_times_that_an_expression_names(expression: str, expected: list[str]) -> None:
    assert local(Cron.checked(expression), "2026-01-01T09:30:00+00:00", len(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "0 25 * * *", "*/0 * * * *", "R R * * *", "H * * * *", "0 0 30 2 *", "@reboot", "soon",
     "0 9 * * MON FRI", "0 0 * * FUN", "0" * 300, "\x00 * * * *", "٣ * * * *"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_expression(text)
    assert refused.value.code == "cron.invalid"


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe/", "Europe", "x" * 5000, "a\x00b"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Cron.checked("@daily", name)
    assert refused.value.code == "timezone.unknown"


def test_a_time_of_day_that_is_left_out_runs_when_clocks_are_put_forward() -> None:
    assert local(Cron.checked("30 2 * * *", BERLIN), "2026-03-28T00:00:00+00:00", 3) == [
        "28 02:30 +0100",
        "29 03:00 +0200",
        "30 02:30 +0200",
    ]
    # Two that fall on the same moment are one.
    assert local(Cron.checked("15,30 2,3 * * *", BERLIN), "2026-03-29T00:00:00+00:00", 3) == [
        "29 03:00 +0200", "29 03:15 +0200", "29 03:30 +0200",
    ]  # fmt: skip


def test_a_time_of_day_that_comes_twice_runs_the_first_time() -> None:
    assert local(Cron.checked("30 2 * * *", BERLIN), "2026-10-24T12:00:00+00:00", 2) == ["25 02:30 +0200", "26 02:30 +0100"]
    # Also when asked between the two.
    assert local(Cron.checked("30 2 * * *", BERLIN), "2026-10-25T01:15:00+00:00", 1) == ["26 02:30 +0100"]


@pytest.mark.parametrize(
    ("zone", "begin"),
    [
        (BERLIN, "2026-03-28T12:00:00"),
        (BERLIN, "2026-10-24T12:00:00"),
        ("America/St_Johns", "2026-11-01T00:00:00"),
        ("UTC", "2026-10-24T12:00:00"),
    ],
)
def test_an_interval_goes_on_in_real_time_over_a_change_of_clocks(zone: str, begin: str) -> None:
    instants = list(Cron.checked("*/15 * * * *", zone).instants(at(begin + "+00:00"), at(begin + "+00:00") + 24 * 60 * MINUTE_US))
    assert len(instants) == 96
    assert {after - before for before, after in pairwise(instants)} == {15 * MINUTE_US}


def test_the_latest_of_very_many_instants_is_found() -> None:
    cron = Cron.checked("* * * * *")
    assert cron.latest(at("2016-01-01T00:00:00+00:00"), at("2026-01-01T00:00:30+00:00")) == at("2026-01-01T00:00:00+00:00")
    assert cron.latest(at("2026-01-01T00:00:01+00:00"), at("2026-01-01T00:00:30+00:00")) is None


_EXPRESSIONS = st.sampled_from(["*/7 * * * *", "0 2 * * *", "30 1,2,3 * * *", "0 */3 * * SUN", "59 23 31 12 *", "5 4 * * *", "@hourly"])
_ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu"])
_TIMES = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)).map(lambda time: to_micros(time.replace(tzinfo=UTC)))


@settings(deadline=None, max_examples=60)
@given(expression=_EXPRESSIONS, zone=_ZONES, time_us=_TIMES)
def test_instants_come_later_and_do_not_depend_on_when_one_asks(expression: str, zone: str, time_us: int) -> None:
    cron = Cron.checked(expression, zone)
    found = cron.next_after(time_us)
    assert found > time_us
    # Whoever asks at any moment before it hears of the same instant: a successor fires what its predecessor would have.
    assert cron.next_after((time_us + found) // 2) == found
    assert cron.next_after(found - 1) == found
    assert cron.latest(time_us, found) == found
    # Local clocks show whole minutes; a change of clocks aside they show a time of the expression.
    assert from_micros(found).astimezone(zone_of(zone)).second == 0


@settings(deadline=None, max_examples=60)
@given(expression=_EXPRESSIONS, zone=_ZONES, time_us=_TIMES)
def test_the_latest_is_the_last_of_all(expression: str, zone: str, time_us: int) -> None:
    cron = Cron.checked(expression, zone)
    until_us = time_us + 9 * 60 * MINUTE_US
    assert cron.latest(time_us, until_us) == max(cron.instants(time_us, until_us), default=None)
