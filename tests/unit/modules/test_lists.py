"""Lists over all partitions: merged in order, paged, and honest about what is missing."""

from __future__ import annotations

import pytest

from services.modules.gather.decide import key_in
from streams.limits import GATHER_MS
from streams.topics import home_of, partition_of
from tests.unit.modules.world import World


def names(number: int) -> list[str]:
    return [f"home-{each}" for each in range(number)]


@pytest.fixture
def world() -> World:
    world = World(partitions=4)
    for home in names(12):
        world.call("context", "create-context", name="room", type="even" if int(home[5:]) % 2 == 0 else "odd", home=home)
    return world


def test_a_list_has_what_lies_in_every_partition(world: World) -> None:
    listed = world.call("context", "list-contexts", home="anybody")
    assert sorted(home_of(each["contextId"]) for each in listed["contexts"]) == sorted(names(12))
    assert [each["contextId"] for each in listed["contexts"]] == sorted(each["contextId"] for each in listed["contexts"])
    assert (listed["total"], listed["complete"], listed["missingPartitions"], listed["next"]) == (12, True, [], None)


def test_pages_follow_each_other_without_gap_or_repeat(world: World) -> None:
    seen: list[str] = []
    after = ""
    while True:
        page = world.call("context", "list-contexts", limit=5, after=after, home="anybody")
        seen += [each["contextId"] for each in page["contexts"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert len(seen) == len(set(seen)) == 12


def test_filters_hold_everywhere(world: World) -> None:
    assert world.call("context", "list-contexts", type="odd", home="x")["total"] == 6
    assert world.call("context", "search-contexts", text="ROO", home="x")["total"] == 12


def test_what_does_not_answer_in_time_is_told(world: World) -> None:
    asked = partition_of("anybody", 4)
    world.away = {each for each in range(4) if each != asked}
    request = world.ask("context", "list-contexts", home="anybody")
    assert request not in world.responses
    world.wait(GATHER_MS / 1000)
    listed = world.answer_of(request)
    assert (listed["complete"], listed["missingPartitions"]) == (False, sorted(world.away))
    assert {partition_of(home_of(each["contextId"]), 4) for each in listed["contexts"]} == {asked}


def test_a_caller_in_a_hurry_gets_what_is_there(world: World) -> None:
    world.away = {each for each in range(4) if each != partition_of("anybody", 4)}
    request = world.ask("context", "list-contexts", home="anybody", timeout_s=0.5)
    world.wait(0.5)
    assert world.answer_of(request)["complete"] is False


def test_a_new_owner_asks_again_and_answers(world: World) -> None:
    asked = partition_of("anybody", 4)
    world.away = {each for each in range(4) if each != asked}
    request = world.ask("context", "list-contexts", home="anybody")
    world.away = set()
    world.take_over(asked)
    assert world.answer_of(request)["total"] == 12


def test_nothing_is_left_of_a_list(world: World) -> None:
    before = [dict(runner.view.aggregates) for runner in world.modules]
    world.call("context", "list-contexts", home="anybody")
    assert [dict(runner.view.aggregates) for runner in world.modules] == before


def test_a_list_of_one_context_asks_nobody_else(world: World) -> None:
    context = world.call("context", "list-contexts", limit=1)["contexts"][0]["contextId"]
    world.call("plan", "create-plan", contextId=context)
    world.away = {each for each in range(4) if each != partition_of(home_of(context), 4)}
    listed = world.call("plan", "list-plans", contextId=context, home=home_of(context))
    assert (listed["total"], listed["complete"]) == (1, True)


def test_a_key_for_every_partition() -> None:
    assert [partition_of(key_in(each, 7), 7) for each in range(7)] == list(range(7))
