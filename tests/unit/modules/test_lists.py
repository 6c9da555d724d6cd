"""Lists over all partitions: merged in order, paged, and honest about what is missing."""

from __future__ import annotations

import orjson
import pytest

from services.modules.gather.decide import key_in
from services.modules.gather.evolve import evolve
from services.modules.gather.state import Gathering, QueryAnswered, QueryAsked
from services.modules.operation import Caller, adapter
from streams.limits import GATHER_MS, GATHER_TIMES, PAYLOAD_BYTES_MAX
from streams.topics import home_of, partition_of
from tests.unit.modules.world import Refused, World


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


@pytest.mark.parametrize("partitions", [1, 3])
def test_pages_are_shorter_where_entries_are_large(partitions: int) -> None:
    """An answer holds 1 MiB: what does not fit comes with the next page, and no partition counts as silent for it."""
    world = World(partitions=partitions)
    made = [
        world.call("context", "create-context", name="room", metadata={"text": "x" * size}, home=home)["contextId"]
        for home, size in zip(names(18), (300_000, 10, 200_000) * 6, strict=True)
    ]
    seen: list[str] = []
    after = ""
    while after is not None:
        page = world.call("context", "list-contexts", after=after, home="anybody")
        assert (page["total"], page["complete"]) == (18, True)
        assert page["contexts"] != []
        seen += [each["contextId"] for each in page["contexts"]]
        after = page["next"]
    assert seen == sorted(made)


def test_an_entry_that_fills_an_answer_is_listed_by_itself_or_told_as_missing() -> None:
    """As large as a context may be: the events that keep its partition's answer are records nevertheless."""
    world = World(partitions=2)
    home = next(each for each in names(9) if partition_of(each, 2) != partition_of("anybody", 2))
    room = world.call("context", "create-context", name="room", home=home)
    spare = PAYLOAD_BYTES_MAX - len(orjson.dumps({**room, "metadata": {"text": ""}}))
    world.call("context", "update-context", contextId=room["contextId"], metadata={"text": "x" * (spare - 60_000)})
    assert [each["contextId"] for each in world.call("context", "list-contexts", home="anybody")["contexts"]] == [room["contextId"]]
    envelope = len(orjson.dumps({"total": 1, "next": None, "complete": False, "missingPartitions": [0], "contexts": []}))
    world.call("context", "update-context", contextId=room["contextId"], metadata={"text": "x" * (spare - envelope)})
    listed = world.call("context", "list-contexts", home="anybody")
    assert (listed["contexts"], listed["missingPartitions"]) == ([], [partition_of(home, 2)])


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


@pytest.mark.parametrize(
    ("own_s", "due_s"),
    [(0.1, GATHER_MS / 1000), (1.5, 1.5 * GATHER_TIMES), (20, 25)],
    ids=["quick", "slow", "as the caller"],
)
def test_the_others_have_several_times_as_long_as_the_own_partition_took(own_s: float, due_s: float) -> None:
    asked = QueryAsked(
        caller=Caller(request_id="r", target_module="context", operation="list-contexts", source_module="bus"), parameters={},
        partitions=4, partition=2, end_us=25_000_000,
    )  # fmt: skip
    state = evolve(None, asked, "home/gathering", 0)
    assert state is not None
    assert state.due_us == 25_000_000, "it lives, so it is waited for"
    other = evolve(state, QueryAnswered(partition=1, answer={}), "home/gathering", 50_000)
    assert other is not None
    assert other.due_us == 25_000_000
    own = evolve(other, QueryAnswered(partition=2, answer={}), "home/gathering", int(own_s * 1e6))
    assert own is not None
    assert own.due_us == due_s * 1e6


def test_what_is_refused_is_told_as_it_is(world: World) -> None:
    with pytest.raises(Refused, match=r"module\.unknown") as refused:
        world.call("hub", "checksum", module="ghost", home="anybody")
    assert refused.value.pointer == "/module"
    assert not [state for runner in world.modules for state in runner.view.aggregates.values() if isinstance(state, Gathering)]


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


def test_logs_from_before_the_own_partition_was_asked_like_the_others_are_read() -> None:
    """There the own answer was part of the question; without it no owner of such a log could begin."""
    caller = {"request_id": "r", "source_module": "bus", "target_module": "context", "operation": "list-contexts"}
    early = {"caller": caller, "parameters": {"limit": 5}, "partitions": 3, "partition": 1, "answer": {"total": 2}, "due_us": 7}
    gathering = evolve(None, adapter(QueryAsked).validate_python(early), "home/gathering-1", 5)
    assert gathering is not None
    assert (gathering.answers, gathering.due_us) == ({"1": {"total": 2}}, 7)
    refused = evolve(gathering, QueryAnswered(partition=2, answer=None), "home/gathering-1", 6)
    assert refused is not None
    assert (refused.answers, refused.due_us) == ({"1": {"total": 2}, "2": None}, 7)
