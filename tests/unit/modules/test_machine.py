from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from services.modules.answers import remembered_until, response_id
from services.modules.machine import ModulesMachine
from services.modules.states import ModuleState
from streams import limits
from streams.codec.avro import Codec, SchemaIds
from streams.codec.payload import payload_text
from streams.log.types import NOTHING, Due, Machine, PartitionView, Received, Send
from streams.records import InputPosition, ModuleMessage, SystemEvent, WorkflowCommand, from_micros, to_micros
from streams.topics import REQUESTS, RESPONSES, TRANSITIONS, home_of

CREATE = ("context", "create-context", {"name": "room"})


def test_it_is_a_machine() -> None:
    machine: Machine[ModuleState] = ModulesMachine()
    assert machine.inboxes == (REQUESTS,)
    assert machine.decide(PartitionView(), Due(aggregate_id="a", due_us=0, time_us=0)) is NOTHING


# --- what a request leaves in the log ------------------------------------------------------------------------------------


def test_request_events_and_response_are_one_decision_of_one_aggregate(modules: Any) -> None:
    asked = modules.request(*CREATE)
    request, created, response = modules.receive(asked).events
    assert [event.type for event in (request, created, response)] == ["context.requested", "context.created", "context.answered"]
    assert {event.aggregate_id for event in (request, created, response)} == {response.data["contextId"]}
    assert [event.sequence for event in (request, created, response)] == [1, 2, 3]
    assert {event.causation_id for event in (request, created, response)} == {asked.id}
    assert {event.correlation_id for event in (request, created, response)} == {"exec-1"}
    assert {event.time for event in (request, created, response)} == {modules.now}
    assert (request.kind, request.data, request.operation) == ("request", asked.data, "create-context")
    for field in ("execution_id", "step_id", "attempt", "reply_to", "deadline", "operation", "tenant"):
        assert getattr(request, field) == getattr(response, field) == getattr(asked, field)
    assert (response.source_module, response.target_module) == ("context", "workflow")


def test_every_aggregate_lies_at_the_home(modules: Any) -> None:
    context = modules.context()
    modules.call("role", "assign-roles", contextId=context, roles=["a"])
    modules.call("context", "list-contexts")
    modules.call("context", "get-context", contextId="exec-1/ghost")
    assert {home_of(entry.event.aggregate_id) for entry in modules.runner.log} == {"exec-1"}


def test_a_request_about_nothing_that_is_there_belongs_to_the_requests_of_its_home(modules: Any) -> None:
    for answer in (modules.call("context", "list-contexts"), modules.call("context", "get-context", contextId="exec-1/ghost")):
        assert answer.response.aggregate_id == "exec-1/requests"
    assert modules.runner.view.state("exec-1/requests") is None


def test_a_refusal_belongs_to_what_it_is_about(modules: Any) -> None:
    context = modules.context()
    refused = modules.call("context", "transition-lifecycle", contextId=context, status="active")
    assert refused.error.code == "conflict"
    assert refused.response.aggregate_id == context


def test_what_is_decided_can_be_written(modules: Any) -> None:
    codec = Codec(SchemaIds.local())
    plan = modules.plan(("a", []), ("b", ["a"]))
    modules.call("plan", "activate-plan", planId=plan)
    modules.call("plan", "nope", {})
    for entry in modules.runner.log:
        assert codec.decode(codec.encode(entry.event)) == entry.event


def test_the_same_request_in_another_log_gives_the_same_bytes(modules: Any) -> None:
    asked = modules.request(*CREATE)
    first = modules.receive(asked).events
    again = type(modules)()
    assert again.receive(asked).events == first


# --- refusals of the machine itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "operation"), [("ghost", "create"), ("context", "ghost"), (None, "create-context"), ("schedule", "set")]
)
def test_an_unknown_operation_is_refused(modules: Any, module: str | None, operation: str) -> None:
    events = modules.receive(modules.request(module or "context", operation, {}, target_module=module)).events
    assert events[-1].error.code == "operation.unknown"
    assert len(events) == 2


def test_a_request_that_nobody_waits_for_changes_nothing(modules: Any) -> None:
    modules.runner.now_us = 10_000_000
    late = modules.request(*CREATE, deadline=from_micros(10_999_999))
    assert modules.receive(late).events[-1].error.code == "deadline.passed"  # decided at 11 s
    in_time = modules.request(*CREATE, deadline=from_micros(12_000_000))
    assert modules.receive(in_time).events[-1].status == "success", "at the very moment it still counts"


