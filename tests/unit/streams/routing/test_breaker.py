"""When a destination is left alone, and when not."""

from __future__ import annotations

from streams.routing.breaker import KEYS_MAX, LEAST_MS, PAUSE_MS, PAUSE_MS_MAX, Breaker


def opened(breaker: Breaker, now_ms: int = 0) -> int:
    """When it is open, after as many keys have failed as it takes."""
    for number in range(KEYS_MAX):
        assert not breaker.failed(now_ms, b"%d" % number)
    assert breaker.failed(now_ms + LEAST_MS, b"0")
    return now_ms + LEAST_MS


def test_it_opens_when_many_keys_have_failed_and_lets_one_attempt_through() -> None:
    breaker = Breaker()
    now_ms = opened(breaker)
    assert not breaker.failed(now_ms, b"under way then")
    assert breaker.next_ms(now_ms) == now_ms + PAUSE_MS
    assert (breaker.most(now_ms + PAUSE_MS - 1, 8), breaker.most(now_ms + PAUSE_MS, 8)) == ((0, 0), (1, 1))
    now_ms += PAUSE_MS
    assert not breaker.failed(now_ms, b"0")
    assert (breaker.most(now_ms + 2 * PAUSE_MS - 1, 8)[0], breaker.most(now_ms + 2 * PAUSE_MS, 8)[0]) == (0, 1)
    assert breaker.succeeded()
    assert (breaker.most(0, 8), breaker.next_ms(0)) == ((8, 8), None)


def test_what_comes_for_the_first_time_is_tried_sooner() -> None:
    breaker = Breaker()
    now_ms = opened(breaker)
    for _ in range(8):
        now_ms = breaker.open_until_ms or 0
        assert not breaker.failed(now_ms, b"0")
    assert breaker.most(now_ms + PAUSE_MS - 1, 8) == (0, 0)
    assert breaker.most(now_ms + PAUSE_MS, 8) == (0, 1)
    assert breaker.next_ms(now_ms) == now_ms + PAUSE_MS
    until_ms = breaker.open_until_ms
    assert not breaker.failed(now_ms + PAUSE_MS, b"new")
    assert breaker.open_until_ms == until_ms, "it does not put off what waits"
    assert until_ms is not None
    assert breaker.next_ms(now_ms + 2 * PAUSE_MS) == until_ms, (
        "what comes for the first time could have been attempted already, and was not"
    )
    assert breaker.next_ms(until_ms) is None
    assert breaker.most(now_ms + PAUSE_MS + 1, 8) == (0, 0)


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    breaker, pauses = Breaker(), list[int]()
    now_ms = opened(breaker)
    for _ in range(10):
        assert breaker.open_until_ms is not None
        pauses.append(breaker.open_until_ms - now_ms)
        now_ms = breaker.open_until_ms
        assert not breaker.failed(now_ms, b"x")
    assert pauses == [1000, 2000, 4000, 8000, 16_000, *[PAUSE_MS_MAX] * 5]
    breaker.succeeded()
    now_ms = opened(breaker, now_ms)
    assert breaker.open_until_ms == now_ms + PAUSE_MS


def test_some_keys_that_fail_for_ever_do_not_open_it_nor_do_many_that_fail_at_once() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(number, b"%d" % (number % (KEYS_MAX - 1))) for number in range(10 * LEAST_MS))
    breaker.succeeded()
    assert not any(breaker.failed(0, b"%d" % number) for number in range(100 * KEYS_MAX))
    assert breaker.most(0, 8) == (8, 8)


def test_a_success_between_says_that_the_destination_is_there() -> None:
    breaker = Breaker()
    for number in range(LEAST_MS // 10 * KEYS_MAX):
        assert not breaker.failed(10 * number, b"%d" % number)
        if number % (KEYS_MAX - 1) == 0:
            assert not breaker.succeeded()
