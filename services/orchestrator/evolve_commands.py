"""How commands and other executions change an execution: signals kept and taken, and what children and forks have been told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from services.orchestrator.state import ENDED, Error, Execution, Fork, Monitor, Signal, StepState, anew, json_bytes, put_step, replace_step
from streams.records import WorkflowTransition, to_micros

#: Commands whose ids an execution remembers: a repeat of one of these changes nothing, not even by a refusal.
COMMANDS_REMEMBERED_MAX = 256
#: Who may be told at the same time what happens in an execution.
MONITORS_MAX = 20
#: Events that are the first of a command's decision, and tell its id by `causation_id`.
COMMANDED = frozenset(
    {"signal.received", "approval.answered", "execution.paused", "execution.resumed", "execution.retried", "execution.forked"}
)


def signal_received(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    """Keeps a signal that no step waits for; one that is delivered completes its step by the next event."""
    depth = {"trigger_depth": event.data["trigger_depth"]} if "trigger_depth" in event.data else {}
    if event.step_id is not None:
        return depth
    signal = Signal(name=event.data["name"], data=event.data.get("data"))
    return depth | {"signals": (*state.signals, signal), "results_bytes": state.results_bytes + json_bytes(signal.data)}


def without_signal(state: Execution, name: str) -> dict[str, Any]:
    """Takes away the signal of this name that was kept first."""
    place = next(place for place, signal in enumerate(state.signals) if signal.name == name)
    freed = json_bytes(state.signals[place].data)
    return {"signals": state.signals[:place] + state.signals[place + 1 :], "results_bytes": state.results_bytes - freed}


def monitors_of(data: dict[str, Any]) -> tuple[Monitor, ...]:
    """Who is told what happens in the execution from its start on."""
    given = data.get("monitors")
    return tuple(
        Monitor(module=each["module"], id=each["id"])
        for each in (given if isinstance(given, list) else [])
        if isinstance(each, dict) and isinstance(each.get("module"), str) and isinstance(each.get("id"), str)
    )[:MONITORS_MAX]


def monitored(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    """Somebody more is told what happens."""
    added = tuple(each for each in monitors_of({"monitors": [event.data]}) if each not in state.monitors)
    return {"monitors": (*state.monitors, *added)[-MONITORS_MAX:]}


def remembered(state: Execution, event: WorkflowTransition) -> tuple[str, ...]:
    """The ids of the latest commands, with that of this event's."""
    if event.type not in COMMANDED or event.causation_id is None:
        return state.commands
    return (*state.commands, event.causation_id)[-COMMANDS_REMEMBERED_MAX:]


def retried(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    """A failed execution goes on; what completed in a container that begins again is still to be undone if it fails once more."""
    timeout_ms, now = event.data.get("timeout_ms"), to_micros(event.time)
    change: dict[str, Any] = {
        "timeout_us": None if timeout_ms is None else now + timeout_ms * 1000,
        "doomed": None,
        "ending": None,
        "ending_error": None,
        "undone_badly": False,
        "left": None,
        "compensating": None,
        "ended_us": 0,
        "output": None,
        "error": None,
    }
    again = {instance: state.step(instance) for instance in event.data["reset"]}
    kept = {name: step for name, step in again.items() if step.status in ENDED and step.compensation != "completed"}
    if any(step.status == "completed" for step in kept.values()):
        change["earlier"] = (*state.earlier, kept)
    for instance, step in again.items():
        put_step(change, state, instance, anew(step))
    for instance, step in state.steps.items():
        if step.compensation and instance not in again:
            put_step(change, state, instance, replace_step(step, compensation=""))
    return change


def forked(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    """An execution was forked off (`to`), or this one begins as a fork (`from`) with results that others made."""
    data = event.data
    if "to" in data:
        fork = Fork(
            id=data["to"],
            definition_hash=data["definition_hash"],
            step=data["step"],
            steps=tuple(data["steps"]),
            time_us=to_micros(event.time),
            own_input="input" in data,
            input=data.get("input"),
        )
        return {"forks": (*state.forks, fork)}
    change: dict[str, Any] = {"results_bytes": state.results_bytes}
    for instance, taken in data["steps"].items():
        error = taken.get("error")
        step = StepState(
            status=taken["status"],
            result=taken.get("result"),
            gathered=taken.get("gathered"),
            error=None if error is None else Error.from_json(error),
            ended_us=to_micros(event.time),
            ended_sequence=state.sequence + 1,
            taken_over=True,
        )
        put_step(change, state, instance, step)
        change["results_bytes"] += json_bytes(step.result)
    return change


def acknowledged(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    """Another execution has recorded what we told it: our parent our end, a fork that it has begun."""
    fork = event.data.get("fork")
    if fork is None:
        return {"acknowledged": True}
    return {"forks": tuple(each for each in state.forks if each.id != fork)}


COMMAND_EVOLVERS: Mapping[str, Callable[[Execution, WorkflowTransition], dict[str, Any]]] = {
    "signal.received": signal_received,
    "execution.acknowledged": acknowledged,
    "execution.retried": retried,
    "execution.forked": forked,
    "execution.monitored": monitored,
}
