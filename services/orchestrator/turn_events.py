"""How the records about turns of a `foreach` or `loop` change an execution: the part of `evolve` that counts them.

`turn.started` `{first, count}`, `turn.failed` `{turn, step}` and `turn.ended` `{turn, cut?}` name the container as their step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from services.orchestrator.state import UNTOUCHED, Execution, Replacer, Turns, put_step, replace_step
from streams.records import WorkflowTransition

_replace_turns = Replacer(Turns)


def _changed(state: Execution, event: WorkflowTransition, **changes: Any) -> dict[str, Any]:
    instance = event.step_id or ""
    step = state.steps.get(instance, UNTOUCHED)
    change: dict[str, Any] = {}
    put_step(change, state, instance, replace_step(step, turns=_replace_turns(step.turns or Turns(), **changes)))
    return change


def _turns(state: Execution, event: WorkflowTransition) -> Turns:
    return state.step(event.step_id or "").turns or Turns()


def _started(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    end = event.data["first"] + event.data["count"]
    running = _turns(state, event).running
    for number in range(event.data["first"], end):
        running = running.set(number, True)
    return _changed(state, event, begun=end, running=running)


def _failed(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    return _changed(state, event, failed=_turns(state, event).failed or event.data["step"])


def _ended(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    turns = _turns(state, event)
    return _changed(state, event, running=turns.running.remove(event.data["turn"]), cut=turns.cut or event.data.get("cut", False))


TURN_EVOLVERS: Mapping[str, Callable[[Execution, WorkflowTransition], dict[str, Any]]] = {
    "turn.started": _started,
    "turn.failed": _failed,
    "turn.ended": _ended,
}
