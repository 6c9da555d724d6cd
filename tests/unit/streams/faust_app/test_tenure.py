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


def test_it_holds_from_an_assignment_on_as_long_as_heartbeats_are_answered(tenure: Tenure, clock: Clock) -> None:
    assert not tenure.holds
    tenure.begin()
    clock.now_s += 8.9
    assert tenure.holds
    tenure.heard(clock.now_s - 2.0)
    clock.now_s += 6.9
    assert tenure.holds
    clock.now_s += 0.2
    assert not tenure.holds


def test_what_was_about_to_be_sent_when_the_process_was_stopped_stays_here(tenure: Tenure, clock: Clock) -> None:
    tenure.begin()
    generation = tenure.generation
    tenure.check(generation)
    clock.now_s += 9.1
    with pytest.raises(Lapsed):
        tenure.check(generation)
    tenure.begin()
    with pytest.raises(Lapsed):
        tenure.check(generation)
    tenure.check(tenure.generation)


async def test_a_rebalance_waits_for_what_is_under_way_and_lets_nothing_begin(tenure: Tenure) -> None:
    tenure.begin()
    begun, go_on = asyncio.Event(), asyncio.Event()
    acted: list[int] = []

    async def act() -> None:
        async with tenure.act() as generation:
            tenure.check(generation)
            begun.set()
            await go_on.wait()
            tenure.check(generation)
            acted.append(generation)

    first = asyncio.create_task(act())
    await begun.wait()
    ending = asyncio.create_task(tenure.end())
    await asyncio.sleep(0)
    second = asyncio.create_task(act())
    await asyncio.sleep(0)
    assert (ending.done(), tenure.holds) == (False, False)
    go_on.set()
    await asyncio.gather(first, ending)
    assert acted == [1]
    assert not second.done()
    tenure.begin()
    await second
    assert acted == [1, tenure.generation]
