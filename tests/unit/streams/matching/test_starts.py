"""What events start: which definition an event belongs to, filters, ids that repeat, and loops that end."""

from __future__ import annotations

from typing import Any

import pytest

from streams import limits
from streams.definitions import definition_hash
from streams.matching.matchers import RecordView
from streams.matching.starts import REFUSED, Editions, Hit, StartIndex, outcome_of
from streams.records import SystemEvent, WorkflowCommand, from_micros
from streams.topics import COMPOSITES, SYSTEM_EVENTS

EVENT = "0198f0e2-7b5c-4a52-9f1d-0d3c4b5a6978"


def workflow(*triggers: Any, id: str = "w") -> dict[str, Any]:
    return {"id": id, "name": id, "steps": [], "triggers": list(triggers)}


def index_of(*timed: tuple[int, dict[str, Any] | str]) -> StartIndex:
    """The index after publications (documents) and withdrawals (ids) at these times."""
    editions = Editions()
    for time_ms, what in timed:
        if isinstance(what, str):
            editions.withdraw(what, time_ms)
        else:
            editions.publish(what, time_ms)
    return StartIndex(editions.all())


def hits(index: StartIndex, time_ms: int = 1000, type: str = "order.paid", data: str = "{}", topic: str = SYSTEM_EVENTS) -> list[Hit]:
    return index.hits(topic, RecordView({"id": EVENT, "type": type, "data": data, "time": 0, "source": "", "subject": ""}), time_ms)


@pytest.mark.parametrize(
    ("trigger", "type", "data", "starts"),
    [
        ({"event": "order.*"}, "order.paid", "{}", True),
        ({"event": "order.*"}, "order.paid.late", "{}", False),
        ({"event": "**"}, "anything", "{}", True),
        ({"event": "order.*", "where": "data.total > 100.0"}, "order.paid", '{"total": 101}', True),
        ({"event": "order.*", "where": "data.total > 100.0"}, "order.paid", '{"total": 99.5}', False),
        ({"event": "order.*", "where": "data.total > 100.0"}, "order.paid", "{}", False),
        ({"event": "order.*", "where": "data.total"}, "order.paid", '{"total": 1}', False),
        ({"event": "order.*", "topic": COMPOSITES}, "order.paid", "{}", False),
        ({"cron": "@daily"}, "order.paid", "{}", False),
        ({"event": "**"}, REFUSED, "{}", False),
    ],
)
def test_type_topic_and_filter_decide(trigger: Any, type: str, data: str, starts: bool) -> None:
    assert bool(hits(index_of((0, workflow(trigger))), type=type, data=data)) is starts


def test_an_event_belongs_to_the_definition_in_force_at_its_time() -> None:
    first, second = workflow({"event": "order.*"}), workflow({"event": "order.paid", "input": 2})
    index = index_of((100, first), (200, second), (300, "w"), (400, workflow({"cron": "@daily"})), (500, first))
    by_time = {time_ms: [hit.hash for hit in hits(index, time_ms)] for time_ms in (99, 100, 199, 200, 299, 300, 400, 499, 500, 9999)}
    one, two = definition_hash(first), definition_hash(second)
    assert by_time == {99: [], 100: [one], 199: [one], 200: [two], 299: [two], 300: [], 400: [], 499: [], 500: [one], 9999: [one]}


def test_changes_are_told_apart_from_publications_that_change_nothing_about_triggers() -> None:
    editions = Editions()
    assert not editions.publish(workflow(), 1)
    assert editions.publish(workflow({"event": "a"}), 2)
    assert editions.publish(workflow(), 3)
    assert not editions.withdraw("w", 4)
    assert not editions.publish(workflow({"cron": "@daily"}), 5)


def test_topics_of_definitions_in_force_are_read() -> None:
    assert index_of((1, workflow({"event": "a", "topic": "shop"}, {"event": "b"}))).topics == {"shop", SYSTEM_EVENTS}
    assert index_of((1, workflow({"event": "a", "topic": "shop"})), (2, "w")).topics == frozenset()


def test_every_trigger_of_every_workflow_starts_an_execution_of_its_own_and_always_the_same() -> None:
    index = index_of((0, workflow({"event": "order.*"}, {"event": "order.paid"})), (0, workflow({"event": "order.paid"}, id="v")))
    found = hits(index)
    assert [(hit.workflow_id, hit.trigger) for hit in found] == [("v", 0), ("w", 0), ("w", 1)]
    assert len({hit.execution_id for hit in found}) == 3
    assert hits(index_of((0, workflow({"event": "order.*"}))))[0].execution_id == found[1].execution_id


HIT = Hit(workflow_id="w", hash="h", trigger=0, execution_id="e")
RECORD = SystemEvent(id=EVENT, type="order.paid", source="shop", subject="o-1", time=from_micros(5), tenant="t", data={"total": 1})


def test_the_command_names_what_caused_it_and_repeats_byte_by_byte() -> None:
    command = outcome_of(HIT, {"id": EVENT}, RECORD, 2)
    assert isinstance(command, WorkflowCommand)
    assert command.data == {"workflow": "w", "definition_hash": "h", "trigger": 0, "event": {"id": EVENT}, "trigger_depth": 3}
    assert (command.command, command.execution_id, command.causation_id, command.correlation_id) == ("start", "e", EVENT, EVENT)
    assert (command.tenant, command.time) == ("t", RECORD.time)
    assert outcome_of(HIT, {"id": EVENT}, RECORD, 2) == command


def test_a_chain_of_executions_that_start_each_other_ends_by_an_event() -> None:
    last = outcome_of(HIT, {}, RECORD, limits.TRIGGER_DEPTH_MAX - 1)
    beyond = outcome_of(HIT, {}, RECORD, limits.TRIGGER_DEPTH_MAX)
    assert isinstance(last, WorkflowCommand)
    assert isinstance(beyond, SystemEvent)
    assert (beyond.type, beyond.severity, beyond.causation_id, beyond.data["code"]) == (REFUSED, "error", EVENT, "trigger.loop")


def test_an_event_that_fills_a_command_is_refused_by_an_event() -> None:
    refused = outcome_of(HIT, {"data": "x" * limits.PAYLOAD_BYTES_MAX}, RECORD, 0)
    assert isinstance(refused, SystemEvent)
    assert refused.data["code"] == "payload.too-large"