def test_an_answer_that_is_too_large_is_refused_and_changes_nothing(modules: Any) -> None:
    half = "x" * (limits.PAYLOAD_BYTES_MAX // 2)
    context = modules.context(metadata={"a": half})
    refused = modules.call("context", "update-context", contextId=context, metadata={"b": half})
    assert refused.error.code == "payload.too-large"
    assert list(modules.call("context", "get-context", contextId=context).result["metadata"]) == ["a"]


@pytest.mark.parametrize("value", [2**64, "\ud800"])
def test_values_that_json_cannot_carry_are_invalid(modules: Any, value: Any) -> None:
    events = modules.receive(modules.request("context", "create-context", {"name": "x", "metadata": {"a": value}})).events
    assert events[-1].error.code == "invalid"


@pytest.mark.parametrize("depth", [limits.PAYLOAD_DEPTH_MAX - 5, limits.PAYLOAD_DEPTH_MAX, 400])
def test_nesting_is_kept_or_refused(modules: Any, depth: int) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    events = modules.receive(modules.request("context", "create-context", {"name": "x", "metadata": {"a": deep}})).events
    for event in events:
        payload_text(event.data)
    if depth < limits.PAYLOAD_DEPTH_MAX:
        assert events[-1].data["metadata"] == {"a": deep}
    else:
        assert events[-1].error.code in ("payload.too-deep", "invalid")
        assert events[0].data == {}


def test_a_request_that_is_too_large_for_a_record_is_refused_and_left_out_of_the_log(modules: Any) -> None:
    parameters = {"name": "x", "metadata": {"a": "x" * limits.PAYLOAD_BYTES_MAX}}
    request, response = modules.receive(modules.request("context", "create-context", parameters)).events
    assert (request.data, response.error.code) == ({}, "payload.too-large")


@pytest.mark.parametrize("kind", ["response", "notification", "broadcast"])
def test_what_is_no_request_is_on_record_and_changes_nothing(modules: Any, kind: Any) -> None:
    decision = modules.receive(modules.request(*CREATE, kind=kind), outside=True)
    (refused,) = decision.events
    assert isinstance(refused, SystemEvent)
    assert (refused.type, refused.sequence, refused.data["code"]) == ("message.refused", 0, "message.no-request")
    assert kind in refused.data["message"]
    assert decision.effects == ()


def test_another_record_in_the_inbox_is_on_record(modules: Any) -> None:
    command = WorkflowCommand(type="execution.start", execution_id="e", command="start")
    (refused,) = modules.receive(command, outside=True).events
    assert refused.type == "message.refused"
    assert "WorkflowCommand" in refused.data["message"]


# --- answers ---------------------------------------------------------------------------------------------------------------


def test_a_local_caller_gets_its_answer_from_the_log(modules: Any) -> None:
    assert modules.receive(modules.request(*CREATE)).effects == ()


def test_an_outside_caller_gets_its_answer_at_the_topic_even_if_its_key_is_local(modules: Any) -> None:
    asked = modules.request(*CREATE, reply_to="exec-1")
    decision = modules.receive(asked, outside=True)
    (send,) = decision.effects
    assert (send.topic, send.key, send.hand_over) == (RESPONSES, "exec-1", False)
    logged = decision.events[-1]
    assert send.record == replace(logged, id=response_id(asked.id), aggregate_id=None, sequence=None, epoch=None, input=None)


def test_a_caller_that_wants_no_answer_gets_none(modules: Any) -> None:
    assert modules.receive(modules.request(*CREATE, reply_to=None), outside=True).effects == ()


@pytest.mark.parametrize("parameters", [{"name": "room"}, {"name": ""}])
def test_a_repeat_gets_the_same_answer_and_changes_nothing(modules: Any, parameters: dict[str, str]) -> None:
    codec = Codec(SchemaIds.local())
    asked = modules.request("context", "create-context", parameters)
    first = modules.receive(asked, outside=True)
    before = dict(modules.runner.view.aggregates)
    again = modules.receive(asked, outside=True)
    assert again.events == ()
    assert codec.encode(again.effects[0].record) == codec.encode(first.effects[0].record)
    assert modules.runner.view.aggregates == before


def test_a_repeat_of_a_local_request_is_answered_in_memory(modules: Any) -> None:
    asked = modules.request(*CREATE)
    logged = modules.receive(asked).events[-1]
    (send,) = modules.receive(asked).effects
    assert (send.key, send.hand_over) == ("exec-1", True)
    assert (send.record.causation_id, send.record.data) == (logged.causation_id, logged.data)


def test_a_repeat_of_a_refusal_keeps_code_and_place(modules: Any) -> None:
    asked = modules.request("context", "create-context", {})
    logged = modules.receive(asked).events[-1]
    (send,) = modules.receive(asked).effects
    assert (send.record.status, send.record.error, send.record.data) == ("error", logged.error, logged.data)


def test_a_request_that_is_forgotten_creates_nothing_twice(modules: Any) -> None:
    asked = modules.request(*CREATE)
    modules.receive(asked)
    modules.runner.view.remembered.clear()
    assert modules.receive(asked).events[-1].error.code == "conflict"


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("deadline", "kept"), [(None, HOUR), (timedelta(minutes=5), HOUR + timedelta(minutes=5)), (timedelta(days=9999), timedelta(days=7))]
)
def test_answers_are_kept_for_the_deadline_and_an_hour(modules: Any, deadline: timedelta | None, kept: timedelta) -> None:
    at = from_micros(1_000_000)
    asked = modules.request(*CREATE, deadline=None if deadline is None else at + deadline)
    response = modules.receive(asked).events[-1]
    assert remembered_until(response) == to_micros(at + kept)
    assert modules.runner.view.remembered[f"request/{asked.id}"].expires_us == to_micros(at + kept)


