"""Plans that are run: translated into workflows, and followed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.modules.plan.graph import validate
from services.modules.plan.state import Task
from streams.topics import partition_of
from tests.unit.modules.world import Refused, World


@pytest.fixture
def world() -> World:
    return World(partitions=2)


def plan(world: World, *tasks: dict[str, Any]) -> str:
    context = world.call("context", "create-context", name="room")["contextId"]
    plan_id = str(world.call("plan", "create-plan", contextId=context, tasks=list(tasks))["planId"])
    world.call("plan", "approve-plan", planId=plan_id)
    return plan_id


def make(task: str, *dependencies: Any, **parameters: Any) -> dict[str, Any]:
    called = {"module": "context", "operation": "create-context", "parameters": {"name": task, **parameters}}
    return {"taskId": task, "dependencies": list(dependencies), **called}


def statuses(world: World, plan_id: str) -> dict[str, str]:
    return {task["taskId"]: task["status"] for task in world.call("plan", "get-plan", planId=plan_id)["tasks"]}


def test_tasks_run_in_order_and_their_results_are_kept(world: World) -> None:
    plan_id = plan(world, make("a"), make("b", "a", description="${a.result.contextId}"))
    run = world.call("plan", "run-plan", planId=plan_id)
    found = world.call("plan", "get-plan", planId=plan_id)
    assert (found["status"], found["progress"], found["executionId"]) == ("completed", 1.0, run["executionId"])
    first, second = (task["result"] for task in found["tasks"])
    assert second["description"] == first["contextId"]
    assert world.execution(run["executionId"]).status == "completed"


def test_a_task_without_an_operation_asks_its_assignee(world: World) -> None:
    plan_id = plan(world, {"taskId": "paint", "assignee": "ada"}, make("ship", "paint"))
    run = world.call("plan", "run-plan", planId=plan_id)
    assert statuses(world, plan_id) == {"paint": "running", "ship": "pending"}
    (asked,) = world.call("confirm", "list", executionId=run["executionId"])["confirmations"]
    assert (asked["title"], asked["approvers"]) == ("paint", ["ada"])
    world.call("confirm", "approve", confirmId=asked["confirmId"], by="ada")
    assert statuses(world, plan_id) == {"paint": "completed", "ship": "completed"}
    assert world.call("plan", "get-plan", planId=plan_id)["status"] == "completed"


def test_a_failing_task_fails_the_plan_which_may_be_run_again(world: World) -> None:
    bad = {"taskId": "bad", "module": "context", "operation": "get-context", "parameters": {"contextId": "x/none"}}
    plan_id = plan(world, make("a"), {**bad, "dependencies": ["a"]})
    world.call("plan", "run-plan", planId=plan_id)
    assert world.call("plan", "get-plan", planId=plan_id)["status"] == "failed"
    assert statuses(world, plan_id) == {"a": "completed", "bad": "failed"}
    failed = world.call("plan", "get-plan", planId=plan_id)["tasks"][1]
    assert failed["result"]["error"]["code"] == "not-found", "why it failed is told with the task"
    world.call("plan", "update-task", planId=plan_id, **{**make("bad"), "dependencies": ["a"]})
    world.call("plan", "approve-plan", planId=plan_id)
    world.call("plan", "run-plan", planId=plan_id)
    assert world.call("plan", "get-plan", planId=plan_id)["status"] == "completed"
    assert [event.data["name"] for event in world.events("context.created")].count("a") == 1, "what was done is not done again"


def test_results_of_what_was_done_before_are_there_in_the_next_run_however_far_and_large(world: World) -> None:
    """A reference may go past a task that is done to one before it, which is done too; and a result may be larger than an expression."""
    bad = {"taskId": "bad", "module": "context", "operation": "get-context", "parameters": {"contextId": "x/none"}, "dependencies": ["b"]}
    plan_id = plan(world, make("a", metadata={"text": "x" * 10_000}), make("b", "a"), bad)
    world.call("plan", "run-plan", planId=plan_id)
    world.call("plan", "update-task", planId=plan_id, taskId="bad", parameters={"contextId": "${a.result.contextId}"})
    mended = world.call("plan", "get-plan", planId=plan_id)["tasks"][2]
    assert (mended["status"], mended["result"]) == ("pending", None), "why it failed before is told no more"
    world.call("plan", "approve-plan", planId=plan_id)
    world.call("plan", "run-plan", planId=plan_id)
    found = world.call("plan", "get-plan", planId=plan_id)
    first, last = found["tasks"][0]["result"], found["tasks"][2]["result"]
    assert (found["status"], last["metadata"]) == ("completed", first["metadata"])


@pytest.mark.parametrize(
    ("kind", "begins", "ends"),
    [("finish-to-start", False, False), ("start-to-start", True, True), ("finish-to-finish", True, False), ("start-to-finish", True, True)],
)
def test_each_type_of_dependency_holds_back_what_it_says(world: World, kind: str, begins: bool, ends: bool) -> None:
    plan_id = plan(world, {"taskId": "slow", "assignee": "ada"}, make("quick", {"taskId": "slow", "type": kind}))
    run = world.call("plan", "run-plan", planId=plan_id)
    expected = "completed" if ends else "running" if begins else "pending"
    assert statuses(world, plan_id)["quick"] == expected
    (asked,) = world.call("confirm", "list", executionId=run["executionId"], status="pending")["confirmations"]
    world.call("confirm", "approve", confirmId=asked["confirmId"], by="ada")
    assert statuses(world, plan_id) == {"slow": "completed", "quick": "completed"}


def test_a_plan_and_its_run_are_held_up_and_cancelled_together(world: World) -> None:
    plan_id = plan(world, {"taskId": "paint"})
    run = world.call("plan", "run-plan", planId=plan_id)["executionId"]
    world.call("plan", "activate-plan", planId=plan_id, status="paused")
    assert world.execution(run).status == "paused"
    world.call("plan", "activate-plan", planId=plan_id)
    assert world.execution(run).status == "running"
    world.call("plan", "cancel-plan", planId=plan_id)
    assert world.execution(run).status == "cancelled"


def test_what_cannot_be_run_is_refused(world: World) -> None:
    context = world.call("context", "create-context", name="room")["contextId"]
    draft = world.call("plan", "create-plan", contextId=context, tasks=[make("a")])["planId"]
    with pytest.raises(Refused, match="approve it first"):
        world.call("plan", "run-plan", planId=draft)
    running = plan(world, {"taskId": "paint"})
    world.call("plan", "run-plan", planId=running)
    with pytest.raises(Refused, match="runs already"):
        world.call("plan", "run-plan", planId=running)


def test_a_refused_run_says_what_is_wrong_with_which_task_and_changes_nothing(world: World) -> None:
    """One whose module only the orchestrator knows not to be there: the faults of the workflow are told of the plan's tasks."""
    ghost = plan(world, make("b c"), {"taskId": "a", "module": "ghost", "operation": "x", "dependencies": ["b c"]})
    before = world.call("plan", "get-plan", planId=ghost)
    request = world.ask("plan", "run-plan", {"planId": ghost})
    with pytest.raises(Refused, match="a fault: ") as refused:
        world.answer_of(request)
    assert (refused.value.code, refused.value.pointer) == ("definition.invalid", "/planId")
    assert [(each["code"], each["pointer"]) for each in world.responses[request].data["faults"]] == [("module.unknown", "/tasks/1/module")]
    after = world.call("plan", "get-plan", planId=ghost)
    assert after == before
    assert after["executionId"] is None, "no execution has begun"
    assert world.call("plan", "activate-plan", planId=ghost)["status"] == "active", "it may still be worked off by hand"


