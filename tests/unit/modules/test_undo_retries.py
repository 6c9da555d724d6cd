"""All or nothing: what is to be undone is tried as often as it may be, and then reported as not undone."""

from __future__ import annotations

from typing import Any

import pytest

from streams.records import ModuleMessage
from streams.topics import partition_of
from tests.unit.modules.world import World

SELL: dict[str, Any] = {"id": "sell", "module": "shop", "operation": "sell", "retries": 2}
REFUND: dict[str, Any] = {"operation": "refund", "parameters": {"order": "${sell.result.order}"}}
BOOK: dict[str, Any] = {"id": "book", "module": "shop", "operation": "sell", "dependsOn": ["sell"]}
LONG_ENOUGH_S = 10.0  #: for any pause between two attempts here


@pytest.fixture
def world() -> World:
    world = World(partitions=3)
    world.call("hub", "register", module="shop", operations={"sell": {}, "refund": {}})
    return world


def undoing(world: World, **more: Any) -> str:
    """A coordination of which the second call has failed, so that the first is being undone; the id of its request."""
    asked = world.ask("hub", "coordinate", {"calls": [{**SELL, "compensate": {**REFUND, **more}}, BOOK], "allOrNothing": True})
    world.reply(world.elsewhere.pop(), {"order": "o-1"})
    world.reply(world.elsewhere.pop(), error="sold-out")
    return asked


def next_refund(world: World) -> ModuleMessage:
    (refund,) = world.elsewhere
    world.elsewhere.clear()
    assert (refund.operation, refund.data) == ("refund", {"order": "o-1"})
    return refund


def sale(world: World, asked: str) -> tuple[str, str, int, int]:
    """Of the whole and of the call that is undone: status; how often the latter was tried, and tried to be undone."""
    answer = world.answer_of(asked)
    call = answer["calls"][0]
    return answer["status"], call["status"], call["attempts"], call["undoAttempts"]


def test_an_undoing_that_fails_is_tried_again_as_often_as_the_call_is(world: World) -> None:
    asked = undoing(world)
    ids = set()
    for _ in range(2):
        refund = next_refund(world)
        ids.add(refund.id)
        world.reply(refund, error="unavailable")
        assert not world.elsewhere, "there is a pause before the next attempt"
        assert asked not in world.responses
        world.wait(LONG_ENOUGH_S)
    refund = next_refund(world)
    assert refund.id not in ids
    world.reply(refund, {})
    assert sale(world, asked) == ("compensated", "compensated", 1, 3)
    assert [event.data["error"]["code"] for event in world.events("hub.call-compensation-retried")] == ["unavailable"] * 2


def test_one_that_fails_too_often_is_reported_and_recorded(world: World) -> None:
    asked = undoing(world)
    for _ in range(3):
        world.reply(next_refund(world), error="till-jammed", retryable=True)
        world.wait(LONG_ENOUGH_S)
    assert not world.elsewhere
    assert sale(world, asked) == ("failed", "uncompensated", 1, 3)
    assert world.answer_of(asked)["calls"][0]["error"]["code"] == "till-jammed"
    (event,) = world.events("hub.call-uncompensated")
    assert event.data["error"]["code"] == "till-jammed"


def test_a_silent_module_is_asked_again(world: World) -> None:
    asked = undoing(world, retries=1)
    next_refund(world)
    world.wait(60)
    next_refund(world)
    world.wait(60)
    assert sale(world, asked) == ("failed", "uncompensated", 1, 2)
    assert world.answer_of(asked)["calls"][0]["error"]["code"] == "module.silent"


@pytest.mark.parametrize(("retries", "error"), [(2, "not-found"), (0, "unavailable")])
def test_what_cannot_pass_or_may_not_be_tried_again_is_not(world: World, retries: int, error: str) -> None:
    asked = undoing(world, retries=retries)
    world.reply(next_refund(world), error=error)
    assert sale(world, asked) == ("failed", "uncompensated", 1, 1)


@pytest.mark.parametrize("waited", [0.0, LONG_ENOUGH_S], ids=["before the next attempt", "during it"])
def test_an_attempt_that_says_late_that_it_was_done_ends_the_undoing(world: World, waited: float) -> None:
    asked = undoing(world)
    first = next_refund(world)
    world.wait(30)
    world.wait(waited)
    world.reply(first, {})
    assert sale(world, asked)[:2] == ("compensated", "compensated")
    second, world.elsewhere = world.elsewhere, []
    for refund in second:  # it was under way and is too late: nothing follows
        world.reply(refund, {})
    world.wait(60)
    assert not world.elsewhere
    assert len(world.events("hub.call-compensated")) == 1


def test_a_new_owner_tries_again_when_it_is_time(world: World) -> None:
    asked = undoing(world)
    world.reply(next_refund(world), error="unavailable")
    world.take_over(partition_of("hub", 3))
    assert not world.elsewhere
    world.wait(LONG_ENOUGH_S)
    world.reply(next_refund(world), {})
    assert sale(world, asked) == ("compensated", "compensated", 1, 2)


def test_each_success_that_is_undone_has_all_its_attempts(world: World) -> None:
    call = {**SELL, "retries": 1, "timeout": "5s", "compensate": {**REFUND, "parameters": {}}}
    asked = world.ask("hub", "coordinate", {"calls": [call], "allOrNothing": True, "timeout": "60s"})
    world.wait(30)
    sold, world.elsewhere = world.elsewhere, []
    assert len(sold) == 2
    for late in sold:
        world.reply(late, {"order": "o-1"})
        world.reply(world.elsewhere.pop(), error="unavailable")
        world.wait(1)
        world.reply(world.elsewhere.pop(), {})
    found = world.call("hub", "report", id=world.answer_of(asked)["coordinationId"])["coordination"]
    assert (found["status"], found["calls"][0]["undoAttempts"]) == ("compensated", 4)
