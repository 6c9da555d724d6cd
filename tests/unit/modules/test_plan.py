from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.modules.plan.graph import validate
from services.modules.plan.state import TASK_TRANSITIONS, TRANSITIONS, Task

CHAIN = (("design", []), ("build", ["design"]), ("test", ["build"]))


def act(modules: Any, operation: str, plan: str, /, **more: Any) -> Any:
    return modules.call("plan", operation, planId=plan, **more)


def activate(modules: Any, plan: str) -> None:
    act(modules, "approve-plan", plan)
    act(modules, "activate-plan", plan)


def report(modules: Any, plan: str, task: str, status: str, **more: Any) -> Any:
    return act(modules, "update-task", plan, taskId=task, status=status, **more)


def test_a_new_plan_is_a_draft_with_what_it_was_given(modules: Any) -> None:
    context = modules.context()
    assignments = modules.call("role", "assign-roles", contextId=context, roles=["a", "b"]).result["assignments"]
    created = modules.call("plan", "create-plan", contextId=context, assignedRoles=assignments, name="release")
    assert created.types == ["plan.created"]
    assert created.result["status"] == "draft"
    assert created.result["assignedRoles"] == assignments
    assert act(modules, "get-plan", created.result["planId"]).result == created.result


def test_a_plan_needs_an_active_context(modules: Any) -> None:
    assert modules.call("plan", "create-plan", contextId="exec-1/context-0").refused == ("not-found", "/contextId")
    context = modules.context()
    modules.call("context", "transition-lifecycle", contextId=context, status="completed")
    assert modules.call("plan", "create-plan", contextId=context).refused == ("conflict", "/contextId")


def test_a_plan_without_a_context_stands_alone(modules: Any) -> None:
    created = modules.call("plan", "create-plan", name="o-7", tasks=[{"taskId": "a"}]).result
    assert (created["contextId"], created["status"]) == (None, "draft")
    activate(modules, created["planId"])
    assert act(modules, "get-plan", created["planId"]).result["status"] == "active"
    refused = modules.call("trace", "start-monitoring", planId=created["planId"], contextId=modules.context())
    assert refused.refused == ("conflict", "/contextId")


def test_a_task_id_is_unique(modules: Any) -> None:
    tasks = [{"taskId": "a"}, {"taskId": "a"}]
    assert modules.call("plan", "create-plan", contextId=modules.context(), tasks=tasks).refused == ("invalid", "/tasks/1/taskId")


def test_a_sound_plan_is_valid_and_its_order_is_told(modules: Any) -> None:
    plan = modules.plan(("test", ["build", "docs"]), ("docs", ["design"]), ("build", ["design"]), ("design", []))
    found = act(modules, "validate-plan", plan).result
    assert found["valid"] is True
    assert found["order"] == ["design", "docs", "build", "test"]
    assert found["stages"] == [["design"], ["docs", "build"], ["test"]]
    assert len(found["longestChain"]) == 3


def test_all_faults_of_a_plan_are_told_with_their_places(modules: Any) -> None:
    plan = modules.plan(("a", ["c"]), ("b", ["a", "ghost"]), ("c", ["b"]), ("d", ["d"]))
    found = act(modules, "validate-plan", plan).result
    assert found["valid"] is False
    assert [(fault["code"], fault["pointer"]) for fault in found["faults"]] == [
        ("dependency.cycle", "/tasks"),
        ("dependency.cycle", "/tasks"),
        ("dependency.unknown", "/tasks/1/dependencies/1"),
    ]
    assert "a, b, c" in found["faults"][0]["message"]
    assert found["order"] == []


@pytest.mark.parametrize("operation", ["approve-plan"])
@pytest.mark.parametrize("tasks", [(), (("a", ["b"]), ("b", ["a"])), (("a", ["ghost"]),)])
def test_a_plan_that_cannot_run_is_not_approved(modules: Any, operation: str, tasks: Any) -> None:
    plan = modules.plan(*tasks)
    refused = act(modules, operation, plan)
    assert refused.refused == ("conflict", "/planId")
    assert refused.response.data["faults"]
    assert act(modules, "get-plan", plan).result["status"] == "draft"


