"""`evolve`: how each transition changes an execution. It reads nothing but the state and the event, and derives nothing anew.

The table `EVOLVERS` is the whole story: one small function per transition type. Unknown types change nothing but the sequence,
so that an older version can read a log that a newer one has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from services.orchestrator import heartbeats
from services.orchestrator.evolve_commands import COMMAND_EVOLVERS, monitors_of, remembered, without_signal
from services.orchestrator.state import (
    ENDED,
    QUIET,
    UNTOUCHED,
    Child,
    Emitted,
    Error,
    Execution,
    OpenApproval,
    Parent,
    StepState,
    StepStatus,
    Turns,
    all_timers,
    anew,
    completions,
    json_bytes,
    put_step,
    replace_execution,
    replace_step,
)
from services.orchestrator.turn_events import TURN_EVOLVERS
from streams.log.persistent import PersistentMap
from streams.records import WorkflowTransition, to_micros


def evolve(state: Execution | None, event: WorkflowTransition) -> Execution | None:
    """The execution after `event`; None if it has not begun."""
    if state is None:
        return _started(event) if event.type == "execution.started" else None
    if state.continuing is not None:  # it is decided before anything else, so what comes next belongs to it
        state = replace_execution(state, continuing=None)
    numbers = {"sequence": state.sequence + 1, "told": state.told + (event.type not in QUIET)}
    if (change := EVOLVERS.get(event.type)) is None:
        return replace_execution(state, **numbers)
    return replace_execution(state, **numbers, status=event.status, commands=remembered(state, event), **change(state, event))


def _started(event: WorkflowTransition) -> Execution:
    data = event.data
    begun = to_micros(event.time)
    timeout_ms = data.get("timeout_ms")
    return Execution(
        id=event.execution_id,
        workflow_id=event.workflow_id,
        workflow_version=event.workflow_version,
        definition_hash=data["definition_hash"],
        tenant=event.tenant,
        correlation_id=event.correlation_id,
        status=event.status,
        started_us=begun,
        sequence=1,
        told=1,
        input=data.get("input"),
        event=data.get("event"),
        trigger_depth=data.get("trigger_depth", 0),
        timeout_us=None if timeout_ms is None else begun + timeout_ms * 1000,
        results_bytes=json_bytes(data.get("input")) + json_bytes(data.get("event")),
        parent=Parent(**data["parent"]) if "parent" in data else None,
        forked_from=data.get("forked_from", {}).get("execution_id"),
        monitors=monitors_of(data),
    )


def _with(state: Execution, event: WorkflowTransition, step: StepState, **more: Any) -> dict[str, Any]:
    """The change that puts `step` in place."""
    put_step(more, state, event.step_id or "", step)
    return more


def _before(state: Execution, event: WorkflowTransition) -> StepState:
    return state.steps.get(event.step_id or "", UNTOUCHED)


def _step_scheduled(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return _with(state, event, replace_step(_before(state, event), status="scheduled"))


def _step_started(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    step, data, now = _before(state, event), event.data, to_micros(event.time)
    begun = now if step.begun_us is None else step.begun_us
    timeout_ms, attempt_timeout_ms = data.get("timeout_ms"), data.get("attempt_timeout_ms")
    begins = step.begun_us is None
    after = replace_step(
        step,
        status="running",
        attempt=event.attempt,
        begun_us=begun,
        attempt_us=now,
        timeout_us=(None if timeout_ms is None else now + timeout_ms * 1000) if begins else step.timeout_us,
        attempt_timeout_us=None if attempt_timeout_ms is None else now + attempt_timeout_ms * 1000,
        silent_us=None,
        wake_us=None,
        module=data.get("module", ""),
        operation=data.get("operation", ""),
        parameters=data.get("parameters"),
        branch=data.get("branch") or "",
        turns=_turns(step, data) if "turns" in data else step.turns,
        signal=data.get("signal", ""),
    )
    if "child" in data:
        child = Child(attempt=event.attempt, definition_hash=data["child"]["definition_hash"])
        after = replace_step(after, children=(*step.children, child))
    if data.get("emits"):
        emitted = Emitted(instance=event.step_id or "", attempt=event.attempt, event=data["parameters"], time_us=now)
        return _with(state, event, after, emitted=(*state.emitted, emitted))
    return _with(state, event, after)


def _turns(step: StepState, data: Mapping[str, Any]) -> Turns:
    return Turns(items=data["parameters"].get("items"), total=data["turns"], most=0 if step.turns is None else step.turns.ever)


def _step_retried(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    now, before = to_micros(event.time), _before(state, event)
    step = replace_step(
        before,
        status="scheduled",
        error=Error.from_json(event.data["error"]),
        attempt_timeout_us=None,
        silent_us=None,
        wake_us=now + event.data["delay_ms"] * 1000,
        timer_set_us=now,
        movable=True,
        parameters=None,
        branch="",
        turns=None if before.turns is None else before.turns.over(),
        **_answered(state, event),
    )
    change = _with(state, event, step)
    _begin_anew(change, state, event.data.get("reset", ()))
    return change


def _begin_anew(change: dict[str, Any], state: Execution, instances: Any) -> None:
    """`_reset`, and what had completed there is kept: it is undone too if the execution fails."""
    ended = {instance: state.steps[instance] for instance in instances if state.step(instance).status in ENDED}
    if any(step.status == "completed" for step in ended.values()):
        change["earlier"] = (*state.earlier, ended)
    _reset(change, state, instances)


def _reset(change: dict[str, Any], state: Execution, instances: Any) -> None:
    """Begins `instances` anew in `change`: what is inside a container that is tried again."""
    for instance in instances:
        put_step(change, state, instance, anew(state.step(instance)))


def _answered(state: Execution, event: WorkflowTransition, *, late: bool = False) -> dict[str, Any]:
    """The attempts with an answer in the log, and those whose child has not told its outcome, after an event."""
    step = _before(state, event)
    if not late and not event.data.get("answered"):
        return {}
    children = tuple(child for child in step.children if child.attempt != event.attempt) if step.children else ()
    return {"answered": (*step.answered, event.attempt), "children": children}


def _ended(state: Execution, event: WorkflowTransition, status: StepStatus, **more: Any) -> dict[str, Any]:
    step = replace_step(
        _before(state, event),
        status=status,
        ended_us=to_micros(event.time),
        ended_sequence=state.sequence + 1,
        timeout_us=None,
        attempt_timeout_us=None,
        silent_us=None,
        details=None,
        wake_us=None,
        approval=None,
        parameters=None,
        **_answered(state, event),
        **more,
    )
    return _with(state, event, step)


def _step_completed(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    result = event.data.get("result")
    change = _ended(state, event, "completed", result=result, gathered=event.data.get("gathered"), error=None)
    if "signal" in event.data:
        change |= without_signal(state, event.data["signal"])
    change["results_bytes"] = change.get("results_bytes", state.results_bytes) + json_bytes(result)
    return change


def _step_failed(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return _ended(state, event, "failed", error=Error.from_json(event.data["error"]))


def _step_timed_out(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return _ended(state, event, "timed_out", error=Error.from_json(event.data["error"]))


def _step_skipped(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return _ended(state, event, "skipped", result=None, error=None)


def _step_cancelled(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    error = event.data.get("error")
    return _ending(state, event, _ended(state, event, "cancelled", error=None if error is None else Error.from_json(error)))


def _step_waiting(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return _with(state, event, replace_step(_before(state, event), status="waiting"))


def _timer_set(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    step = replace_step(
        _before(state, event), wake_us=event.data["due_us"], timer_set_us=to_micros(event.time), movable=event.data.get("movable", True)
    )
    return _with(state, event, step)


def _timer_fired(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return _with(state, event, replace_step(_before(state, event), wake_us=None))


def _fallback_applied(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    error = Error.from_json(event.data["error"])
    running = event.data["index"] if event.data["action"] == "run-step" else None
    step = replace_step(
        _before(state, event),
        error=error,
        fallback=running,
        attempt_timeout_us=None,
        silent_us=None,
        wake_us=None,
        parameters=None,
        **_answered(state, event),
        status="running" if running is not None else _before(state, event).status,
    )
    if running is not None:
        # The fallback's step has time-outs of its own; the failed one's may be what brought us here.
        step = replace_step(step, timeout_us=None)
    more = {"doomed": error} if event.data["action"] == "compensate" and state.doomed is None else {}
    return _with(state, event, step, **more)


def _approval_requested(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    data, now = event.data, to_micros(event.time)
    deadline_ms = data.get("deadline_ms")
    approval = OpenApproval(
        choices=tuple(data["choices"]),
        escalated=data.get("escalated", False),
        timed_out=data.get("timed_out", False),
        deadline_us=None if deadline_ms is None else now + deadline_ms * 1000,
        title=str(data.get("title", "")),
        assignees=data.get("assignees"),
    )
    step = replace_step(
        _before(state, event), status="waiting", approval=approval, approval_answered=False, attempt_timeout_us=None, silent_us=None,
        timer_set_us=now,
    )  # fmt: skip
    return _with(state, event, step)


def _approval_answered(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    step = replace_step(_before(state, event), approval=None, approval_answered=True, status="running")
    if event.data.get("escalated") and event.data["choice"] == "retry":
        step = replace_step(anew(step), approval_answered=True)
        change = _with(state, event, step)
        _begin_anew(change, state, event.data.get("reset", ()))
        return change
    return _with(state, event, step)


def _compensation(status: Literal["running", "completed", "failed"]) -> Callable[[Execution, WorkflowTransition], dict[str, Any]]:
    def change(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
        step = replace_step(_before(state, event), compensation=status)
        change = _ending(state, event, _with(state, event, step))
        place = event.data.get("earlier")
        if status == "running" and place is not None:
            change["undone"] = state.undone | {(place, event.step_id or "")}
        change["undoing"] = place if status == "running" else None
        change["compensating"] = event.step_id if status == "running" else None
        if status == "running":
            undone = (state.step(event.step_id or "") if place is None else state.earlier[place][event.step_id or ""]).ended_sequence
            change["left"] = (completions(state) if state.left is None else state.left).below((undone,))
        if status == "failed":
            change["undone_badly"] = True
        _reset(change, state, event.data.get("reset", ()))
        return change

    return change


def _ending(state: Execution, event: WorkflowTransition, change: dict[str, Any]) -> dict[str, Any]:
    """`change`, and the end that is certain from this event on, if it says so. It ends a pause."""
    ending = event.data.get("ending")
    if ending is None:
        return change
    error = event.data.get("ending_error")
    if state.paused_us is not None:
        change["timers"] = all_timers(change["steps"], change.get("live", state.live), paused=False)
    return change | {"ending": ending, "paused_us": None, "ending_error": None if error is None else Error.from_json(error)}


def _execution_paused(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return {"paused_us": to_micros(event.time), "timers": all_timers(state.steps, state.live, paused=True)}


def _execution_resumed(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    now, paused = to_micros(event.time), state.paused_us or 0
    moved = {instance: _moved(state.steps[instance], now, paused) for instance in state.live}
    steps = PersistentMap({**dict(state.steps.items()), **moved})
    return {"paused_us": None, "steps": steps, "timers": all_timers(steps, state.live, paused=False)}


def _moved(step: StepState, now: int, paused: int) -> StepState:
    """A waiting or scheduled step after a pause: its timers go on with what was left. Running attempts' time-outs went on."""
    if step.status == "running":
        return step
    stood = now - max(paused, step.timer_set_us)

    def later(instant: int | None) -> int | None:
        return None if instant is None else instant + stood

    approval = step.approval
    if approval is not None:
        approval = replace(approval, deadline_us=later(approval.deadline_us))
    wake = later(step.wake_us) if step.movable else step.wake_us
    return replace_step(step, wake_us=wake, timeout_us=later(step.timeout_us), approval=approval)


