"""When the worker gathers fetches, and when it does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.faust_app.pacing import BURST_RECORDS, GATHER_S, LARGE_FETCH_RECORDS, RECORDS_PER_SECOND, Pacing


def test_few_records_are_handled_at_once() -> None:
    """Given a hundred records a second, one per fetch, when they come for a minute, then no fetch is held up."""
    pacing = Pacing()
    for number in range(6000):
        now_s = number / 100
        assert pacing.pause_s(now_s) == 0
        pacing.fetched(1, now_s)


def test_a_steady_stream_of_small_fetches_is_gathered_until_it_ends() -> None:
    """Given twice the records that are handled at once, when the burst is used up, then fetches are gathered; after a second's rest not."""
    pacing = Pacing()
    step_s = 2 / (2 * RECORDS_PER_SECOND)
    paused = 0
    for number in range(1000):
        paused += pacing.pause_s(number * step_s) > 0
        pacing.fetched(2, number * step_s)
    assert paused > 500
    assert pacing.pause_s(1000 * step_s) == GATHER_S
    assert pacing.pause_s(1000 * step_s + 1) == 0


def test_large_fetches_are_never_held_up() -> None:
    """Given fetches as large as they come under full load, when they follow each other, then none is held up."""
    pacing = Pacing()
    for number in range(100):
        pacing.fetched(LARGE_FETCH_RECORDS, number / 1000)
        assert pacing.pause_s(number / 1000) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20_000))))
def test_whatever_came_a_rest_makes_it_prompt_again(fetches: list[tuple[float, int]]) -> None:
    """Given any fetches, when nothing came for the time in which the whole budget refills, then the next fetch is taken at once."""
    pacing = Pacing()
    now_s = 0.0
    for gap_s, records in fetches:
        now_s += gap_s
        pacing.fetched(records, now_s)
    assert pacing.pause_s(now_s + 2 * BURST_RECORDS / RECORDS_PER_SECOND) == 0
