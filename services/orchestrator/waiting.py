"""What each step of a living execution is waiting for, and until when: told by the fold of the log, as the engine itself sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.orchestrator.effects import is_asking
from services.orchestrator.state import Execution, StepState
from streams.records import Json, from_micros, iso

#: Kept from the last `step.waiting` or `approval.requested` of a step.
_KEPT = ("title", "choices", "assignees", "deadline_ms", "name", "execution_id")


def waiting_for(state: Execution, instance: str, history: list[dict[str, Any]]) -> dict[str, Json] | None:
    """What a live step waits for; None: for nothing but what is inside it.

    `for` is `approval`, `timer`, `retry` (the next attempt, `attempt`), `answer` (of `module`, `operation`), `place` (a limit holds it
    back), or what its `step.waiting` says (`signal`, …). `until`: RFC 3339, null if there is no end or a pause keeps it from coming.
    """
    step = state.step(instance)
    until = None if state.paused_us is not None and step.status != "running" else _until(step)
    if step.approval is not None:
        found: dict[str, Json] = {"for": "approval", **_last(history, "approval.requested")}
    elif step.status == "scheduled" and step.wake_us is None:
        return {"for": "place", "until": None}
    elif step.status == "scheduled":
        found = {"for": "retry", "attempt": step.attempt + 1}
    elif is_asking(step):
        found = {"for": "answer", "module": step.module, "operation": step.operation}
    elif step.status == "waiting":
        found = {"for": "timer", **_last(history, "step.waiting")}
    else:
        return None
    return {**found, "until": None if until is None else iso(from_micros(until))}


def _until(step: StepState) -> int | None:
    if step.approval is not None:
        return step.approval.deadline_us
    if step.wake_us is not None:
        return step.wake_us
    return min((end for end in (step.timeout_us, step.attempt_timeout_us) if end is not None), default=None)


def _last(history: list[dict[str, Any]], kind: str) -> Mapping[str, Json]:
    entry: Mapping[str, Any] = next((entry for entry in reversed(history) if entry["type"] == kind), {})
    kept = {name: entry[name] for name in _KEPT if entry.get(name)}
    return {**({"for": entry["for"]} if "for" in entry else {}), **kept}