def _execution_ended(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    error = event.data.get("error")
    return {
        "ended_us": to_micros(event.time),
        "output": event.data.get("output"),
        "error": None if error is None else Error.from_json(error),
        "timeout_us": None,
        "paused_us": None,
    }


def _condition_answered(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    step, own_ms = _before(state, event), event.data.get("attempt_timeout_ms")
    after = replace_step(
        step,
        branch=event.data["branch"],
        **_answered(state, event),
        attempt_timeout_us=None if own_ms is None else step.attempt_us + own_ms * 1000,
    )
    return _with(state, event, after)


def _answered_late(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    step = _before(state, event)
    return _with(state, event, replace_step(step, **_answered(state, event, late=True)))


def _continuation(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return {"continuing": event.data or None}


EVOLVERS: Mapping[str, Callable[[Execution, WorkflowTransition], dict[str, Any]]] = {
    "step.scheduled": _step_scheduled,
    "step.started": _step_started,
    "step.retried": _step_retried,
    "step.completed": _step_completed,
    "step.failed": _step_failed,
    "step.timed_out": _step_timed_out,
    "step.skipped": _step_skipped,
    "step.cancelled": _step_cancelled,
    "step.waiting": _step_waiting,
    "step.answered_late": _answered_late,
    heartbeats.RECEIVED: heartbeats.received,
    "condition.answered": _condition_answered,
    **TURN_EVOLVERS,
    "continuation": _continuation,
    "timer.set": _timer_set,
    "timer.fired": _timer_fired,
    "fallback.applied": _fallback_applied,
    "approval.requested": _approval_requested,
    "approval.answered": _approval_answered,
    "compensation.started": _compensation("running"),
    "compensation.completed": _compensation("completed"),
    "compensation.failed": _compensation("failed"),
    **COMMAND_EVOLVERS,
    "execution.paused": _execution_paused,
    "execution.resumed": _execution_resumed,
    "execution.completed": _execution_ended,
    "execution.failed": _execution_ended,
    "execution.cancelled": _execution_ended,
    "execution.timed_out": _execution_ended,
}
