"""What answers mean, and how long to wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.webhooks.outcomes import DELAY_MS_MAX, RETRY_AFTER_MS_MAX, Answer, Delivered, Failed, delay_ms, outcome_of, retry_after_ms

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def of(status: int, excerpt: str = "", **headers: str) -> Delivered | Failed:
    return outcome_of(Answer(status=status, headers=headers, excerpt=excerpt), NOW)


def test_any_2xx_is_a_delivery() -> None:
    assert all(of(status) == Delivered() for status in (200, 201, 202, 204, 299))


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (301, "webhook.redirected", False), (308, "webhook.redirected", False), (400, "webhook.refused", False),
        (401, "webhook.refused", False), (404, "webhook.refused", False), (410, "webhook.refused", False), (408, "webhook.failed", True),
        (425, "webhook.failed", True), (429, "webhook.failed", True), (500, "webhook.failed", True), (503, "webhook.failed", True),
    ],
)  # fmt: skip
def test_other_answers(status: int, code: str, retryable: bool) -> None:
    failed = of(status, "no such thing")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == (code, retryable)
    assert str(status) in failed.message


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("3", 3000), (" 0 ", 0), ("3600", 3_600_000), ("999999999999", RETRY_AFTER_MS_MAX), ("9" * 5000, RETRY_AFTER_MS_MAX),
        ("Tue, 01 Jan 2030 00:00:00 GMT", RETRY_AFTER_MS_MAX), ("Thu, 01 Jan 2026 12:00:05 GMT", 5000),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0), ("soon", None), ("-1", None), ("", None), ("½", None), (None, None),
    ],
)  # fmt: skip
def test_retry_after(value: str | None, ms: int | None) -> None:
    assert retry_after_ms(value, NOW) == ms


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} ([+-][0-9]{1,9}|GMT)"))
def test_whatever_stands_there_is_a_wait_within_bounds_or_none(value: str) -> None:
    found = retry_after_ms(value, NOW)
    assert found is None or 0 <= found <= DELAY_MS_MAX


def test_what_the_receiver_asks_for_is_waited_for() -> None:
    failed = outcome_of(Answer(status=429, headers={"retry-after": "7"}), NOW)
    assert isinstance(failed, Failed)
    assert failed.after_ms == 7000
    assert delay_ms("k", 1, 500, failed.after_ms) == 7000


def test_what_waits_in_a_worker_waits_no_longer_than_the_bound_whatever_the_receiver_asks_for() -> None:
    assert delay_ms("k", 1, 500, RETRY_AFTER_MS_MAX) == DELAY_MS_MAX


@given(st.text(), st.integers(1, 60), st.integers(10, 60_000))
def test_waits_grow_threefold_up_to_a_bound_within_their_spread_and_are_the_same_again(key: str, attempt: int, initial_ms: int) -> None:
    middle = min(initial_ms * 3 ** (attempt - 1), DELAY_MS_MAX)
    found = delay_ms(key, attempt, initial_ms)
    assert 0.8 * middle - 1 <= found <= 1.2 * middle
    assert found == delay_ms(key, attempt, initial_ms)
