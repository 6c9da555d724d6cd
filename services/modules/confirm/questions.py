"""Confirmations that do something by themselves: their timers, and the questions of workflows. Pure.

A workflow that asks people (an `approval` step, `escalate-to-human`) tells this module (`streams.operations.APPROVAL_OPENED`), and when it
does not wait any more (`APPROVAL_CLOSED`). Whoever decides here answers the workflow by its own command `answer`; whoever answers the
workflow decides here. The command is sent again until the workflow has closed the question; its id derives from the confirmation, so it
counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from services.modules.confirm.evolve import evolve
from services.modules.confirm.operations import ConfirmResult
from services.modules.confirm.state import (
    OPEN,
    Confirmation,
    ConfirmCreated,
    ConfirmEscalated,
    ConfirmEvent,
    ConfirmTransitioned,
    ConfirmVoted,
    Question,
    QuestionClosed,
    Status,
)
from services.modules.operation import NOTHING_FOLLOWS, Answered, Decided, Done, Follow, short_id
from services.modules.outgoing import command
from streams import limits
from streams.log.types import Due, Send, View
from streams.operations import APPROVAL_CLOSED, APPROVAL_OPENED
from streams.records import ModuleMessage, derived_id
from streams.topics import home_of

#: Choices of workflows' questions that go on, the usual first; and those that stop.
CHOICES_GOING_ON = ("approve", "retry", "done")
CHOICES_STOPPING = ("reject", "fail")
#: What an ended question becomes.
_CLOSED: Mapping[str, Status] = {"timed_out": "expired", "cancelled": "cancelled"}


def confirm_id_of(execution_id: str, step_id: str, attempt: int) -> str:
    """The confirmation that a workflow's question is."""
    return f"{home_of(execution_id)}/confirm-{short_id('question', execution_id, step_id, attempt)}"


# --- timers -----------------------------------------------------------------------------------------------------------


def due(state: Confirmation) -> int | None:
    """When it escalates or expires."""
    if state.status not in OPEN:
        return None
    moments = [each.at_us for each in state.escalations[:1]] + ([] if state.expires_us is None else [state.expires_us])
    return min(moments, default=None)


def fire(view: View[Any], state: Confirmation, timer: Due) -> Follow:
    """Nobody has decided in time: more are asked, or it expires."""
    if state.expires_us is not None and state.expires_us <= timer.time_us:
        return _followed(
            state, timer.time_us, ConfirmTransitioned(before=state.status, after="expired", reason="nobody has decided in time")
        )
    overdue = [each for each in state.escalations if each.at_us <= timer.time_us]
    to = tuple(dict.fromkeys(name for each in overdue for name in each.to))
    events: list[ConfirmEvent] = [ConfirmEscalated(to=to, reason="nobody has decided in time", timed=True)]
    if state.status == "pending":
        events.append(ConfirmTransitioned(before="pending", after="in_review"))
    return _followed(state, timer.time_us, *events)


# --- whoever waits ------------------------------------------------------------------------------------------------------


def outstanding(state: Confirmation) -> Iterator[Send]:
    """The answer to a workflow that has not closed its question."""
    question = state.question
    if question is None or question.closed or state.status not in ("approved", "rejected"):
        return
    verdict = "approve" if state.status == "approved" else "reject"
    vote = next(vote for vote in reversed(state.votes) if vote.verdict == verdict)
    data: dict[str, Any] = {"step": question.step_id, "choice": vote.choice, "by": vote.by}
    data |= ({"value": vote.value} if vote.value is not None else {}) | ({"why": vote.comment} if vote.comment else {})
    yield command(
        question.execution_id, "answer", data, id=derived_id("confirm-answer", state.confirm_id), source="mplp/modules/confirm",
        time_us=vote.at_us, correlation_id=state.correlation_id,
    )  # fmt: skip


def concluded(before: Confirmation, done: Done, time_us: int) -> Done:
    """What an operation decided, with what workflows are told; callers that wait are told by the same decision."""
    after: Confirmation | None = before
    for decided in done.events:
        after = evolve(after, decided.event, before.confirm_id, time_us)  # type: ignore[arg-type]  # its own events
    assert after is not None
    answers = _answers(before, after)
    return replace(done, effects=tuple(outstanding(after)), answers=answers)


def _followed(state: Confirmation, time_us: int, *events: ConfirmEvent) -> Follow:
    after: Confirmation | None = state
    for event in events:
        after = evolve(after, event, state.confirm_id, time_us)
    assert after is not None
    decided = tuple(Decided(aggregate_id=state.confirm_id, event=event, correlation_id=state.correlation_id) for event in events)
    return Follow(events=decided, answers=_answers(state, after))


def _answers(before: Confirmation, after: Confirmation) -> tuple[Answered, ...]:
    if before.caller is None or after.status in OPEN:
        return ()
    result = ConfirmResult.of(after).model_dump(mode="json", by_alias=True)
    return (Answered(caller=before.caller, aggregate_id=after.confirm_id, answer=result),)


# --- questions of workflows -----------------------------------------------------------------------------------------------


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """A workflow asks people, or does so no more."""
    data = message.data
    if message.kind != "notification" or not isinstance(data, dict) or message.operation not in (APPROVAL_OPENED, APPROVAL_CLOSED):
        return None
    execution_id, step_id, attempt = data.get("execution_id"), data.get("step_id"), data.get("attempt")
    if not isinstance(execution_id, str) or not isinstance(step_id, str) or not isinstance(attempt, int):
        return None
    state = view.state(confirm_id_of(execution_id, step_id, attempt))
    if message.operation == APPROVAL_CLOSED:
        return _closed(state, data, time_us) if isinstance(state, Confirmation) else NOTHING_FOLLOWS
    if state is not None:
        return NOTHING_FOLLOWS
    choices = tuple(each for each in data.get("choices", ()) if isinstance(each, str)) or ("approve", "reject")
    assignees = data.get("assignees")
    named = [assignees] if isinstance(assignees, str) else assignees if isinstance(assignees, list) else []
    event = ConfirmCreated(
        title=str(data.get("title", ""))[: limits.NAME_CHARACTERS_MAX],
        requested_by=execution_id,
        approvers=tuple(dict.fromkeys(each for each in named if isinstance(each, str) and each)),
        data=data.get("error"),
        question=Question(execution_id=execution_id, step_id=step_id, attempt=attempt, choices=choices),
        correlation_id=message.correlation_id,
    )
    created = Decided(aggregate_id=confirm_id_of(execution_id, step_id, attempt), event=event)
    return Follow(events=(created,))


def _closed(state: Confirmation, data: Mapping[str, Any], time_us: int) -> Follow:
    if state.question is None or state.question.closed:
        return NOTHING_FOLLOWS
    reason, choice, by = str(data.get("reason", "")), data.get("choice"), str(data.get("by") or "")
    events: list[ConfirmEvent] = []
    if state.status in OPEN and isinstance(choice, str):
        verdict = "reject" if choice in CHOICES_STOPPING else "approve"
        why = str(data.get("why") or "")
        status: Status = "rejected" if verdict == "reject" else "approved"
        events.append(ConfirmVoted(by=by, verdict=verdict, comment=why, choice=choice, value=data.get("value")))  # type: ignore[arg-type]
        events.append(ConfirmTransitioned(before=state.status, after=status, by=by, reason=why))
    elif state.status in OPEN:
        events.append(ConfirmTransitioned(before=state.status, after=_CLOSED.get(reason, "cancelled"), reason=reason))
    return _followed(state, time_us, *events, QuestionClosed(reason=reason))
