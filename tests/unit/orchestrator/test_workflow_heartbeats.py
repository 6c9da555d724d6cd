"""Heartbeats of long operations: silence ends an attempt, details go to the next one, and whoever works for nothing is told so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.orchestrator import view
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.state import Execution
from services.orchestrator.store import DefinitionStore
from streams import limits
from streams.records import ModuleMessage
from streams.testing.machine_runner import MachineRunner
from streams.topics import RESPONSES
from tests.unit.orchestrator.conftest import operation, workflow
from tests.unit.orchestrator.test_orchestrator_machine import ID, START_US, answer, command, requests

SECOND = 1_000_000
RETRY = {"error-handling": {"retry-policy": {"max-retries": 1, "backoff-strategy": "fixed", "initial-interval": "10s"}}}


@pytest.fixture
def runner() -> MachineRunner[Execution]:
    return begun()


def begun(**fields: Any) -> MachineRunner[Execution]:
    """An execution whose one step runs on a module elsewhere."""
    store = DefinitionStore({})
    store.add_module("far")
    runner = MachineRunner(machine=OrchestratorMachine(store, []), now_us=START_US, checked=True)
    step = {**operation("x"), "module": "far", "operation": "dig", **(fields or RETRY)}
    runner.receive(command("start", {"definition": workflow(step), "input": {}}))
    return runner


def beat(request: ModuleMessage, id: str = "beat", **data: Any) -> ModuleMessage:
    return ModuleMessage(
        id=id, type="workflow.requested", kind="request", source_module="far", target_module="workflow", operation="heartbeat",
        execution_id=request.execution_id, step_id=request.step_id, attempt=request.attempt, causation_id=request.id,
        subject=request.reply_to or "", reply_to="bus-1", data={"timeout_ms": 5000, "by": "far-host-1", **data},
    )  # fmt: skip


def told(runner: MachineRunner[Execution]) -> Any:
    """What the process is told."""
    (effect,) = runner.take_effects()
    assert (effect.topic, effect.key, effect.hand_over) == (RESPONSES, "bus-1", False)
    assert isinstance(effect.record, ModuleMessage)
    assert (effect.record.kind, effect.record.causation_id) == ("response", "beat")
    return effect.record.data


def test_a_heartbeat_is_on_record_and_answered(runner: MachineRunner[Execution]) -> None:
    (request,) = requests(runner)
    (event,) = runner.receive(beat(request, details={"done": 3}), topic=RESPONSES).events
    assert (event.type, event.step_id, event.attempt, event.status) == ("heartbeat.received", "x", 1, "running")
    assert event.data == {"timeout_ms": 5000, "by": "far-host-1", "details": {"done": 3}}
    assert told(runner) == {"wanted": True, "details": None}
    runner.receive(beat(request), topic=RESPONSES)
    assert told(runner) == {"wanted": True, "details": {"done": 3}}


def test_before_the_first_heartbeat_nobody_counts_silence(runner: MachineRunner[Execution]) -> None:
    """The request may wait in its topic for a process that takes it."""
    due, _ = runner.next_due() or (0, "")
    assert due == START_US + 5 * 60 * SECOND, "the time-out of the step"


def test_silence_ends_the_attempt_and_the_next_one_gets_the_details(runner: MachineRunner[Execution]) -> None:
    (request,) = requests(runner)
    runner.receive(beat(request, details={"done": 3}), topic=RESPONSES)
    runner.receive(beat(request), topic=RESPONSES, time_us=START_US + 4 * SECOND)
    runner.take_effects()
    assert runner.next_due() == (START_US + 9 * SECOND, ID)
    (retried,) = runner.fire(ID).events
    assert (retried.type, retried.data["delay_ms"]) == ("step.retried", 10_000)
    assert retried.data["error"] == {"code": "timeout", "message": "The attempt gave no heartbeat for 5s.", "retryable": True}
    (cancelled,) = requests(runner)
    assert (cancelled.kind, cancelled.causation_id) == ("notification", request.id)

    runner.fire(ID)
    (second,) = requests(runner)
    assert second.attempt == 2
    assert runner.next_due() == (START_US + 5 * 60 * SECOND, ID), "the silence of the first attempt is over"
    runner.receive(beat(second), topic=RESPONSES)
    assert told(runner) == {"wanted": True, "details": {"done": 3}}
    runner.receive(answer(second, 7), topic=RESPONSES)
    assert view.fold(runner.events())["steps"]["x"]["result"] == 7


def test_silence_without_another_attempt_is_a_time_out() -> None:
    runner = begun(timeout="1h")
    (request,) = requests(runner)
    runner.receive(beat(request), topic=RESPONSES)
    runner.fire(ID)
    step = view.fold(runner.events())["steps"]["x"]
    assert (step["status"], step["error"]["code"]) == ("timed_out", "timeout")
    assert runner.view.state(ID).status == "failed"  # type: ignore[union-attr]


def test_who_works_for_nothing_is_told_so(runner: MachineRunner[Execution]) -> None:
    (request,) = requests(runner)
    for wrong in (
        replace(beat(request), attempt=2),
        replace(beat(request), step_id="y"),
        replace(beat(request), step_id=None),
        replace(beat(request), execution_id="e-9"),
        replace(beat(request), causation_id="another"),
    ):
        assert runner.receive(wrong, topic=RESPONSES).events == ()
        assert told(runner) == {"wanted": False, "details": None}
    runner.receive(command("cancel"))
    runner.take_effects()
    assert runner.receive(beat(request), topic=RESPONSES).events == ()
    assert told(runner) == {"wanted": False, "details": None}


def test_an_attempt_that_was_answered_is_not_silent(runner: MachineRunner[Execution]) -> None:
    (request,) = requests(runner)
    runner.receive(beat(request, details="half"), topic=RESPONSES)
    runner.receive(answer(request, 1), topic=RESPONSES)
    assert runner.next_due() is None
    assert runner.view.state(ID).step("x").details is None  # type: ignore[union-attr]


def test_a_fallback_that_runs_is_not_the_silent_attempt() -> None:
    fallback = {"condition": "timeout", "action": "run-step", "step": {**operation("y"), "module": "far", "operation": "other"}}
    runner = begun(**{"error-handling": {"fallback-actions": [fallback]}})
    (request,) = requests(runner)
    runner.receive(beat(request), topic=RESPONSES)
    runner.fire(ID)
    (event,) = runner.events("fallback.applied")
    assert event.data["error"]["code"] == "timeout"
    due, _ = runner.next_due() or (0, "")
    assert due == runner.now_us + 5 * 60 * SECOND, "only the fallback's own time-out is left"


def test_a_pause_does_not_stop_the_heart(runner: MachineRunner[Execution]) -> None:
    (request,) = requests(runner)
    runner.receive(beat(request), topic=RESPONSES)
    runner.receive(command("pause"), time_us=START_US + SECOND)
    assert runner.next_due() == (START_US + 5 * SECOND, ID)


@settings(max_examples=40)
@given(st.one_of(st.none(), st.text(), st.lists(st.integers()), st.dictionaries(st.sampled_from(["timeout_ms", "by", "details"]),
       st.one_of(st.none(), st.booleans(), st.integers(-10, 10**12), st.text(), st.just("x" * 20_000)))))  # fmt: skip
def test_whatever_a_heartbeat_says_its_record_is_in_order(data: Any) -> None:
    runner = begun()
    (request,) = requests(runner)
    (event,) = runner.receive(replace(beat(request), data=data), topic=RESPONSES).events
    assert set(event.data) <= {"timeout_ms", "by", "details"}
    if "timeout_ms" in event.data:
        assert type(event.data["timeout_ms"]) is int
        assert 0 < event.data["timeout_ms"] <= limits.HEARTBEAT_MS_MAX
    assert len(str(event.data.get("details"))) <= limits.HEARTBEAT_BYTES_MAX
    due, _ = runner.next_due() or (0, "")
    assert due == START_US + min(event.data.get("timeout_ms", 10**9), 5 * 60 * 1000) * 1000


def test_a_person_sees_who_works_and_how_far(runner: MachineRunner[Execution]) -> None:
    (request,) = requests(runner)
    for number in range(100):
        runner.receive(beat(request, details={"done": number}), topic=RESPONSES, time_us=START_US + number * SECOND)
    shown = view.fold(runner.events())
    step = shown["steps"]["x"]
    assert step["heartbeat"] == {"time": "2026-01-01T00:01:39.000000Z", "attempt": 1, "by": "far-host-1", "details": {"done": 99}}
    assert [entry["type"] for entry in step["history"]] == ["step.started", "heartbeat.received"]
    assert 'heartbeat of far-host-1 at +1 min 39 s: {"done":99}' in view.timeline(shown)
    runner.receive(answer(request, 1), topic=RESPONSES)
    assert "heartbeat" not in view.timeline(view.fold(runner.events()))