def test_a_refused_run_leaves_the_plan_the_execution_that_it_had(world: World) -> None:
    plan_id = plan(world, make("a"), {**make("b", "a"), "operation": "get-context", "parameters": {"contextId": "x/none"}})
    first = world.call("plan", "run-plan", planId=plan_id)["executionId"]
    world.call("plan", "update-task", planId=plan_id, taskId="b", module="ghost", operation="x", parameters={})
    world.call("plan", "approve-plan", planId=plan_id)
    with pytest.raises(Refused, match=r"definition\.invalid"):
        world.call("plan", "run-plan", planId=plan_id)
    assert world.call("plan", "get-plan", planId=plan_id)["executionId"] == first


def test_a_paused_plan_is_activated_before_it_is_run(world: World) -> None:
    paused = plan(world, make("a"))
    for status in ("active", "paused"):
        world.call("plan", "activate-plan", planId=paused, status=status)
    with pytest.raises(Refused, match="activate it first"):
        world.call("plan", "run-plan", planId=paused)


def test_an_operation_that_a_built_in_module_does_not_have_is_a_fault_of_the_plan(world: World) -> None:
    context = world.call("context", "create-context", name="room")["contextId"]
    tasks = [make("a"), {**make("b"), "operation": "invent"}]
    draft = world.call("plan", "create-plan", contextId=context, tasks=tasks)["planId"]
    found = world.call("plan", "validate-plan", planId=draft)
    assert [(each["code"], each["pointer"]) for each in found["faults"]] == [("operation.unknown", "/tasks/1/operation")]
    with pytest.raises(Refused, match="invent"):
        world.call("plan", "approve-plan", planId=draft)


