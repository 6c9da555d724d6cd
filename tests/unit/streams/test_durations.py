"""`streams.durations`: what people write, in milliseconds, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.durations import DURATION_MS_MAX, format_duration, parse_duration_ms
from streams.errors import InvalidInput


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ("250ms", 250), ("30s", 30_000), ("1.5s", 1500), ("5m", 300_000), ("1h", 3_600_000), ("7d", 604_800_000),
        (0, 0), (5, 5), ("5", 5), (5.0, 5), ("PT5M", 300_000), ("P1DT12H", 129_600_000), ("P2W", 1_209_600_000),
        ("PT0.25S", 250), ("PT0,5S", 500), ("0.1s", 100), (DURATION_MS_MAX, DURATION_MS_MAX),
    ],
)  # fmt: skip
def test_reads_every_form(written: str | int, milliseconds: int) -> None:
    assert parse_duration_ms(written) == milliseconds


@pytest.mark.parametrize(
    "written",
    [
        "", "P", "PT", "P1DT", "1y", "P1Y", "P1M", "-5s", -1, True, False, 1.5, "1.0001ms", "5 minutes", "1h30m", "٣s", "1e3",
        float("nan"), float("inf"), "9" * 60, "9" * 5000, DURATION_MS_MAX + 1, None, [], {"ms": 1},
    ],
)  # fmt: skip
def test_refuses_what_has_no_meaning(written: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_duration_ms(written)
    assert refused.value.code == "duration.invalid"


@given(st.one_of(st.text(), st.integers(), st.floats(), st.from_regex(r"P?T?[0-9.,]{1,9}[a-zA-Z]{0,2}")))
def test_any_value_is_a_duration_or_refused(written: Any) -> None:
    try:
        milliseconds = parse_duration_ms(written)
    except InvalidInput:
        return
    assert 0 <= milliseconds <= DURATION_MS_MAX


def test_a_number_too_long_to_print_is_refused() -> None:
    with pytest.raises(InvalidInput):
        parse_duration_ms(10**5000)


@given(st.integers(0, DURATION_MS_MAX))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    assert parse_duration_ms(format_duration(milliseconds)) == milliseconds
