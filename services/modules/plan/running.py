"""A plan that is run: its tasks become a workflow, and what happens in the workflow is what happens to the tasks. Pure.

A task with a module and an operation is a step that calls it; a task without is a step that asks people. What a workflow knows is
finish-to-start. The other types of dependencies become that as follows, and keep their meaning:

- *start-to-start*: the task waits for all that the other's start waits for, and so begins at the same moment at the earliest;
- *…-to-finish*: a second step ends the task (`<task>~end` in the workflow: `<task>--end`), and waits for the task's own step as well as for
  the other's end, or for what its start waits for. What depends on the task's end depends on that step.

The orchestrator tells the plan what happens (notification `collect`, `streams.operations.MONITOR`), again if need be, in order of the
execution's events; the plan takes note of each once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from services.modules.context.decide import open_context
from services.modules.lookup import find
from services.modules.operation import NOTHING_FOLLOWS, Answered, Decided, Follow, Outcome, Pending, Refusal, Request, conflict, short_id
from services.modules.outgoing import asked_by, command
from services.modules.plan.evolve import evolve_plan
from services.modules.plan.operations import RunPlan, RunResult
from services.modules.plan.state import (
    LIFECYCLE,
    OVER,
    TASK_DONE,
    TASK_TRANSITIONS,
    DeletedPlan,
    Plan,
    PlanEvent,
    PlanTransitioned,
    Run,
    RunEnded,
    RunFollowed,
    RunRequested,
    RunStarted,
    Status,
    Task,
    TaskStatus,
    TaskUpdated,
)
from streams.errors import Violation
from streams.limits import PAYLOAD_BYTES_MAX
from streams.log.types import Send, View
from streams.operations import COLLECT
from streams.records import CommandName, Json, ModuleMessage, derived_id

END_SUFFIX = "--end"
#: Name, in the workflow's input, of the results of tasks that were done before.
DONE_INPUT = "done"
#: What people may answer who were asked to do a task.
DONE, SKIPPED = "done", "skipped"

#: A pointer into a step of the workflow: the step's place, and the rest.
_STEP = re.compile(r"/steps/([0-9]+)(.*)", re.DOTALL)
_STEP_ID = re.compile(r"[\w-]+")
_ENDINGS: Mapping[str, Status] = {
    "execution.completed": "completed",
    "execution.failed": "failed",
    "execution.timed_out": "failed",
    "execution.cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """A plan as a workflow."""

    definition: dict[str, Any]
    input: dict[str, Any]  #: what tasks have brought that were done before
    tasks: Mapping[str, str]  #: step id → task id; also of the steps that end a task
    last: Mapping[str, str]  #: task id → the step with which it is completed


def translate(plan: Plan) -> Translated:
    """The workflow of a plan whose graph is sound."""
    names = _step_names(plan)
    gated = {task.task_id for task in plan.tasks.values() if any(task.type_of(each).endswith("finish") for each in task.dependencies)}
    last = {task_id: names[task_id] + (END_SUFFIX if task_id in gated else "") for task_id in plan.tasks}
    begins: dict[str, list[str]] = {}

    def begin(task_id: str) -> list[str]:
        """The steps that the task's start waits for."""
        if task_id not in begins:
            task, found = plan.tasks[task_id], []
            for each in task.dependencies:
                kind = task.type_of(each)
                found += [last[each]] if kind == "finish-to-start" else begin(each) if kind == "start-to-start" else []
            begins[task_id] = list(dict.fromkeys(found))
        return begins[task_id]

    from services.modules.plan.graph import validate  # the order is made with a library that takes a second to load

    steps: list[dict[str, Any]] = []
    done: dict[str, Json] = {}
    for task_id in validate(tuple(plan.tasks.values())).order:
        task = plan.tasks[task_id]
        if task.status in TASK_DONE:
            # What is done is not done again; what refers to its result, or to one of a task before it, gets it.
            done[names[task_id]] = task.result
            value = f'input.{DONE_INPUT}["{names[task_id]}"]'
            steps.append({"id": names[task_id], "type": "transform", "value": value, "dependencies": begin(task_id)})
        else:
            steps.append({"id": names[task_id], **_work(task), "dependencies": begin(task_id)})
        if task_id in gated:
            waits = [names[task_id]]
            for each in task.dependencies:
                kind = task.type_of(each)
                waits += [last[each]] if kind == "finish-to-finish" else begin(each) if kind == "start-to-finish" else []
            steps.append({"id": last[task_id], "type": "transform", "value": "null", "dependencies": list(dict.fromkeys(waits))})
    definition = {"id": f"plan-{short_id(plan.plan_id, plan.runs)}", "name": plan.name, "steps": steps}
    tasks = {step: task for task, step in names.items()} | {step: task for task, step in last.items()}
    return Translated(definition=definition, input={DONE_INPUT: done} if done else {}, tasks=tasks, last=last)