def test_names_that_are_no_step_ids_are_run_too(world: World) -> None:
    plan_id = plan(world, make("paint the wall"), make("x--end", "paint the wall"), make("task-1", "x--end"))
    world.call("plan", "run-plan", planId=plan_id)
    assert set(statuses(world, plan_id).values()) == {"completed"}


def test_a_trace_of_the_plan_has_what_happened(world: World) -> None:
    plan_id = plan(world, make("a"), make("b", "a"))
    trace = world.call("trace", "start-monitoring", planId=plan_id)["traceId"]
    world.call("plan", "run-plan", planId=plan_id)
    names = [(each["type"], each["name"]) for each in world.call("trace", "get-trace", traceId=trace)["records"]]
    assert ("checkpoint", "plan.run-requested") in names or ("checkpoint", "plan.activated") in names
    assert ("completion", "a") in names
    assert ("completion", "b") in names


def test_a_trace_of_an_execution_has_its_steps_and_critical_path(world: World) -> None:
    wait = {"id": "pause", "type": "wait", "for": "2s"}
    work = {"id": "work", "type": "module-operation", "module": "context", "operation": "create-context", "parameters": {"name": "x"}}
    definition = {"id": "w", "name": "w", "steps": [wait, {**work, "dependencies": ["pause"]}]}
    again = {**wait, "id": "again", "dependencies": ["work"]}
    definition["steps"].append(again)
    execution = world.call("core", "execute-workflow", definition=definition)["executionId"]
    trace = world.call("trace", "start-monitoring", executionId=execution)["traceId"]
    world.wait(3)
    world.wait(3)
    found = world.call("trace", "analyze-trace", traceId=trace)
    assert [span["name"] for span in found["criticalPath"]] == ["work"]
    assert found["failures"] == 0
    assert world.call("trace", "get-trace", traceId=trace)["missed"] == 0


def task(name: str, duration: float, **types: Any) -> Task:
    return Task(task_id=name, name=name, dependencies=tuple(types), types=dict(types), duration_ms=duration)


def test_the_critical_path_is_the_longest_and_slack_is_what_others_have() -> None:
    found = validate([task("a", 5), task("b", 2), task("c", 3, a="finish-to-start", b="finish-to-start")])
    assert (found.critical_path, found.duration_ms) == (("a", "c"), 8)
    assert {slot.task_id: slot.slack_ms for slot in found.slots} == {"a": 0, "b": 3, "c": 0}


