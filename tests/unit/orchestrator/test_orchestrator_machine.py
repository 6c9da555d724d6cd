"""The machine as the log kernel uses it: commands, answers, repeats, refusals, effects, what a new owner does again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from services.orchestrator import view
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.state import Execution
from services.orchestrator.store import DefinitionStore
from streams.bus.stories import start_command
from streams.errors import Defect
from streams.log.types import Due
from streams.records import MessageError, ModuleMessage, SystemEvent, WorkflowCommand, from_micros, iso, to_micros
from streams.testing.machine_runner import MachineRunner
from streams.topics import REQUESTS, RESPONSES, SYSTEM_EVENTS
from tests.unit.orchestrator.conftest import operation, workflow

START_US = 1_767_225_600_000_000
ID = "e-1"


@pytest.fixture
def runner() -> MachineRunner[Execution]:
    """A machine whose host also runs the module `work`; `far` runs elsewhere."""
    store = DefinitionStore({"work": ("a", "b")})
    store.add_module("far")
    return MachineRunner(machine=OrchestratorMachine(store, ["work"]), now_us=START_US, checked=True)


def command(name: str, data: Any = None, execution_id: str = ID) -> WorkflowCommand:
    return WorkflowCommand(type=f"workflow.{name}", execution_id=execution_id, command=name, data=data or {})  # type: ignore[arg-type]


def start(runner: MachineRunner[Execution], *steps: dict[str, Any], input: Any = None, **fields: Any) -> list[Any]:
    decision = runner.receive(command("start", {"definition": workflow(*steps, **fields), "input": input or {}}))
    return list(decision.events)


def answer(request: ModuleMessage, data: Any = None, error: MessageError | None = None, **fields: Any) -> ModuleMessage:
    how = {"causation_id": request.id, "status": "error" if error else "success", **fields}
    return ModuleMessage(
        type="work.responded", kind="response", source_module="work", operation=request.operation, execution_id=request.execution_id,
        step_id=request.step_id, attempt=request.attempt, data=data or {}, error=error, **how,
    )  # fmt: skip


def requests(runner: MachineRunner[Execution]) -> list[ModuleMessage]:
    return [effect.record for effect in runner.take_effects() if isinstance(effect.record, ModuleMessage)]


def test_a_start_says_what_begins_and_asks_the_module(runner: MachineRunner[Execution]) -> None:
    started, step = start(runner, operation("a", parameters={"x": "${input.n}"}, timeout="30s"), input={"n": 1})
    assert (started.type, started.status, started.workflow_id, started.sequence) == ("execution.started", "running", "w", 1)
    assert started.data == {
        "definition_hash": runner.machine.definitions.admit(workflow(operation("a", parameters={"x": "${input.n}"}, timeout="30s"))).hash,
        "input": {"n": 1},
    }  # type: ignore[attr-defined]
    assert (step.type, step.step_id, step.attempt, step.data["parameters"]) == ("step.started", "a", 1, {"x": 1})
    (send,) = runner.take_effects()
    request = send.record
    assert isinstance(request, ModuleMessage)
    assert (send.topic, send.key, request.reply_to, request.operation, request.data) == (REQUESTS, ID, ID, "a", {"x": 1})
    assert request.deadline is not None
    assert to_micros(request.deadline) == START_US + 30_000_000


def test_a_module_elsewhere_has_a_topic_of_its_own_and_is_told_of_a_cancellation(runner: MachineRunner[Execution]) -> None:
    start(runner, {**operation("x"), "module": "far", "operation": "anything"})
    (asked,) = runner.take_effects()
    runner.receive(command("cancel"))
    (told,) = runner.take_effects()
    assert asked.topic == told.topic == f"{REQUESTS}.far"
    assert isinstance(told.record, ModuleMessage)
    assert (told.record.kind, told.record.causation_id) == ("notification", asked.record.id)


def test_a_repeated_start_changes_nothing(runner: MachineRunner[Execution]) -> None:
    start(runner, operation("a"))
    assert start(runner, operation("b")) == []


def test_who_starts_it_again_is_told_when_it_began(runner: MachineRunner[Execution]) -> None:
    """Otherwise a client would have to read the log from its beginning to know."""
    start(runner, operation("a"))
    runner.take_effects()
    again = start_command(
        {"id": "w", "name": "w", "steps": [operation("b")]}, {}, execution_id=ID, idempotency_key=None, by="", reply_to="me"
    )
    decided = runner.receive(again, time_us=runner.now_us + 5_000_000)
    (told,) = runner.take_effects()
    state = runner.view.state(ID)
    assert state is not None
    assert isinstance(told.record, ModuleMessage)
    assert decided.events == ()
    assert (told.topic, told.key, told.hand_over, told.record.causation_id) == (RESPONSES, "me", False, again.id)
    assert told.record.data == {"executionId": ID, "startedAt": iso(from_micros(state.started_us)), "status": "running"}


def test_what_a_new_owner_does_again_are_the_same_bytes(runner: MachineRunner[Execution]) -> None:
    emit = {"id": "e", "type": "emit", "event": {"type": "x.happened", "data": 1}}
    start(runner, operation("a", attempt_timeout=5), operation("b"), emit)
    effects = runner.take_effects()
    state = runner.view.state(ID)
    assert state is not None
    assert list(runner.machine.outstanding(state)) == effects
    assert [effect.topic for effect in effects] == [REQUESTS, REQUESTS, SYSTEM_EVENTS]
    runner.receive(answer(effects[0].record), topic=RESPONSES)  # type: ignore[arg-type]
    state = runner.view.state(ID)
    assert state is not None
    assert list(runner.machine.outstanding(state)) == effects[1:]


def test_a_second_copy_of_an_answer_is_nothing(runner: MachineRunner[Execution]) -> None:
    start(runner, operation("a"), operation("b"))
    first, _ = requests(runner)
    assert [event.type for event in runner.receive(answer(first, {"n": 1}), topic=RESPONSES).events] == ["step.completed"]
    assert runner.receive(answer(first, {"n": 2}), topic=RESPONSES).events == ()


def test_late_answers_are_recorded_once_even_after_the_end(runner: MachineRunner[Execution]) -> None:
    start(runner, operation("a", timeout="1s"))
    (request,) = requests(runner)
    runner.fire(ID)
    late = answer(request, error=MessageError(code="odd", message="m"))
    (event,) = runner.receive(late, topic=RESPONSES).events
    assert (event.type, event.status, event.data["error"]["code"]) == ("step.answered_late", "failed", "odd")
    assert runner.receive(late, topic=RESPONSES).events == ()


@pytest.mark.parametrize(
    "fields", [{"causation_id": "somebody-elses"}, {"attempt": 2}, {"step_id": "nowhere"}, {"step_id": None}, {"execution_id": "e-2"}]
)
def test_what_answers_nothing_we_asked_is_nothing(runner: MachineRunner[Execution], fields: dict[str, Any]) -> None:
    from dataclasses import replace

    start(runner, operation("a"))
    (request,) = requests(runner)
    assert runner.receive(replace(answer(request), **fields), topic=RESPONSES).events == ()


def test_timers_of_executions_that_are_gone_and_early_ones_do_nothing(runner: MachineRunner[Execution]) -> None:
    assert runner.handle(Due(aggregate_id="gone", due_us=1, time_us=START_US)).events == ()
    start(runner, operation("a"))
    assert runner.handle(Due(aggregate_id=ID, due_us=START_US, time_us=START_US)).events == ()


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (command("cancel"), "execution.unknown"),
        (command("start", {"definition": {"id": "w"}}), "definition.invalid"),
        (command("start", {"workflow": "nowhere"}), "workflow.unknown"),
        (command("start", {"definition_hash": "00"}), "workflow.unknown"),
        (command("start", {}), "command.invalid"),
        (command("start", {"definition": workflow(operation("a"))}, "a/b"), "execution.id"),
        (command("start", {"definition": workflow(operation("a"), input_schema={"required": ["n"]}), "input": {}}), "input.invalid"),
        (command("start", {"definition": workflow({**operation("a"), "module": "nowhere"})}), "definition.invalid"),
    ],
)
def test_refusals_without_an_execution_belong_to_no_aggregate(runner: MachineRunner[Execution], wish: WorkflowCommand, code: str) -> None:
    (event,) = runner.receive(wish).events
    assert (event.type, event.data["code"], event.data["command"]) == ("command.refused", code, wish.command)
    assert (event.aggregate_id, event.sequence, event.causation_id) == (None, 0, wish.id)
    assert runner.view.state(wish.execution_id) is None


def test_a_refused_document_names_all_its_faults(runner: MachineRunner[Execution]) -> None:
    (event,) = runner.receive(command("start", {"definition": workflow(operation("z"), operation("z"))})).events
    assert [(fault["code"], fault["pointer"]) for fault in event.data["faults"]] == [
        ("id.duplicate", "/steps/1/id"),
        ("operation.unknown", "/steps/0/operation"),
        ("operation.unknown", "/steps/1/operation"),
    ]


def test_every_command_that_is_obeyed_leaves_a_record_that_names_it(runner: MachineRunner[Execution]) -> None:
    start(runner, operation("a"))
    for name in ("pause", "resume", "cancel"):
        wish = command(name, {"by": "ann", "why": "so"})
        events = runner.receive(wish).events
        assert {event.causation_id for event in events} == {wish.id}
        assert events[-1].data["by"] == "ann"


def test_a_module_that_went_away_fails_the_step(runner: MachineRunner[Execution]) -> None:
    start(runner, {"id": "w", "type": "wait", "for": "1s"}, {**operation("x", "w"), "module": "far", "operation": "o"})
    del runner.machine.definitions.operations["far"]  # type: ignore[attr-defined]
    runner.fire(ID)
    assert runner.events("step.failed")[0].data["error"]["code"] == "module.unknown"


def test_an_execution_whose_definition_is_lost_is_a_defect(runner: MachineRunner[Execution]) -> None:
    start(runner, operation("a"))
    other = OrchestratorMachine(DefinitionStore({}), [])
    with pytest.raises(Defect):
        other.decide(runner.view, Due(aggregate_id=ID, due_us=0, time_us=START_US))


def test_emitted_events_carry_the_story(runner: MachineRunner[Execution]) -> None:
    start(runner, {"id": "e", "type": "emit", "event": {"type": "x.happened", "severity": "warning", "subject": "s", "data": {"n": 1}}})
    (send,) = runner.take_effects()
    event = send.record
    assert isinstance(event, SystemEvent)
    assert (send.key, event.type, event.severity, event.subject, event.correlation_id, event.data) == (
        "s",
        "x.happened",
        "warning",
        "s",
        ID,
        {"n": 1},
    )


def test_the_view_says_what_the_log_says(runner: MachineRunner[Execution]) -> None:
    box = {"id": "box", "type": "parallel", "steps": [operation("a")]}
    ask = {"id": "ask", "type": "approval", "title": "Really?", "dependencies": ["box"]}
    start(runner, box, ask)
    (request,) = requests(runner)
    runner.receive(answer(request, {"n": 1}), topic=RESPONSES, time_us=START_US + 1_500_000)
    seen = view.fold(runner.events())
    assert seen["status"] == "running"
    assert seen["steps"]["box"]["result"]["results"][0]["value"] == {"n": 1}
    assert datetime.fromisoformat(seen["steps"]["a"]["ended_at"]).timestamp() == START_US / 1e6 + 1.5
    text = view.timeline(seen)
    assert "work.a" in text
    assert "1.5 s" in text
    assert f"mplp workflow answer {ID} ask" in text
    assert "Really?" in text
    assert view.fold([]) == {}


def test_what_an_execution_records_tells_how_far_it_is_from_what_was_not_started_by_itself(runner: MachineRunner[Execution]) -> None:
    document = workflow({"id": "s", "type": "signal", "name": "go"}, {"id": "t", "type": "signal", "name": "go", "dependencies": ["s"]})
    begun = runner.receive(command("start", {"definition": document, "trigger_depth": 3}))
    assert begun.depth == 3
    near, far, whole = (
        runner.receive(command("signal", {"name": "go", **more})) for more in ({"trigger_depth": 2}, {"trigger_depth": 9}, {})
    )
    assert [near.depth, far.depth] == [3, 9]
    assert "trigger_depth" not in near.events[0].data
    assert far.events[0].data["trigger_depth"] == 9
    assert (whole.events[0].type, whole.depth) == ("command.refused", 9)  # it has ended
    nobody = runner.receive(command("signal", {"name": "go", "trigger_depth": 5}, "e-3"))
    assert (nobody.events[0].type, nobody.depth) == ("command.refused", 5)
    by_hand = runner.receive(command("start", {"definition": document}, "e-2"))
    assert by_hand.depth == 0
