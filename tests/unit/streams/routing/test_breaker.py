"""When a destination is left alone, and when not."""

from __future__ import annotations

from streams.routing.breaker import KEYS_MAX, PAUSE_MS, PAUSE_MS_MAX, Breaker


def test_it_opens_when_many_keys_have_failed_and_lets_one_attempt_through() -> None:
    breaker = Breaker()
    assert [breaker.failed(0, b"%d" % number) for number in range(KEYS_MAX)] == [False] * (KEYS_MAX - 1) + [True]
    assert not breaker.failed(0, b"under way then")
    assert (breaker.most(PAUSE_MS - 1, 8), breaker.most(PAUSE_MS, 8)) == (0, 1)
    assert not breaker.failed(PAUSE_MS, b"0")
    assert (breaker.most(3 * PAUSE_MS - 1, 8), breaker.most(3 * PAUSE_MS, 8)) == (0, 1)
    assert breaker.succeeded()
    assert breaker.most(0, 8) == 8


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    breaker, now_ms, pauses = Breaker(), 0, list[int]()
    for number in range(KEYS_MAX + 9):
        if breaker.failed(now_ms, b"%d" % number) or breaker.open_until_ms is not None:
            assert breaker.open_until_ms is not None
            pauses.append(breaker.open_until_ms - now_ms)
            now_ms = breaker.open_until_ms
    assert pauses == [1000, 2000, 4000, 8000, 16_000, *[PAUSE_MS_MAX] * 5]
    breaker.succeeded()
    assert [breaker.failed(now_ms, b"%d" % number) for number in range(KEYS_MAX)][-1]
    assert breaker.open_until_ms == now_ms + PAUSE_MS


def test_keys_that_fail_for_ever_do_not_hold_up_the_others() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(0, b"%d" % (number % (KEYS_MAX - 1))) for number in range(10 * KEYS_MAX))
    assert breaker.most(0, 8) == 8


def test_a_success_between_says_that_the_destination_is_there() -> None:
    breaker = Breaker()
    for number in range(3 * KEYS_MAX):
        assert not breaker.failed(0, b"%d" % number)
        if number % (KEYS_MAX - 1) == 0:
            assert not breaker.succeeded()
