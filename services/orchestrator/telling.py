"""What an execution tells modules by itself: questions to people (module `confirm`), and what happens to whoever monitors it.

Built from the state alone where it has to be repeated: a new owner of the partition asks open questions again, and tells monitors how all
steps ended so far; those who have heard it know by ids and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from services.orchestrator.effects import MODULE, SOURCE
from services.orchestrator.state import QUIET, TERMINAL, Execution, Monitor, OpenApproval, StepState
from streams.log.types import Send
from streams.operations import APPROVAL_CLOSED, APPROVAL_OPENED, COLLECT
from streams.records import Json, ModuleMessage, WorkflowTransition, derived_id, from_micros, to_micros
from streams.topics import REQUESTS, home_of

#: Results beyond this size are not told, bytes of JSON of all entries of a message.
_ENTRIES_BYTES_MAX = 512 * 1024
#: How a step or an execution ends.
_ENDINGS = frozenset({"completed", "failed", "timed_out", "skipped", "cancelled"})
_CONFIRM = "confirm"
#: Source of the answers that the module confirm gives for people.
ANSWERED_BY = f"mplp/modules/{_CONFIRM}"


def _notification(
    state: Execution, module: str, operation: str, data: dict[str, Json], *, id: str, time_us: int, key: str, hand_over: bool = True
) -> Send:  # fmt: skip
    message = ModuleMessage(
        id=id,
        type=f"{module}.notified",
        source=SOURCE,
        subject=state.id,
        time=from_micros(time_us),
        tenant=state.tenant,
        correlation_id=state.correlation_id,
        data=data,
        kind="notification",
        source_module=MODULE,
        target_module=module,
        operation=operation,
        execution_id=state.id,
    )
    return Send(topic=REQUESTS, key=home_of(key), record=message, hand_over=hand_over)


# --- questions ------------------------------------------------------------------------------------------------------------


def question(state: Execution, instance: str, step: StepState) -> Send:
    """A step asks people."""
    approval = step.approval
    assert approval is not None, "the step waits for an answer"
    data: dict[str, Json] = {
        **_place(state, instance, step),
        "title": approval.title,
        "choices": list(approval.choices),
        "assignees": approval.assignees,
        "error": step.error.to_json() if approval.escalated and step.error is not None else None,
    }
    id_ = derived_id(APPROVAL_OPENED, state.id, instance, step.attempt)
    return _notification(state, _CONFIRM, APPROVAL_OPENED, data, id=id_, time_us=step.timer_set_us, key=state.id)


def told_people(before: OpenApproval | None, state: Execution, event: WorkflowTransition) -> Iterator[Send]:
    """What people are told about an event of a step: that it asks them, or does so no more."""
    instance = event.step_id or ""
    step = state.step(instance)
    if before is None and step.approval is not None:
        yield question(state, instance, step)
    elif before is not None and step.approval is None:
        reason = {"approval.answered": "answered", "step.cancelled": "cancelled"}.get(event.type, "timed_out")
        yield closed(state, instance, step, reason, event.data if reason == "answered" else {}, to_micros(event.time))


def closed(state: Execution, instance: str, step: StepState, reason: str, answer: Mapping[str, Any], time_us: int) -> Send:
    """A step asks people no more."""
    given = {name: answer[name] for name in ("choice", "by", "value", "why") if name in answer}
    data = {**_place(state, instance, step), "reason": reason, **given}
    id_ = derived_id(APPROVAL_CLOSED, state.id, instance, step.attempt, time_us)
    return _notification(state, _CONFIRM, APPROVAL_CLOSED, data, id=id_, time_us=time_us, key=state.id)


def _place(state: Execution, instance: str, step: StepState) -> dict[str, Json]:
    return {"execution_id": state.id, "step_id": instance, "attempt": step.attempt}


# --- monitors -------------------------------------------------------------------------------------------------------------


def collected(state: Execution, events: Iterable[WorkflowTransition]) -> Iterator[Send]:
    """What a decision's events are to those who monitor; `state` is that after them."""
    found = list(events)
    first = state.sequence - len(found) + 1
    entries = [_entry(state, event, first + place) for place, event in enumerate(found) if event.type not in QUIET]
    if entries:
        time_us = to_micros(found[-1].time)
        for monitor in state.monitors:
            yield _collect(state, monitor, entries, id=derived_id(COLLECT, state.id, monitor.id, first), time_us=time_us)


def so_far(state: Execution, monitor: Monitor) -> Send:
    """How everything ended so far, for one who begins to monitor: nothing of it was missed, and what began before is not told."""
    id_ = derived_id("so-far", state.id, monitor.id)
    return _collect(state, monitor, _summary(state), id=id_, time_us=state.started_us, so_far=True)


def summaries(state: Execution) -> Iterator[Send]:
    """How everything ended so far, for those who may have missed it."""
    if not state.monitors:
        return
    entries = _summary(state)
    for monitor in state.monitors:
        yield _collect(state, monitor, entries, id=derived_id("summary", state.id, monitor.id), time_us=state.started_us)


def _summary(state: Execution) -> list[dict[str, Any]]:
    entries = [
        {
            "type": f"step.{step.status}",
            "step": instance,
            "attempt": step.attempt,
            "time_us": step.ended_us,
            "begun_us": step.begun_us,
            "sequence": step.ended_sequence,
            "result": step.result,
            **_why(None if step.error is None else step.error.to_json()),
        }
        for instance, step in state.steps.items()
        if step.ended_sequence and step.status in _ENDINGS
    ]
    if state.status in TERMINAL:
        end: dict[str, Any] = {"type": f"execution.{state.status}", "step": None, "attempt": 0, "time_us": state.ended_us}
        entries.append({**end, "begun_us": state.started_us, "sequence": state.sequence})
    entries.sort(key=lambda entry: entry["sequence"])
    return entries


def _collect(
    state: Execution, monitor: Monitor, entries: list[dict[str, Any]], *, id: str, time_us: int, so_far: bool = False
) -> Send:  # fmt: skip
    if len(orjson.dumps(entries)) > _ENTRIES_BYTES_MAX:
        entries = [{**{name: value for name, value in entry.items() if name != "error"}, "result": None} for entry in entries]
    data: dict[str, Json] = {"id": monitor.id, "execution_id": state.id, "entries": entries, "told": state.told}
    if so_far:
        data["so_far"] = True
    # By the topic: what was handed over in memory only would be lost with this process.
    return _notification(state, monitor.module, COLLECT, data, id=id, time_us=time_us, key=monitor.id, hand_over=False)


def _entry(state: Execution, event: WorkflowTransition, sequence: int) -> dict[str, Any]:
    """`begun_us`: of what has ended, when it began."""
    ended = event.type.partition(".")[2] in _ENDINGS
    begun_us = None if not ended else state.started_us if event.step_id is None else state.step(event.step_id).begun_us
    return {
        "type": event.type,
        "step": event.step_id,
        "attempt": event.attempt,
        "time_us": to_micros(event.time),
        "begun_us": begun_us,
        "sequence": sequence,
        "result": event.data.get("result") if event.type == "step.completed" else None,
        **_why(event.data.get("error")),
    }


def _why(error: Json) -> dict[str, Json]:
    return {} if error is None else {"error": error}


def outstanding(state: Execution) -> Iterator[Send]:
    """Open questions, and what monitors may have missed."""
    for instance in state.live_in_order():
        step = state.step(instance)
        if step.approval is not None:
            yield question(state, instance, step)
    yield from summaries(state)