def test_from_draft_to_completed(modules: Any) -> None:
    plan = modules.plan(*CHAIN)
    approved = act(modules, "approve-plan", plan, by="ada")
    assert (approved.types, approved.result["approvedBy"]) == (["plan.approved"], "ada")
    assert act(modules, "activate-plan", plan).types == ["plan.activated"]
    for task, _ in CHAIN:
        report(modules, plan, task, "running")
        report(modules, plan, task, "completed", result={"by": task})
    progress = act(modules, "get-plan", plan).result
    assert progress["progress"] == 1.0
    assert [task["result"] for task in progress["tasks"]] == [{"by": task} for task, _ in CHAIN]
    assert act(modules, "complete-plan", plan).types == ["plan.completed"]
    assert act(modules, "cancel-plan", plan, status="archived").types == ["plan.archived"]


def test_a_plan_is_not_completed_before_its_tasks(modules: Any) -> None:
    plan = modules.plan(*CHAIN)
    activate(modules, plan)
    report(modules, plan, "design", "completed")
    refused = act(modules, "complete-plan", plan)
    assert refused.error.code == "conflict"
    assert "build, test" in refused.error.message
    assert act(modules, "complete-plan", plan, status="failed").types == ["plan.failed"]


def test_a_task_waits_for_what_it_depends_on(modules: Any) -> None:
    plan = modules.plan(*CHAIN)
    activate(modules, plan)
    assert [task["ready"] for task in act(modules, "get-plan", plan).result["tasks"]] == [True, False, False]
    assert report(modules, plan, "build", "running").refused == ("conflict", "/status")
    report(modules, plan, "design", "skipped")
    assert report(modules, plan, "build", "running").types == ["plan.task-updated"]


def test_tasks_are_reported_on_in_an_active_plan_only(modules: Any) -> None:
    plan = modules.plan(*CHAIN)
    assert report(modules, plan, "design", "running").refused == ("conflict", "/planId")
    activate(modules, plan)
    assert report(modules, plan, "ghost", "running").refused == ("not-found", "/taskId")
    assert act(modules, "update-task", plan, taskId="design", name="new").refused == ("conflict", "/planId")


@pytest.mark.parametrize("before", TASK_TRANSITIONS)
@pytest.mark.parametrize("after", TASK_TRANSITIONS)
def test_tasks_follow_their_table(modules: Any, before: str, after: str) -> None:
    plan = modules.plan(("a", []))
    activate(modules, plan)
    for status in {"pending": [], "running": ["running"], "failed": ["running", "failed"]}.get(before, [before]):
        report(modules, plan, "a", status)
    answer = report(modules, plan, "a", after)
    if after in TASK_TRANSITIONS[before]:  # type: ignore[index]
        assert answer.result["tasks"][0]["status"] == after
    else:
        assert answer.error.code == "conflict"


def test_a_draft_grows_and_changes(modules: Any) -> None:
    plan = modules.plan(("a", []))
    act(modules, "update-task", plan, taskId="b", dependencies=["a"], assignee="tester")
    changed = act(modules, "update-task", plan, taskId="a", name="first").result["tasks"]
    assert [(task["taskId"], task["name"], task["dependencies"], task["assignee"]) for task in changed] == [
        ("a", "first", [], None),
        ("b", "b", ["a"], "tester"),
    ]


def test_a_failed_plan_that_is_changed_is_a_draft_again(modules: Any) -> None:
    plan = modules.plan(("a", []))
    act(modules, "approve-plan", plan, by="ada")
    act(modules, "activate-plan", plan)
    report(modules, plan, "a", "running")
    report(modules, plan, "a", "failed")
    act(modules, "complete-plan", plan, status="failed")
    changed = act(modules, "update-task", plan, taskId="a", name="again")
    assert changed.types == ["plan.reopened", "plan.task-updated"]
    assert (changed.result["status"], changed.result["approvedBy"], changed.result["tasks"][0]["status"]) == ("draft", None, "pending")


