"""Conditions that a module answers: `{type: custom, handler: module.operation}`.

The handler is asked with what the step sees, and answers `true` or `false` (or an object with it under `value`). The question is an
attempt of the step like any other: an error or a time-out of it is a failure of the `conditional`, retried and fallen back from.
"""

from __future__ import annotations

from typing import Any

from services.orchestrator import attempts
from services.orchestrator.definition import OPERATION_TIMEOUT_MS, PARALLEL_CHILD_TIMEOUT_MS, Conditional, CustomCondition, ListRole, Step
from services.orchestrator.draft import Draft
from services.orchestrator.state import Error
from streams.records import Json


def question(draft: Draft, step: Step, condition: CustomCondition, suffix: str) -> dict[str, Json]:
    """What the handler is told: the input, and status and result of each step that the condition is certain to see,
    and inside turns what they give names to."""
    scope = draft.scope(step, suffix)
    steps: dict[str, Json] = {}
    for step_id in condition.sees:
        instance = scope.instance(step_id)
        if instance is not None:
            outcome = scope.outcome(instance)
            steps[step_id] = {"status": outcome.status, "result": outcome.result}
    names = scope.names()
    return {"input": draft.state.input, "steps": steps, **({"turn": names} if names else {})}


def patience_ms(draft: Draft, step: Step) -> int:
    """How long an answer is waited for: as long as for a module operation there, or the step's own `attempt-timeout` if that is less."""
    role = draft.definition.places[step.id].steps.role
    usual = PARALLEL_CHILD_TIMEOUT_MS if role is ListRole.PARALLEL else OPERATION_TIMEOUT_MS
    return usual if step.attempt_timeout_ms is None else min(usual, step.attempt_timeout_ms)


def take_answer(draft: Draft, instance: str, answer: Json) -> None:
    """A module has answered an attempt: of a condition this chooses the branch, otherwise it is the step's result."""
    place, _ = draft.place(instance)
    action = place.step.action
    if not isinstance(action, Conditional) or not isinstance(action.condition, CustomCondition):
        attempts.complete(draft, instance, answer, answered=True)
        return
    value = answer.get("value") if isinstance(answer, dict) else answer
    if not isinstance(value, bool):
        handler = f"{action.condition.module}.{action.condition.operation}"
        error = Error(code="invalid", message=f"{handler} answered neither true nor false.")
        attempts.fail_attempt(draft, instance, error, answered=True)
        return
    chosen = action.then if value else action.otherwise
    data: dict[str, Any] = {"value": value, "branch": "" if chosen is None else "then" if value else "else", "answered": True}
    if place.step.attempt_timeout_ms is not None:
        data["attempt_timeout_ms"] = place.step.attempt_timeout_ms
    draft.record_step("condition.answered", instance, data)
    attempts.enter_branch(draft, instance)