def _step_names(plan: Plan) -> dict[str, str]:
    """A step id for every task: its own id where that may be one."""
    taken = {task_id for task_id in plan.tasks if _STEP_ID.fullmatch(task_id) and not task_id.endswith(END_SUFFIX)}
    names: dict[str, str] = {}
    for number, task_id in enumerate(plan.tasks, 1):
        name, extra = task_id, number
        while task_id not in taken and (name in taken or name == task_id):
            name, extra = f"task-{extra}", extra + len(plan.tasks)
        names[task_id] = name
        taken.add(name)
    return names


def _work(task: Task) -> dict[str, Any]:
    if task.module is not None:
        return {"type": "module-operation", "module": task.module, "operation": task.operation, "parameters": task.parameters or {}}
    assignees = [] if task.assignee is None else [task.assignee]
    return {"type": "approval", "title": task.name.replace("${", "$${"), "choices": [DONE, SKIPPED], "assignees": assignees}


# --- beginning -----------------------------------------------------------------------------------------------------------


def run_plan(view: View[Any], parameters: RunPlan, request: Request) -> Outcome:
    """Runs an approved or active plan: its tasks become a workflow, in which those with an operation run by themselves."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    if plan.run is not None and plan.run.caller is not None and plan.run.caller.request_id == request.id:
        return Pending(aggregate_id=plan.plan_id)
    if plan.run is not None and plan.run.status != "ended":
        return conflict(f"The plan runs already, as {plan.run.execution_id}.", "/planId")
    if plan.status not in ("approved", "active"):
        advice = {"draft": "; approve it first", "paused": "; activate it first"}.get(plan.status, "")
        return conflict(f"A plan that is {plan.status} is not run{advice}.", "/planId")
    context = None if plan.context_id is None else open_context(view, plan.context_id, pointer="/planId")
    if isinstance(context, Refusal):
        return context
    if len(orjson.dumps(_start(plan))) > PAYLOAD_BYTES_MAX:
        message = f"The plan as a workflow, with the results of what is done, is larger than {PAYLOAD_BYTES_MAX} bytes."
        return Refusal(code="payload.too-large", message=message, pointer="/planId")
    event = RunRequested(execution_id=derived_id("plan-run", plan.plan_id, request.id), caller=request.caller)
    after = evolve_plan(plan, event, plan.plan_id, request.time_us)
    assert after is not None
    decided = Decided(aggregate_id=plan.plan_id, event=event)
    return Pending(aggregate_id=plan.plan_id, events=(decided,), effects=tuple(outstanding(after)))


def outstanding(plan: Plan) -> Iterator[Send]:
    """The start of a run that nobody has answered, or the end of one that goes on although the plan does not."""
    run = plan.run
    if run is None:
        return
    if plan.ending:
        yield _cancel(plan, run, plan.status, plan.updated_us)
    if run.status != "requested" or run.caller is None:
        return
    yield command(
        run.execution_id, "start", _start(plan), id=derived_id("run", run.execution_id), source="mplp/modules/plan",
        time_us=run.requested_us, correlation_id=run.caller.correlation_id, tenant=run.caller.tenant, answer=("plan", plan.plan_id, "run"),
    )  # fmt: skip


def _start(plan: Plan) -> dict[str, Any]:
    """What starts the workflow of a plan."""
    translated = translate(plan)
    return {
        "definition": translated.definition,
        "input": translated.input,
        "by": f"plan {plan.plan_id}",
        "monitors": [{"module": "plan", "id": plan.plan_id}],
    }


def command_to_run(plan: Plan, after: Status, request: Request) -> tuple[Send, ...]:
    """What the workflow of a plan is told when somebody moves the plan. One that has not begun yet is told as soon as it has."""
    run = plan.run
    if run is None or run.status != "running":
        return ()
    if after in OVER:
        return (_cancel(plan, run, after, request.time_us),)
    if plan.ending:
        return ()
    name: CommandName | None = "pause" if after == "paused" else "resume" if plan.status == "paused" and after == "active" else None
    return () if name is None else (_command(plan, run, name, after, request.time_us, request.id),)


def owed(plan: DeletedPlan) -> Iterator[Send]:
    """The end of the run of a plan that was deleted."""
    yield _cancel(plan, plan.run, plan.status, plan.updated_us)


def _cancel(plan: Plan | DeletedPlan, run: Run, status: Status, time_us: int) -> Send:
    """Its id is the same whenever it is sent: the workflow takes it once."""
    return _command(plan, run, "cancel", status, time_us, run.execution_id)


def _command(plan: Plan | DeletedPlan, run: Run, name: CommandName, status: Status, time_us: int, *origin: str) -> Send:
    data = {"by": f"plan {plan.plan_id}", "why": f"the plan is {status}"}
    id_ = derived_id("plan-command", plan.plan_id, *origin)
    return command(run.execution_id, name, data, id=id_, source="mplp/modules/plan", time_us=time_us)


# --- following -----------------------------------------------------------------------------------------------------------


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """What the orchestrator says of the run of a plan: that it has begun or was refused, and what happens in it."""
    if message.kind == "response":
        plan = view.state(asked_by(message)[0])
        return _answered(plan, message, time_us) if isinstance(plan, Plan) else NOTHING_FOLLOWS
    if message.kind != "notification" or message.operation != COLLECT or not isinstance(message.data, dict):
        return None
    plan = view.state(str(message.data.get("id")))
    entries = message.data.get("entries")
    if not isinstance(plan, Plan | DeletedPlan) or plan.run is None or not isinstance(entries, list):
        return NOTHING_FOLLOWS
    if message.data.get("execution_id") != plan.run.execution_id:
        return NOTHING_FOLLOWS
    told = [each for each in entries if isinstance(each, dict)]
    if isinstance(plan, DeletedPlan) or plan.ending:
        return _ended(plan, plan.run.execution_id, told, message.correlation_id)
    return _followed(plan, plan.run.execution_id, told, message.correlation_id, time_us)


def _ended(plan: Plan | DeletedPlan, execution_id: str, entries: list[dict[str, Any]], correlation_id: str) -> Follow:
    """Of a run that was told to end nothing counts but that it has."""
    for entry in entries:
        kind, sequence = str(entry.get("type")), entry.get("sequence")
        if kind in _ENDINGS and isinstance(sequence, int):
            events = (RunFollowed(sequence=sequence), RunEnded(execution_id=execution_id, status=kind.partition(".")[2]))
            return Follow(events=tuple(Decided(aggregate_id=plan.plan_id, event=event, correlation_id=correlation_id) for event in events))
    return NOTHING_FOLLOWS


def _answered(plan: Plan, message: ModuleMessage, time_us: int) -> Follow:
    run = plan.run
    if run is None or run.caller is None or message.causation_id != derived_id("run", run.execution_id):
        return NOTHING_FOLLOWS
    answer: Any
    events: list[PlanEvent]
    if message.status == "success":
        events = [*_begun(plan), RunStarted(execution_id=run.execution_id)]
        result = RunResult(plan_id=plan.plan_id, execution_id=run.execution_id, status=str(message.data.get("status", "running")))
        answer = result.model_dump(mode="json", by_alias=True)
    else:
        events = [RunEnded(execution_id=run.execution_id, status="refused")]
        answer = _refused(plan, message)
    after: Plan | None = plan
    for event in events:
        after = evolve_plan(after, event, plan.plan_id, time_us)
    assert after is not None
    # Whoever moved the plan while the start was on its way meant the run, too.
    effects = list(outstanding(after))
    if after.status == "paused" and after.run is not None and after.run.status == "running":
        effects.append(_command(after, after.run, "pause", "paused", time_us, run.execution_id, "paused"))
    decided = tuple(Decided(aggregate_id=plan.plan_id, event=event, correlation_id=run.caller.correlation_id) for event in events)
    return Follow(events=decided, effects=tuple(effects), answers=(Answered(caller=run.caller, aggregate_id=plan.plan_id, answer=answer),))


def _begun(plan: Plan) -> Iterator[PlanEvent]:
    """An approved plan is active as soon as its run has begun: one that is refused changes nothing."""
    if plan.status == "approved":
        yield PlanTransitioned(before=plan.status, after="active", reason="run")


def _refused(plan: Plan, message: ModuleMessage) -> Refusal:
    """Why the workflow was refused, in terms of the plan: what is said of a step is said of its task."""
    error = message.error
    code, text = ("failed", "") if error is None else (error.code, error.message)
    listed = message.data.get("faults") if isinstance(message.data, dict) else None
    steps, places = translate(plan), {task_id: place for place, task_id in enumerate(plan.tasks)}
    faults: list[Violation] = []
    for fault in listed if isinstance(listed, list) else ():
        found = _STEP.match(str(fault.get("pointer")))
        task_id = steps.tasks.get(steps.definition["steps"][int(found[1])]["id"]) if found else None
        pointer = f"/tasks/{places[task_id]}{found[2]}" if found and task_id is not None else "/planId"
        faults.append(Violation(code=str(fault.get("code")), pointer=pointer, message=str(fault.get("message"))))
    if faults:
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults; the first"
        text = f"The plan as a workflow has {count}: {faults[0].message}"
    return Refusal(code=code, message=text, pointer="/planId", faults=tuple(faults))


def _followed(plan: Plan, execution_id: str, entries: list[dict[str, Any]], correlation_id: str, time_us: int) -> Follow:
    translated = translate(plan)
    events: list[PlanEvent] = list(_begun(plan))
    after: Plan | None = plan
    for event in events:
        after = evolve_plan(after, event, plan.plan_id, time_us)
    assert plan.run is not None
    sequence = plan.run.sequence
    for entry in sorted(entries, key=lambda entry: entry.get("sequence") or 0):
        number = entry.get("sequence")
        if not isinstance(number, int) or number <= sequence:
            continue
        sequence = number
        for event in _happened(after, translated, entry, execution_id) if after is not None else ():
            events.append(event)
            after = evolve_plan(after, event, plan.plan_id, time_us)
    if sequence > plan.run.sequence:
        events.append(RunFollowed(sequence=sequence))
    return Follow(events=tuple(Decided(aggregate_id=plan.plan_id, event=event, correlation_id=correlation_id) for event in events))


def _happened(plan: Plan, translated: Translated, entry: Mapping[str, Any], execution_id: str) -> Iterator[PlanEvent]:
    kind = str(entry.get("type"))
    if kind in _ENDINGS:
        yield RunEnded(execution_id=execution_id, status=kind.partition(".")[2])
        status = _ENDINGS[kind]
        if LIFECYCLE.refusal(plan.status, status) is None:
            yield PlanTransitioned(before=plan.status, after=status, reason=f"execution {execution_id} {kind.partition('.')[2]}")
        return
    step = str(entry.get("step"))
    task = plan.tasks.get(translated.tasks.get(step, ""))
    if task is None or plan.status not in ("active", "paused"):
        return
    is_last, is_gate = step == translated.last[task.task_id], step.endswith(END_SUFFIX) and step != task.task_id
    result = task.result if is_gate else entry.get("result")
    wanted: TaskStatus | None = None
    match kind:
        case "step.started" if not is_gate:
            wanted = "running"
        case "step.completed":
            chosen = result.get("choice") if isinstance(result, dict) and task.module is None else None
            wanted = ("skipped" if chosen == SKIPPED else "completed") if is_last else "running"
        case "step.skipped":
            wanted = "skipped"
        case "step.failed" | "step.timed_out" | "step.cancelled":
            wanted = "failed" if task.status == "running" else None
    if wanted is None or (wanted != task.status and wanted not in TASK_TRANSITIONS[task.status]):
        return
    if wanted == task.status and (wanted in TASK_DONE or result == task.result):
        return
    error = entry.get("error")
    kept = result if kind == "step.completed" else {"error": error} if wanted == "failed" and error is not None else task.result
    yield TaskUpdated(task=replace(task, status=wanted, result=kept), before=task.status)