def test_circles_are_found_through_every_type() -> None:
    assert validate([task("a", 1, b="start-to-start"), task("b", 1, a="start-to-start")]).faults[0].code == "dependency.cycle"
    assert validate([task("a", 1, a="start-to-finish")]).faults[0].code == "dependency.cycle"
    assert not validate([task("a", 1, b="finish-to-finish"), task("b", 1, a="start-to-start")]).faults


def test_the_trace_of_the_example_tells_all_its_steps_with_their_times(world: World) -> None:
    """The trace begins in the middle of the execution that it is about: what happened before belongs to the story, too."""
    example = orjson.loads((Path(__file__).resolve().parents[3] / "examples" / "multi-agent-collaboration.json").read_bytes())
    execution = world.call("core", "execute-workflow", definition=example, executionId="e-1")["executionId"]
    world.settle()
    assert world.execution(execution).status == "completed"
    (trace,) = world.call("trace", "list-traces")["traces"]
    found = world.call("trace", "analyze-trace", traceId=trace["traceId"])
    steps = {"context-setup", "role-assignment", "plan-creation", "trace-execution", "dialog-facilitation", "execution-monitoring"}
    assert {span["span"] for span in found["spans"]} == {*steps, "execution"} == set(found["durations"])
    assert found["openSpans"] == []
    first, last = (pick(each[moment] for each in found["spans"]) for pick, moment in ((min, "startedAt"), (max, "endedAt")))
    world.wait(60)
    later = world.call("trace", "analyze-trace", traceId=trace["traceId"])
    assert later == found, "nothing has happened since"
    assert found["durationMs"] == (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() * 1000
    path = [span["span"] for span in found["criticalPath"]]
    assert path[:3] == ["context-setup", "role-assignment", "plan-creation"]
    assert path[3] in ("trace-execution", "dialog-facilitation")
    assert world.call("trace", "get-trace", traceId=trace["traceId"])["missed"] == 0


@pytest.mark.parametrize(("operation", "status"), [("cancel-plan", "cancelled"), ("activate-plan", "paused")])
def test_who_moves_a_plan_before_its_run_has_begun_moves_the_run(world: World, operation: str, status: str) -> None:
    far = 1 - partition_of("home", 2)
    while True:
        plan_id = plan(world, {"taskId": "paint"})
        world.call("plan", "activate-plan", planId=plan_id)
        world.away = {far}
        request = world.ask("plan", "run-plan", {"planId": plan_id})
        run = world.state(plan_id).run
        world.away = set()
        if run.status == "requested":  # its orchestrator was away
            break
    world.call("plan", operation, {"planId": plan_id, "status": status})
    world.take_over(partition_of("home", 2))
    assert world.answer_of(request)["executionId"] == run.execution_id
    assert world.execution(run.execution_id).status == status
    found = world.call("plan", "get-plan", planId=plan_id)
    assert (found["status"], world.state(plan_id).run.status) == (status, "ended" if status == "cancelled" else "running")


def run_elsewhere(world: World) -> tuple[str, str]:
    """A plan that runs, and its execution, which another partition has."""
    while True:
        plan_id = plan(world, {"taskId": "paint"})
        run = world.call("plan", "run-plan", planId=plan_id)["executionId"]
        if partition_of(run, 2) != partition_of("home", 2):
            return plan_id, run


def test_a_cancelled_run_is_cancelled_by_a_new_owner_if_the_first_died_before_it_said_so(world: World) -> None:
    plan_id, run = run_elsewhere(world)
    world.away = {partition_of(run, 2)}
    world.call("plan", "cancel-plan", planId=plan_id)
    world.away = set()
    assert world.execution(run).status == "running", "nobody has told it"
    world.take_over(partition_of("home", 2))
    assert world.execution(run).status == "cancelled"
    assert list(world.modules[partition_of("home", 2)].machine.outstanding(world.state(plan_id))) == []


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("ending", ["cancelled", "failed", "failed, a draft again", "failed, approved again"])
def test_a_plan_that_is_ended_and_deleted_takes_its_run_with_it_wherever_its_owner_dies(partitions: int, ending: str) -> None:
    after, died = 0, True
    while died:
        world = World(partitions=partitions)
        plan_id = plan(world, {"taskId": "paint"})
        run = world.call("plan", "run-plan", planId=plan_id)["executionId"]
        if ending == "cancelled":
            world.post("plan", "cancel-plan", {"planId": plan_id})
        else:
            world.post("plan", "complete-plan", {"planId": plan_id, "status": "failed"})
        if "again" in ending:
            world.post("plan", "update-task", {"planId": plan_id, "taskId": "paint", "name": "paint it red"})
        if "approved" in ending:
            world.post("plan", "approve-plan", {"planId": plan_id})
        deletion = world.post("plan", "delete-plan", {"planId": plan_id})
        died = world.die(after)
        world.settle()
        assert world.execution(run).status == "cancelled", f"died after {after} deliveries"
        assert world.answer_of(deletion)["deleted"] is True
        assert world.state(plan_id) is None, "nothing is left of it"
        after += 1
    assert after > 4


def test_what_is_left_of_a_deleted_plan_is_not_seen(world: World) -> None:
    plan_id, run = run_elsewhere(world)
    world.away = {partition_of(run, 2)}
    world.call("plan", "cancel-plan", planId=plan_id)
    world.call("plan", "delete-plan", planId=plan_id)
    assert world.state(plan_id) is not None, "its run has not ended"
    for operation in ("get-plan", "delete-plan", "cancel-plan", "run-plan"):
        with pytest.raises(Refused, match="not-found"):
            world.call("plan", operation, planId=plan_id)
    with pytest.raises(Refused, match="not-found"):
        world.call("trace", "start-monitoring", planId=plan_id)
    listed = world.ask("plan", "list-plans")
    world.wait(3)  # for the partition that nobody owns
    assert plan_id not in [each["planId"] for each in world.answer_of(listed)["plans"]]


@pytest.mark.parametrize("status", ["draft", "approved", "active"])
def test_the_end_of_a_run_that_was_given_up_does_not_move_a_plan_that_goes_on(world: World, status: str) -> None:
    plan_id = plan(world, {"taskId": "paint"})
    run = world.call("plan", "run-plan", planId=plan_id)["executionId"]
    world.post("plan", "complete-plan", {"planId": plan_id, "status": "failed"})
    if status == "active":
        world.post("plan", "activate-plan", {"planId": plan_id})
    else:
        world.post("plan", "update-task", {"planId": plan_id, "taskId": "paint", "name": "paint it red"})
    if status == "approved":
        world.post("plan", "approve-plan", {"planId": plan_id})
    world.settle()
    assert world.execution(run).status == "cancelled"
    assert world.call("plan", "get-plan", planId=plan_id)["status"] == status
    again = world.call("plan", "get-plan", planId=plan_id)
    assert (world.state(plan_id).run.status, world.state(plan_id).ending, again["tasks"][0]["status"]) == ("ended", False, "running")


def test_a_plan_whose_run_is_about_to_begin_is_not_deleted(world: World) -> None:
    world.away = {1 - partition_of("home", 2)}
    while True:
        plan_id = plan(world, {"taskId": "paint"})
        world.ask("plan", "run-plan", {"planId": plan_id})
        if world.state(plan_id).run.status == "requested":
            break
    with pytest.raises(Refused, match="about to begin"):
        world.call("plan", "delete-plan", planId=plan_id)
    world.away = set()
    world.take_over(partition_of("home", 2))
    world.call("plan", "cancel-plan", planId=plan_id)
    assert world.call("plan", "delete-plan", planId=plan_id)["deleted"] is True
