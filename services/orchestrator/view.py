"""An execution as people and programs see it, folded from its transitions alone: as JSON, and as a timeline.

It needs no definition and no server but the log, so what it says of an execution is what the log says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.orchestrator.evolve import evolve
from services.orchestrator.family import child_id
from services.orchestrator.heartbeats import RECEIVED
from services.orchestrator.results import Outcome, gather
from services.orchestrator.state import TERMINAL, Execution
from services.orchestrator.timeline import timeline
from services.orchestrator.waiting import waiting_for
from streams.records import Json, WorkflowTransition, iso, to_micros

__all__ = ["fold", "timeline"]

#: Status of a step after a transition of this type.
_STEP_STATUS = {
    "step.scheduled": "scheduled",
    "step.started": "running",
    "step.retried": "scheduled",
    "step.waiting": "waiting",
    "step.completed": "completed",
    "step.failed": "failed",
    "step.timed_out": "timed_out",
    "step.skipped": "skipped",
    "step.cancelled": "cancelled",
    "approval.requested": "waiting",
    "approval.answered": "running",
}
_ENDED = frozenset({"completed", "failed", "timed_out", "skipped", "cancelled"})
#: What commands have done; answers stand with their steps. A cancelled execution's last record says who wanted it.
_COMMANDS = frozenset(
    {"execution.paused", "execution.resumed", "execution.cancelled", "execution.retried", "execution.forked", "signal.received"}
)
_EXECUTION_ENDED = frozenset({"execution.completed", "execution.failed", "execution.timed_out", "execution.cancelled"})


def fold(transitions: Iterable[WorkflowTransition]) -> dict[str, Any]:
    """The execution after these transitions (in the order of the log); empty if none of them began it.

    Keys: `execution_id`, `workflow_id`, `workflow_version`, `status`, `input`, `output`, `error`, `compensated`, `started_at`,
    `ended_at`, `duration_ms`, `definition_hash`, `correlation_id`, `steps` (id → `status`, `attempts`, `module`, `operation`,
    `parameters`, `result`, `error`, `started_at`, `ended_at`, `duration_ms`, `history`, `child`, `turns`: `begun`, `ended`, `total`
    or None, the latest `heartbeat`: `time`, `attempt`, `by`, `details`, and while it waits `waiting`), `commands` that did something
    and `refused` ones, kept `signals`, `parent` of a child, `forked_from` of a fork.
    """
    execution: dict[str, Any] = {}
    state: Execution | None = None
    for transition in transitions:
        if transition.sequence != 0:
            state = evolve(state, transition)
        if transition.type == "execution.started":
            execution = _begun(transition)
        elif execution:
            _apply(execution, transition)
    if execution:
        _finish(execution["steps"])
    if state is not None and state.status not in TERMINAL:
        _wait(execution["steps"], state)
    return execution


def _wait(steps: dict[str, dict[str, Any]], state: Execution) -> None:
    for instance in state.live:
        step = steps[instance]
        waiting = waiting_for(state, instance, step["history"])
        if waiting is None and step["status"] == "running" and "child" in step:
            waiting = {"for": "workflow", **step["child"], "until": None}
        if waiting is not None:
            step["waiting"] = waiting


def _finish(steps: dict[str, dict[str, Any]]) -> None:
    """Puts together the results of containers, and takes away what was only needed for folding."""
    for instance in [instance for instance, step in steps.items() if "recipe" in step]:
        steps[instance]["result"] = _gathered(steps, steps[instance]["recipe"])
    for step in steps.values():
        step.pop("recipe", None)
        step.pop("begun_us", None)


def _begun(transition: WorkflowTransition) -> dict[str, Any]:
    data = transition.data
    return {
        "execution_id": transition.execution_id,
        "workflow_id": transition.workflow_id,
        "workflow_version": transition.workflow_version,
        "status": transition.status,
        "input": data.get("input"),
        "output": None,
        "error": None,
        "started_at": iso(transition.time),
        "ended_at": None,
        "duration_ms": None,
        "definition_hash": data.get("definition_hash"),
        "correlation_id": transition.correlation_id,
        "steps": {},
        "commands": [],
        "refused": [],
        **{name: data[name] for name in ("parent", "forked_from", "trigger", "event") if name in data},
    }


def _apply(execution: dict[str, Any], transition: WorkflowTransition) -> None:
    data: dict[str, Any] = transition.data if isinstance(transition.data, dict) else {}
    execution["status"] = transition.status
    if transition.type in _EXECUTION_ENDED:
        execution |= {"ended_at": iso(transition.time), "duration_ms": data.get("duration_ms"), "error": data.get("error")}
        execution["output"] = data.get("output")
        if "compensated" in data:
            execution["compensated"] = data["compensated"]
    elif transition.type == "signal.received" and transition.step_id is None:
        execution.setdefault("signals", []).append({"time": iso(transition.time), "name": data["name"], "data": data.get("data")})
    elif transition.type == "step.completed" and "signal" in data:
        kept = execution["signals"]
        kept.remove(next(signal for signal in kept if signal["name"] == data["signal"]))
    elif transition.type == "execution.retried":
        execution |= {"ended_at": None, "duration_ms": None, "error": None, "output": None}
        execution.pop("compensated", None)
        for instance in data["reset"]:
            _begin_anew(execution["steps"].setdefault(instance, _new_step()))
    elif transition.type == "execution.forked" and "to" in data:
        execution.setdefault("forks", []).append({"time": iso(transition.time), "execution_id": data["to"], "step": data["step"]})
    elif transition.type == "execution.forked":
        for instance, taken in data["steps"].items():
            execution["steps"][instance] = {**_new_step(), **_taken_over(taken)}
    if transition.type in _COMMANDS:
        told = {name: value for name, value in data.items() if name != "steps"}
        execution["commands"].append({"time": iso(transition.time), "type": transition.type, **told})
    elif transition.type == "command.refused":
        execution["refused"].append({"time": iso(transition.time), **data})
    if transition.step_id is not None:
        _apply_to_step(execution["steps"].setdefault(transition.step_id, _new_step()), transition, data)
        for instance in data.get("reset", ()):
            execution["steps"].setdefault(instance, _new_step())["status"] = "pending"


def _taken_over(taken: dict[str, Any]) -> dict[str, Any]:
    """A step whose result comes from the execution that was forked."""
    recipe = {"recipe": taken["gathered"]} if "gathered" in taken else {}
    return {"status": taken["status"], "result": taken.get("result"), "error": taken.get("error"), "taken_over": True, **recipe}


def _begin_anew(step: dict[str, Any]) -> None:
    step |= {"status": "pending", "result": None, "ended_at": None, "duration_ms": None}
    for name in ("compensation", "recipe"):
        step.pop(name, None)


def _new_step() -> dict[str, Any]:
    return {
        "status": "pending", "attempts": 0, "parameters": None, "result": None, "error": None,
        "started_at": None, "ended_at": None, "duration_ms": None, "history": [],
    }  # fmt: skip


def _apply_to_step(step: dict[str, Any], transition: WorkflowTransition, data: dict[str, Any]) -> None:
    status = _STEP_STATUS.get(transition.type)
    if status is not None:
        step["status"] = status
    if transition.type == "step.started":
        step["attempts"] = transition.attempt
        if "turns" in data:
            step["turns"] = {"begun": 0, "ended": 0, "total": data["turns"]}
        step["parameters"] = data.get("parameters")
        step.pop("recipe", None)
        step["started_at"] = step["started_at"] or iso(transition.time)
        step["begun_us"] = step.get("begun_us") or to_micros(transition.time)
        step |= {name: data[name] for name in ("module", "operation") if name in data}
    if "child" in data:
        step["child"] = {"execution_id": child_id(transition.execution_id, transition.step_id or "", transition.attempt), **data["child"]}
    if "error" in data and transition.type != "step.answered_late" and not transition.type.startswith("compensation."):
        step["error"] = data["error"]
    if transition.type.startswith("compensation."):
        step["compensation"] = transition.type.removeprefix("compensation.")
    elif status in _ENDED:
        _end_step(step, transition, data)
    if "turns" in step:
        _count_turns(step["turns"], transition.type, data)
    if transition.type == RECEIVED:
        _beat(step, transition, data)
    step["history"].append(_line(transition, data))


def _beat(step: dict[str, Any], transition: WorkflowTransition, data: dict[str, Any]) -> None:
    """A step's `heartbeat` is its latest one, and the only one that its history keeps: there may be thousands."""
    details = data["details"] if "details" in data else step.get("heartbeat", {}).get("details")
    step["heartbeat"] = {"time": iso(transition.time), "attempt": transition.attempt, "by": data.get("by"), "details": details}
    step["history"] = [entry for entry in step["history"] if entry["type"] != RECEIVED]