# --- homes -----------------------------------------------------------------------------------------------------------------


def away_from(modules: Any, home: str) -> None:
    """Moves the partition so that `home` is elsewhere."""
    view = modules.runner.view
    view.partitions = 4
    while view.is_local(home):
        view.partition += 1


@pytest.mark.parametrize("parameters", [{"contextId": "far/context-1"}, {"contextId": "nonsense"}])
def test_a_request_about_an_aggregate_elsewhere_is_sent_there_and_nothing_is_decided(modules: Any, parameters: dict[str, str]) -> None:
    home = home_of(parameters["contextId"])
    away_from(modules, home)
    asked = modules.request("context", "get-context", parameters)
    for _ in range(2):  # an outstanding request that is repeated is sent again
        decision = modules.receive(asked)
        assert decision == replace(NOTHING, effects=(Send(topic=REQUESTS, key=home, record=asked),))


def test_what_may_not_be_written_is_not_sent_on_either(modules: Any) -> None:
    away_from(modules, "exec-1")
    parameters = {"name": "x", "metadata": {"a": "x" * limits.PAYLOAD_BYTES_MAX}}
    decision = modules.receive(modules.request("context", "create-context", parameters), outside=True)
    (refused,) = decision.events
    assert (refused.sequence, refused.data["code"]) == (0, "payload.too-large")
    (send,) = decision.effects
    assert (send.topic, send.record.error.code) == (RESPONSES, "payload.too-large")


def test_where_it_arrives_it_is_decided_wherever_the_caller_lives(modules: Any) -> None:
    away_from(modules, "exec-1")
    view = modules.runner.view
    far = next(f"far-{number}" for number in range(100) if view.is_local(f"far-{number}"))
    created = modules.receive(modules.request(*CREATE, execution_id=None, subject=far, reply_to="caller"), outside=True)
    context = created.events[-1].data["contextId"]
    assert home_of(context) == far
    answered = modules.receive(modules.request("context", "get-context", {"contextId": context}), outside=True)
    assert answered.events[-1].status == "success"
    assert [send.key for send in answered.effects] == ["exec-1"]
    planned = modules.receive(modules.request("plan", "create-plan", {"contextId": context}), outside=True)
    assert home_of(planned.events[-1].data["planId"]) == far, "what is made in a context lives with it"


def test_what_no_aggregate_is_named_for_lives_with_the_caller(modules: Any) -> None:
    for fields, home in (
        ({"execution_id": "e/child", "subject": "s"}, "e"),
        ({"execution_id": None, "subject": "s"}, "s"),
        ({"execution_id": None, "subject": "", "reply_to": "r"}, "r"),
        ({"execution_id": None, "subject": "", "reply_to": None, "id": "i"}, "i"),
    ):
        events = modules.receive(modules.request(*CREATE, **fields), outside=True).events
        assert home_of(events[-1].data["contextId"]) == home


def test_the_repeated_request_of_a_new_owner_has_no_place(modules: Any) -> None:
    decision = modules.runner.handle(Received(record=modules.request(*CREATE), position=None, time_us=5))
    assert decision.events[-1].status == "success"
    assert decision.effects == ()


# --- the fold -------------------------------------------------------------------------------------------------------------


def test_events_of_a_later_version_change_nothing(modules: Any) -> None:
    context = modules.context()
    entry = modules.runner.log[1]
    state = modules.runner.view.state(context)
    later = replace(entry, event=replace(entry.event, type="context.painted", data={"colour": "red"}))
    assert ModulesMachine().evolve(state, later) is state


def test_the_state_after_the_wire_is_the_state_before(modules: Any) -> None:
    codec = Codec(SchemaIds.local())
    plan = modules.plan(("a", []), ("b", ["a"]))
    dialog = modules.dialog({"role": "x", "agentId": "y"}, "z")
    modules.call("dialog", "send-message", dialogId=dialog, sender="z", content={"deep": [1, None, 1.5]})
    modules.call("plan", "approve-plan", planId=plan)
    machine = ModulesMachine()
    states: dict[str, Any] = {}
    for entry in modules.runner.log:
        event = codec.decode(codec.encode(entry.event))
        assert isinstance(event, ModuleMessage | SystemEvent)
        assert event.aggregate_id is not None
        state = machine.evolve(states.get(event.aggregate_id), replace(entry, event=event))
        states |= {event.aggregate_id: state} if state is not None else {}
    assert states == dict(modules.runner.view.aggregates)


def test_what_is_remembered_is_small_and_plain(modules: Any) -> None:
    asked = modules.request(*CREATE)
    modules.receive(asked)
    value = modules.runner.view.recall(f"request/{asked.id}")
    assert isinstance(orjson.loads(value), list)


def test_a_local_delivery_is_told_from_the_topic_by_its_place(modules: Any) -> None:
    position = InputPosition(topic=TRANSITIONS, partition=0, offset=1)
    decision = modules.runner.handle(Received(record=modules.request(*CREATE), position=position, time_us=5))
    assert decision.effects == ()
