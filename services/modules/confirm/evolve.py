"""The fold of a confirmation's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.confirm.state import (
    OPEN,
    Confirmation,
    ConfirmCreated,
    ConfirmDelegated,
    ConfirmEscalated,
    ConfirmEvent,
    ConfirmTransitioned,
    ConfirmUpdated,
    ConfirmVoted,
    QuestionClosed,
    Vote,
)


def evolve(state: Confirmation | None, event: ConfirmEvent, aggregate_id: str, time_us: int) -> Confirmation | None:
    """The confirmation after `event`; None: there is none."""
    if isinstance(event, ConfirmCreated):
        return Confirmation(
            confirm_id=aggregate_id,
            title=event.title,
            description=event.description,
            requested_by=event.requested_by,
            approvers=event.approvers,
            quorum=event.quorum,
            status="pending",
            version=1,
            created_us=time_us,
            updated_us=time_us,
            context_id=event.context_id,
            data=event.data,
            escalations=event.escalations,
            expires_us=event.expires_us,
            question=event.question,
            caller=event.caller,
            correlation_id=event.correlation_id,
        )
    if state is None:
        return None
    changed = replace(state, version=state.version + 1, updated_us=time_us)
    match event:
        case ConfirmUpdated():
            return replace(
                changed,
                title=state.title if event.title is None else event.title,
                description=state.description if event.description is None else event.description,
                approvers=state.approvers if event.approvers is None else event.approvers,
                quorum=state.quorum if event.quorum is None else event.quorum,
                data=state.data if event.data is None else event.data,
            )
        case ConfirmVoted():
            vote = Vote(
                by=event.by, verdict=event.verdict, comment=event.comment, at_us=time_us, round=state.round, choice=event.choice,
                value=event.value,
            )  # fmt: skip
            return replace(changed, votes=(*state.votes, vote))
        case ConfirmDelegated():
            approvers = tuple(event.to if each == event.by else each for each in state.approvers)
            return replace(changed, approvers=tuple(dict.fromkeys(approvers)), delegations={**state.delegations, event.by: event.to})
        case ConfirmEscalated():
            return replace(
                changed,
                approvers=tuple(dict.fromkeys((*state.approvers, *event.to))) if state.approvers else (),
                escalations=tuple(each for each in state.escalations if not event.timed or each.at_us > time_us),
                escalated=state.escalated + 1,
            )
        case ConfirmTransitioned():
            return _moved(changed, event, time_us)
        case QuestionClosed():
            return replace(changed, question=None if state.question is None else replace(state.question, closed=True))
        case _:
            assert_never(event)


def _moved(state: Confirmation, event: ConfirmTransitioned, time_us: int) -> Confirmation:
    if event.after == "pending":
        return replace(state, status="pending", round=state.round + 1, ended_us=None, reason="", settled=False, expires_us=None)
    ended = event.after not in OPEN
    return replace(
        state,
        status=event.after,
        reason=event.reason if ended else state.reason,
        ended_us=time_us if ended else None,
        escalations=() if ended else state.escalations,
        caller=None if ended else state.caller,
    )
