"""The tenure of a worker: what it may send, and when."""

from __future__ import annotations

import asyncio

import pytest

from streams.faust_app.tenure import Lapsed, Tenure


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tenure(clock: Clock) -> Tenure:
    return Tenure(10.0, clock)


def begun(tenure: Tenure, group_generation: int, heard_s: float) -> None:
    """Partitions were assigned, and what was held before was let go."""
    tenure.heard(heard_s)
    tenure.begin(group_generation)
    tenure.renew()
    assert tenure.serve(tenure.generation)


def test_it_holds_from_an_assignment_on_as_long_as_the_group_answers(tenure: Tenure, clock: Clock) -> None:
    assert not tenure.holds
    begun(tenure, 1, clock.now_s)
    clock.now_s += 8.9
    assert tenure.holds
    tenure.heard(clock.now_s - 2.0)
    clock.now_s += 6.9
    assert tenure.holds
    clock.now_s += 0.2
    assert not tenure.holds


def test_an_assignment_that_is_seen_long_after_it_was_asked_for_gives_nothing(tenure: Tenure, clock: Clock) -> None:
    tenure.heard(clock.now_s)
    clock.now_s += 12.0
    tenure.begin(1)
    tenure.renew()
    tenure.serve(tenure.generation)
    assert (tenure.holds, tenure.leased) == (False, False)


def test_what_was_about_to_be_sent_when_the_process_was_stopped_stays_here(tenure: Tenure, clock: Clock) -> None:
    begun(tenure, 1, clock.now_s)
    generation = tenure.generation
    tenure.check(generation)
    clock.now_s += 9.1
    with pytest.raises(Lapsed):
        tenure.check(generation)
    begun(tenure, 2, clock.now_s)
    with pytest.raises(Lapsed):
        tenure.check(generation)
    tenure.check(tenure.generation)


def test_nothing_is_begun_before_what_is_no_longer_held_was_let_go(tenure: Tenure, clock: Clock) -> None:
    begun(tenure, 1, clock.now_s)
    first = tenure.generation
    tenure.begin(2)
    assert (tenure.holds, tenure.leased, tenure.broken) == (False, False, False)
    assert not tenure.serve(first), "that assignment is over"
    assert tenure.serve(tenure.generation)
    assert tenure.holds


@pytest.mark.parametrize(("then", "broken"), [(7, False), (8, False), (9, True), (6, True), (1, True)])
def test_who_was_not_in_every_generation_of_the_group_lets_go_of_everything(tenure: Tenure, clock: Clock, then: int, broken: bool) -> None:
    begun(tenure, 7, clock.now_s)
    tenure.begin(then)
    assert tenure.broken == broken
    assert tenure.serve(tenure.generation) == (not broken)
    tenure.begin(then + 1)
    assert tenure.broken == broken, "until it has done so"
    tenure.renew()
    assert tenure.serve(tenure.generation)


async def test_what_was_let_go_of_at_a_rebalance_may_still_be_written_down(tenure: Tenure, clock: Clock) -> None:
    begun(tenure, 1, clock.now_s)
    await tenure.end()
    assert (tenure.holds, tenure.leased) == (False, True)
    tenure.check(tenure.generation)
    clock.now_s += 9.1
    with pytest.raises(Lapsed):
        tenure.check(tenure.generation)


async def test_a_rebalance_waits_for_what_is_under_way_and_lets_nothing_begin(tenure: Tenure, clock: Clock) -> None:
    begun(tenure, 1, clock.now_s)
    started, go_on = asyncio.Event(), asyncio.Event()
    acted: list[int] = []

    async def act() -> None:
        async with tenure.act() as generation:
            tenure.check(generation)
            started.set()
            await go_on.wait()
            tenure.check(generation)
            acted.append(generation)

    first = asyncio.create_task(act())
    await started.wait()
    ending = asyncio.create_task(tenure.end())
    await asyncio.sleep(0)
    second = asyncio.create_task(act())
    await asyncio.sleep(0)
    assert (ending.done(), tenure.holds) == (False, False)
    go_on.set()
    await asyncio.gather(first, ending)
    assert acted == [1]
    assert not second.done()
    begun(tenure, 2, clock.now_s)
    await second
    assert acted == [1, tenure.generation]
