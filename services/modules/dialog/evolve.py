"""The fold of a dialog's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.dialog.state import (
    Dialog,
    DialogEvent,
    DialogStarted,
    DialogTransitioned,
    DialogUpdated,
    Message,
    MessageSent,
    ParticipantsAdded,
    ParticipantsRemoved,
    TurnPassed,
)


def evolve(state: Dialog | None, event: DialogEvent, aggregate_id: str, time_us: int) -> Dialog | None:
    """The dialog after `event`; None: there is none."""
    if isinstance(event, DialogStarted):
        participants = {each.participant_id: each for each in event.participants}
        return Dialog(
            dialog_id=aggregate_id,
            topic=event.topic,
            context_id=event.context_id,
            participants=participants,
            status="active",
            created_us=time_us,
            updated_us=time_us,
            turns=event.turns,
            turn=next(iter(participants), None) if event.turns else None,
        )
    if state is None:
        return None
    changed = replace(state, version=state.version + 1, updated_us=time_us)
    match event:
        case MessageSent():
            message = Message(
                message_id=event.message_id,
                number=len(state.messages) + 1,
                sender=event.sender,
                recipients=event.recipients,
                content=event.content,
                reply_to=event.reply_to,
                at_us=time_us,
            )
            return replace(
                changed,
                messages=(*state.messages, message),
                content_bytes=state.content_bytes + event.content_bytes,
                turn=state.next_after(event.sender),
            )
        case ParticipantsAdded():
            participants = {**state.participants, **{each.participant_id: each for each in event.participants}}
            return _in_turn(replace(changed, participants=participants))
        case ParticipantsRemoved():
            return _without(changed, event.participants)
        case TurnPassed():
            return replace(changed, turn=event.to)
        case DialogUpdated():
            turns = state.turns if event.turns is None else event.turns
            return _in_turn(replace(changed, topic=state.topic if event.topic is None else event.topic, turns=turns))
        case DialogTransitioned():
            return replace(changed, status=event.after)
        case _:
            assert_never(event)


def _without(state: Dialog, gone: tuple[str, ...]) -> Dialog:
    turn = state.turn
    for _ in state.participants:
        turn = state.next_after(turn) if turn in gone else turn
    rest = {name: each for name, each in state.participants.items() if name not in gone}
    return _in_turn(replace(state, participants=rest, turn=turn))


def _in_turn(state: Dialog) -> Dialog:
    """With turns it is always somebody's turn, without nobody's."""
    if not state.turns:
        return replace(state, turn=None)
    return state if state.turn in state.participants else replace(state, turn=next(iter(state.participants), None))