def _count_turns(turns: dict[str, Any], type: str, data: dict[str, Any]) -> None:
    match type:
        case "turn.started":
            turns["begun"] = data["first"] + data["count"]
        case "turn.ended":
            turns["ended"] += 1
        case _:
            pass


def _end_step(step: dict[str, Any], transition: WorkflowTransition, data: dict[str, Any]) -> None:
    step["ended_at"] = iso(transition.time)
    if "begun_us" in step:
        step["duration_ms"] = (to_micros(transition.time) - step["begun_us"]) // 1000
    if transition.type in ("step.completed", "step.skipped"):
        step["error"] = None  # it ended well, whatever a fallback was taken for
    if transition.type == "step.completed":
        step["result"] = data.get("result")
        if "gathered" in data:
            step["recipe"] = data["gathered"]


def _line(transition: WorkflowTransition, data: dict[str, Any]) -> dict[str, Any]:
    """What a step's history keeps of a transition: everything but what stands in the step itself."""
    kept = {
        name: value for name, value in data.items() if name not in ("parameters", "result", "gathered", "answered", "module", "operation")
    }
    return {"time": iso(transition.time), "type": transition.type, "attempt": transition.attempt, **kept}


def _gathered(steps: dict[str, dict[str, Any]], recipe: dict[str, Any]) -> Json:
    def outcome(instance: str) -> Outcome:
        step = steps.get(instance) or _new_step()
        result = _gathered(steps, step["recipe"]) if "recipe" in step else step["result"]
        return Outcome(status=step["status"], result=result, error=step["error"])

    return gather(recipe, outcome)
