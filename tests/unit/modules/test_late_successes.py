"""All or nothing, and an answer that comes too late: what was done is undone, once."""

from __future__ import annotations

from typing import Any

import pytest

from streams.records import ModuleMessage
from streams.topics import partition_of
from tests.unit.modules.world import World

SELL: dict[str, Any] = {
    "id": "sell", "module": "shop", "operation": "sell", "timeout": "5s",
    "compensate": {"operation": "refund", "parameters": {"order": "${sell.result.order}"}},
}  # fmt: skip
ROOM: dict[str, Any] = {
    "id": "room", "module": "context", "operation": "create-context", "parameters": {"name": "x"},
    "compensate": {"operation": "delete-context", "parameters": {"contextId": "${room.result.contextId}"}},
}  # fmt: skip


@pytest.fixture
def world() -> World:
    world = World(partitions=3)
    world.call("hub", "register", module="shop", operations={"sell": {}, "refund": {}})
    return world


def timed_out(world: World, *calls: dict[str, Any]) -> tuple[dict[str, Any], list[ModuleMessage]]:
    """A coordination whose calls to the shop were not answered in time: its answer, and the requests that the shop still has."""
    asked = world.ask("hub", "coordinate", {"calls": list(calls), "allOrNothing": True, "mode": "parallel", "timeout": "60s"})
    world.wait(30)
    sold, world.elsewhere = world.elsewhere, []
    return world.answer_of(asked), sold


def report(world: World, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = world.call("hub", "report", id=answer["coordinationId"])["coordination"]
    return found


def calls_of(answer: dict[str, Any]) -> dict[str, tuple[str, int, int]]:
    return {call["id"]: (call["status"], call["attempts"], call["answeredLate"]) for call in answer["calls"]}


def test_a_success_that_comes_after_the_end_is_undone_once_with_its_result(world: World) -> None:
    answer, (sold,) = timed_out(world, SELL, ROOM)
    assert (answer["status"], calls_of(answer)) == ("compensated", {"sell": ("timed_out", 1, 0), "room": ("compensated", 1, 0)})
    for _ in range(3):  # an answer arrives at least once
        world.reply(sold, {"order": "o-1"})
    (refund,) = world.elsewhere
    assert (refund.operation, refund.data) == ("refund", {"order": "o-1"})
    assert report(world, answer)["status"] == "compensating"
    world.reply(refund, {})
    world.reply(sold, {"order": "o-1"})
    after = report(world, answer)
    assert (after["status"], calls_of(after)) == ("compensated", {"sell": ("compensated", 1, 1), "room": ("compensated", 1, 0)})
    assert [message.operation for message in world.elsewhere] == ["refund"]
    late = world.events("hub.answered-late")
    assert [(event.data["status"], event.data["owed"], event.data["result"]) for event in late] == [("success", True, {"order": "o-1"})]


def test_a_success_that_comes_while_others_still_run_is_undone_at_the_end(world: World) -> None:
    book = {"id": "book", "module": "shop", "operation": "sell"}
    asked = world.ask("hub", "coordinate", {"calls": [SELL, book], "allOrNothing": True, "timeout": "60s"})
    world.wait(5)
    sold, booked = world.elsewhere
    world.elsewhere = []
    world.reply(sold, {"order": "o-1"})
    assert world.elsewhere == []  # nothing is undone before it is known that the whole has failed, and nothing begins beside it
    world.reply(booked, error="sold-out")
    (refund,) = world.elsewhere
    world.reply(refund, {})
    answer = world.answer_of(asked)
    assert (answer["status"], calls_of(answer)) == ("compensated", {"sell": ("compensated", 1, 1), "book": ("failed", 1, 0)})


def test_what_cannot_be_undone_makes_the_whole_failed_when_it_is_known(world: World) -> None:
    call = {**SELL, "compensate": None}
    answer, (sold,) = timed_out(world, call, ROOM)
    assert answer["status"] == "compensated"
    world.reply(sold, {"order": "o-1"})
    after = report(world, answer)
    assert (after["status"], calls_of(after)["sell"], world.elsewhere) == ("failed", ("succeeded", 1, 1), [])


def test_each_attempt_that_succeeded_late_is_undone(world: World) -> None:
    answer, sold = timed_out(world, {**SELL, "retries": 1})
    assert (answer["status"], calls_of(answer), len(sold)) == ("failed", {"sell": ("timed_out", 2, 0)}, 2)
    for number, request in enumerate(sold):
        world.reply(request, {"order": f"o-{number}"})
    assert [message.data for message in world.elsewhere] == [{"order": "o-0"}]  # one after the other
    world.reply(world.elsewhere[0], {})
    world.reply(world.elsewhere[1], {})
    after = report(world, answer)
    assert [message.data for message in world.elsewhere] == [{"order": "o-0"}, {"order": "o-1"}]
    assert (after["status"], calls_of(after)) == ("compensated", {"sell": ("compensated", 2, 2)})


def test_an_undoing_that_is_told_late_counts(world: World) -> None:
    answer, (sold,) = timed_out(world, SELL)
    world.reply(sold, {"order": "o-1"})
    world.wait(5)
    assert (report(world, answer)["status"], calls_of(report(world, answer))["sell"][0]) == ("failed", "uncompensated")
    world.reply(world.elsewhere[0], {})
    assert (report(world, answer)["status"], calls_of(report(world, answer))["sell"]) == ("compensated", ("compensated", 1, 2))


def test_a_late_failure_and_a_late_success_of_what_is_not_all_or_nothing_change_nothing(world: World) -> None:
    answer, (sold,) = timed_out(world, SELL)
    world.reply(sold, error="broken")
    assert (report(world, answer)["status"], world.elsewhere) == ("failed", [])
    asked = world.ask("hub", "coordinate", {"calls": [SELL]})
    world.wait(5)
    world.reply(world.elsewhere.pop(), {"order": "o-2"})
    assert (world.answer_of(asked)["status"], world.elsewhere) == ("failed", [])
    assert [event.data["owed"] for event in world.events("hub.answered-late")] == [False, False]


def test_a_new_owner_goes_on_undoing_what_was_told_late(world: World) -> None:
    answer, (sold,) = timed_out(world, SELL, ROOM)
    world.reply(sold, {"order": "o-1"})
    first = world.elsewhere.pop()
    world.take_over(partition_of("hub", 3))
    again = world.elsewhere.pop()
    assert (again.id, again.data) == (first.id, first.data)
    world.reply(sold, {"order": "o-1"})
    assert world.elsewhere == []
    world.reply(again, {})
    assert report(world, answer)["status"] == "compensated"


def test_a_success_too_large_to_be_passed_on_is_undone(world: World) -> None:
    undo = {"operation": "refund", "parameters": {"sku": 1}}
    asked = world.ask("hub", "coordinate", {"calls": [{**SELL, "compensate": undo}], "allOrNothing": True})
    world.reply(world.elsewhere.pop(), {"order": "x" * 1_020_000})
    world.reply(world.elsewhere.pop(), {})
    answer = world.answer_of(asked)
    assert (answer["status"], calls_of(answer)["sell"][0]) == ("compensated", "compensated")
