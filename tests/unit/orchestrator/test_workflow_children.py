"""Child workflows: results, failures, cancellation down, retries, time-outs, pins, depth; and what is repeated after a takeover."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definitions import definition_hash, validate
from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from services.orchestrator.store import AnyModule
from streams import limits
from streams.errors import InvalidDocument
from streams.records import ModuleMessage, WorkflowCommand
from tests.unit.orchestrator.conftest import error, operation, result, retrying, statuses, types, workflow


def child(id: str, inner: dict[str, Any], *dependencies: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "workflow", "workflow": inner, "dependencies": list(dependencies),
            **{name.replace("_", "-"): value for name, value in fields.items()}}  # fmt: skip


INNER = {**workflow(operation("inner", parameters={"x": "${input.x}"}), output={"y": "${inner.result.y}"}), "id": "inner-one"}


def simulation(document: dict[str, Any], **scenario: Any) -> Simulation:
    return Simulation(document, read_scenario(scenario), checked=True)


def test(document: dict[str, Any], **scenario: Any) -> dict[str, Any]:
    return simulation(document, **scenario).run()


test.__test__ = False  # type: ignore[attr-defined]


def only(outcome: dict[str, Any]) -> dict[str, Any]:
    (found,) = outcome["executions"].values()
    return dict(found)


def test_the_output_of_the_child_is_the_result_of_the_step() -> None:
    document = workflow(
        operation("a"), child("c", INNER, "a", input={"x": "${a.result.n}"}), operation("b", "c", parameters={"y": "${c.result.y}"})
    )
    outcome = test(document, modules={"work.a": [result({"n": 2})], "work.inner": [result({"y": 3}, after="5s")]})
    assert (outcome["status"], outcome["duration_ms"]) == ("completed", 5000)
    assert outcome["steps"]["c"]["result"] == {"y": 3}
    assert outcome["steps"]["c"]["parameters"] == {"x": 2}
    assert outcome["steps"]["b"]["parameters"] == {"y": 3}
    inside = only(outcome)
    assert (inside["status"], inside["input"], inside["parent"]["step_id"]) == ("completed", {"x": 2}, "c")
    assert types(outcome, "c") == ["step.started", "step.completed"]


def test_a_failed_child_fails_the_step_with_the_error_of_the_step_that_failed() -> None:
    outcome = test(workflow(child("c", INNER)), input={}, modules={"work.inner": [error("broken")]})
    assert only(outcome)["error"]["code"] == "reference.missing"
    outcome = test(workflow(child("c", INNER, input={"x": 1})), modules={"work.inner": [error("broken")]})
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "broken")
    assert outcome["steps"]["c"]["error"] == {"code": "broken", "message": "broken!", "retryable": False}
    assert statuses(outcome) == {"c": "failed"}


def test_a_retry_of_the_step_starts_another_child() -> None:
    document = workflow(child("c", INNER, input={"x": 1}, error_handling=retrying(max_retries=1, initial_interval="1s")))
    outcome = test(document, modules={"work.inner": [error("unavailable"), result({"y": 1})]})
    assert (outcome["status"], outcome["steps"]["c"]["attempts"]) == ("completed", 2)
    assert sorted(each["status"] for each in outcome["executions"].values()) == ["completed", "failed"]


@pytest.mark.parametrize(
    ("fields", "at", "status"),
    [
        ({}, [{"time": "1s", "cancel": {}}], "cancelled"),
        ({"timeout": "1s"}, [], "failed"),
        ({"attempt_timeout": "1s"}, [], "failed"),
    ],
)
def test_a_child_that_is_given_up_is_cancelled_and_its_compensations_run(fields: dict[str, Any], at: list[Any], status: str) -> None:
    undone = operation("done", compensation={"type": "module-operation", "module": "work", "operation": "undo"})
    inner = workflow(undone, {"id": "s", "type": "signal", "name": "never", "dependencies": ["done"]})
    outcome = test(workflow(child("c", inner, **fields)), at=at, modules={"work.undo": [result(after="3s")]})
    inside = only(outcome)
    assert (outcome["status"], outcome["duration_ms"]) == (status, 1000)
    assert (inside["status"], inside["duration_ms"]) == ("cancelled", 4000)
    assert types(outcome, "c")[-1] == "step.answered_late"


def test_fail_fast_cancels_the_child_of_a_sibling() -> None:
    waiting = workflow({"id": "s", "type": "signal", "name": "never"})
    both = {"id": "p", "type": "parallel", "fail-fast": True, "steps": [child("c", waiting), operation("a")]}
    outcome = test(workflow(both), modules={"work.a": [error(after="1s")]})
    assert (only(outcome)["status"], statuses(outcome)["c"]) == ("cancelled", "cancelled")


def test_a_pause_of_the_parent_lets_the_child_run_on() -> None:
    document = workflow(child("c", INNER, input={"x": 1}), operation("b", "c"))
    outcome = test(document, modules={"work.inner": [result({"y": 1}, after="5s")]}, at=[{"time": "1s", "pause": {}}])
    assert (outcome["status"], only(outcome)["status"], statuses(outcome)) == ("paused", "completed", {"c": "completed", "b": "pending"})


def test_a_published_child_is_found_by_id_and_version_and_its_content_is_recorded() -> None:
    document = workflow(child("new", {"id": "inner"}), child("old", {"id": "inner", "version": "1"}, "new"))
    one = {"version": "1", "steps": [{"id": "s", "type": "transform", "value": '"one"'}]}
    outcome = test(document, workflows={"inner": one})
    assert outcome["output"] == {"new": {"s": "one"}, "old": {"s": "one"}}
    begun = next(event for event in outcome["transitions"] if event["type"] == "step.started")
    assert begun["data"]["child"]["definition_hash"] == definition_hash({"id": "inner", "name": "inner", **one})


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ({"id": "nowhere"}, "workflow.unknown"),
        ({"id": "inner", "version": "2"}, "workflow.unknown"),
        ({"id": "inner"}, "input.invalid"),
    ],
)
def test_what_cannot_start_fails_the_step(inner: dict[str, Any], code: str) -> None:
    published = {"version": "1", "input-schema": {"required": ["x"]}, "steps": [{"id": "s", "type": "transform", "value": "1"}]}
    outcome = test(workflow(child("c", inner, input={"z": 1})), workflows={"inner": published})
    assert (outcome["status"], outcome["steps"]["c"]["error"]["code"], "executions" in outcome) == ("failed", code, False)


def test_a_workflow_that_starts_itself_ends() -> None:
    outcome = test(workflow(child("c", {"id": "w"})), workflows={"w": workflow(child("c", {"id": "w"}))})
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "workflow.depth")
    assert len(outcome["executions"]) == limits.CHILD_DEPTH_MAX


def test_faults_inside_a_child_are_found_with_pointers_into_it() -> None:
    bad = {"id": "i", "name": "i", "steps": [operation("a", "z"), operation("a"), operation("b", parameters={"x": "${outer.result}"})]}
    document = workflow(operation("outer"), child("c", bad, "outer"), child("d", {"id": "x", "verson": "1"}), child("e", {"name": "n"}))
    assert {(fault.code, fault.pointer) for fault in validate(document, AnyModule())} == {
        ("dependency.unknown", "/steps/1/workflow/steps/0/dependencies/0"),
        ("id.duplicate", "/steps/1/workflow/steps/1/id"),
        ("reference.unknown", "/steps/1/workflow/steps/2/parameters/x"),
        ("schema.additionalProperties", "/steps/2/workflow/verson"),
        ("schema.additionalProperties", "/steps/3/workflow/name"),
        ("schema.required", "/steps/3/workflow"),
    }


def test_ids_of_a_child_are_its_own() -> None:
    assert validate(workflow(operation("a"), child("c", workflow(operation("a")), "a")), AnyModule()) == []


def test_a_faulty_workflow_of_a_scenario_is_refused_with_a_pointer() -> None:
    with pytest.raises(InvalidDocument) as caught:
        test(workflow(child("c", {"id": "i"})), workflows={"i": {"steps": []}})
    assert [fault.pointer for fault in caught.value.violations] == ["/workflows/i/steps"]


# --- what a new owner repeats -----------------------------------------------------------------------------------------


class World:
    """A simulation whose executions are asked what they would repeat."""

    def __init__(self, **scenario: Any) -> None:
        waiting = workflow({"id": "s", "type": "signal", "name": "go"})
        self.run = simulation(workflow(child("c", waiting)), **scenario)

    @property
    def child_id(self) -> str:
        return next(name for name in self.run.runner.view.aggregates if name != "test")

    def outstanding(self, execution_id: str) -> list[Any]:
        state = self.run.runner.view.state(execution_id)
        assert state is not None
        return [send.record for send in self.run.machine.outstanding(state)]

    def hand(self, record: Any, topic: str | None = None) -> list[str]:
        """Hands a record over again; the types of the events, and what is sent, that follow."""
        decision = self.run.runner.receive(record, topic=topic)
        sent = self.run.runner.take_effects()
        return [event.type for event in decision.events] + [type(send.record).__name__ for send in sent]


def test_a_new_owner_of_the_parent_starts_the_child_again_and_that_changes_nothing() -> None:
    world = World()
    world.run.run()
    (start,) = world.outstanding("test")
    assert (start.command, start.execution_id) == ("start", world.child_id)
    assert world.hand(start) == []
    assert world.outstanding(world.child_id) == []


def test_a_child_tells_its_end_again_until_the_parent_has_acknowledged_it() -> None:
    world = World(at=[])
    world.run.run()
    world.run.runner.receive(WorkflowCommand(type="t", execution_id=world.child_id, command="signal", data={"name": "go", "data": 5}))
    lost = world.run.runner.take_effects()  # the owner was killed before it was sent
    (answer,) = world.outstanding(world.child_id)
    assert [send.record for send in lost] == [answer]
    state = world.run.runner.view.state(world.child_id)
    assert state is not None
    assert world.run.machine.ended(state) is None, "it may not leave memory while its parent does not know"
    assert world.hand(answer, "mplp.module.responses") == ["step.completed", "execution.completed", "ModuleMessage"]
    # The acknowledgement was lost as well: the child asks again, and gets it.
    assert world.outstanding(world.child_id) == [answer]
    decision = world.run.runner.receive(answer, topic="mplp.module.responses")
    (acknowledgement,) = (send.record for send in world.run.runner.take_effects())
    assert decision.events == ()
    assert world.hand(acknowledgement, "mplp.module.responses") == ["execution.acknowledged"]
    assert world.hand(acknowledgement, "mplp.module.responses") == []
    assert world.outstanding(world.child_id) == []
    state = world.run.runner.view.state(world.child_id)
    assert state is not None
    assert world.run.machine.ended(state) == state.ended_us


def test_a_parent_that_asks_an_ended_child_again_gets_its_end() -> None:
    world = World()
    world.run.run()
    (start,) = world.outstanding("test")
    world.run.runner.receive(WorkflowCommand(type="t", execution_id=world.child_id, command="signal", data={"name": "go"}))
    world.run.runner.take_effects()
    assert world.hand(start) == ["ModuleMessage"]


def test_a_cancelled_child_is_cancelled_again_until_it_has_answered() -> None:
    world = World()
    world.run.run()
    world.run.runner.receive(WorkflowCommand(type="t", execution_id="test", command="cancel"))
    world.run.runner.take_effects()  # lost
    (cancel,) = world.outstanding("test")
    assert (cancel.command, cancel.execution_id) == ("cancel", world.child_id)
    state = world.run.runner.view.state("test")
    assert state is not None
    assert world.run.machine.ended(state) is None
    assert world.hand(cancel) == ["step.cancelled", "execution.cancelled", "ModuleMessage"]
    assert world.hand(cancel) == ["ModuleMessage"], "a repeat is answered, not refused"
    (answer,) = world.outstanding(world.child_id)
    assert isinstance(answer, ModuleMessage)
    assert world.hand(answer, "mplp.module.responses") == ["step.answered_late", "ModuleMessage"]
    assert world.outstanding("test") == []


def test_a_child_that_is_cancelled_before_it_has_begun_never_runs() -> None:
    world = World()
    world.run.step()
    (start,) = world.outstanding("test")
    world.run.runner.receive(WorkflowCommand(type="t", execution_id="test", command="cancel"))
    world.run.runner.take_effects()
    (cancel,) = world.outstanding("test")
    assert world.hand(cancel) == ["execution.started", "step.cancelled", "execution.cancelled", "ModuleMessage"]
    assert world.hand(start) == ["ModuleMessage"], "a start that comes late finds it ended"


def test_nobody_can_pass_for_a_parent() -> None:
    world = World()
    world.run.run()
    forged = {"parent": {"execution_id": "test", "step_id": "c", "attempt": 9, "depth": 1}}
    world.run.runner.receive(WorkflowCommand(type="t", execution_id="other", command="start", data={"workflow": "w", **forged}))
    assert world.run.runner.take_effects() == []