#: How a plan comes into each state.
ACTIVE: list[tuple[str, dict[str, str]]] = [("approve-plan", {}), ("activate-plan", {})]
DONE: tuple[str, dict[str, str]] = ("update-task", {"taskId": "a", "status": "completed"})
PATHS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "draft": [],
    "approved": [("approve-plan", {})],
    "active": ACTIVE,
    "paused": [*ACTIVE, ("activate-plan", {"status": "paused"})],
    "completed": [*ACTIVE, DONE, ("complete-plan", {})],
    "failed": [*ACTIVE, DONE, ("complete-plan", {"status": "failed"})],
    "cancelled": [("cancel-plan", {})],
    "archived": [("cancel-plan", {}), ("cancel-plan", {"status": "archived"})],
}
#: Which operation leads into each state.
INTO: dict[str, tuple[str, dict[str, str]]] = {
    "approved": ("approve-plan", {}),
    "active": ("activate-plan", {}),
    "paused": ("activate-plan", {"status": "paused"}),
    "completed": ("complete-plan", {}),
    "failed": ("complete-plan", {"status": "failed"}),
    "cancelled": ("cancel-plan", {}),
    "archived": ("cancel-plan", {"status": "archived"}),
    "draft": ("update-task", {"taskId": "a", "name": "changed"}),
}


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", TRANSITIONS)
def test_plans_follow_their_table(modules: Any, before: str, after: str) -> None:
    plan = modules.plan(("a", []))
    for operation, more in PATHS[before]:
        act(modules, operation, plan, **more)
    assert act(modules, "get-plan", plan).result["status"] == before
    if before == "active" and after == "completed":
        report(modules, plan, "a", "completed")
    operation, more = INTO[after]
    answer = act(modules, operation, plan, **more)
    if after in TRANSITIONS[before] or before == after == "draft":  # type: ignore[index]
        assert answer.result["status"] == after
    else:
        assert answer.error.code == "conflict"
        assert act(modules, "get-plan", plan).result["status"] == before


def test_a_plan_is_activated_in_an_active_context_only(modules: Any) -> None:
    plan = modules.plan(("a", []))
    context = act(modules, "get-plan", plan).result["contextId"]
    modules.call("context", "transition-lifecycle", contextId=context, status="suspended")
    assert act(modules, "activate-plan", plan).refused == ("conflict", "/planId")


@pytest.mark.parametrize(
    "operation", ["get-plan", "validate-plan", "approve-plan", "activate-plan", "update-task", "complete-plan", "cancel-plan"]
)
def test_an_unknown_plan_is_not_found(modules: Any, operation: str) -> None:
    more = {"taskId": "a"} if operation == "update-task" else {}
    assert act(modules, operation, "exec-1/plan-0", **more).refused == ("not-found", "/planId")


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"taskId": "a", "status": "running", "name": "x"}, ""),
        ({"taskId": "a", "result": 1}, ""),
        ({"taskId": "a", "status": "asleep"}, "/status"),
        ({"name": "x"}, ""),
        ({"taskId": "a", "parameters": {"x": 1}}, "/parameters"),
        ({"taskId": "a", "operation": "create-context", "parameters": {}}, "/parameters"),
        ({"taskId": "new", "operation": "create-context"}, "/operation"),
        ({"taskId": "a", "module": "context"}, "/module"),
        ({"taskId": "a", "status": "running", "parameters": {}}, ""),
    ],
)
def test_a_task_update_that_makes_no_sense_is_invalid(modules: Any, more: dict[str, Any], pointer: str) -> None:
    assert act(modules, "update-task", modules.plan(("a", [])), **more).refused == ("invalid", pointer)


def test_what_an_update_of_a_task_does_not_give_stays(modules: Any) -> None:
    plan = modules.plan(("a", []))
    call = {"module": "context", "operation": "create-context", "parameters": {"name": "x"}}

    def update(**more: Any) -> dict[str, Any]:
        (task,) = act(modules, "update-task", plan, taskId="a", **more).result["tasks"]
        return {name: task[name] for name in call}

    assert update(**call) == call
    assert update(parameters={"name": "y"}) == {**call, "parameters": {"name": "y"}}
    assert update(operation="list-contexts") == {**call, "operation": "list-contexts", "parameters": {"name": "y"}}
    assert update(module="dialog") == {"module": "dialog", "operation": "list-contexts", "parameters": {"name": "y"}}
    assert update(name="first", parameters={}) == {"module": "dialog", "operation": "list-contexts", "parameters": {}}


tasks = st.lists(st.tuples(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefg"), max_size=3)), unique_by=lambda task: task[0])


@given(tasks)
def test_a_graph_has_faults_or_an_order_that_respects_every_dependency(listed: list[tuple[str, list[str]]]) -> None:
    graph = [Task(task_id=name, name=name, dependencies=tuple(dependencies)) for name, dependencies in listed]
    found = validate(graph)
    assert sorted(found.order) == ([] if found.faults else sorted(name for name, _ in listed))
    place = {name: index for index, name in enumerate(found.order)}
    assert all(place[dependency] < place[task.task_id] for task in graph if found.order for dependency in task.dependencies)
    assert sorted(name for stage in found.stages for name in stage) == sorted(found.order)
    for fault in found.faults:
        if fault.code == "dependency.unknown":
            _, _, task, _, dependency = fault.pointer.split("/")
            assert graph[int(task)].dependencies[int(dependency)] not in place
