"""The fold of a dialog's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.dialog.state import Dialog, DialogEvent, DialogStarted, DialogTransitioned, Message, MessageSent, ParticipantsAdded


def evolve(state: Dialog | None, event: DialogEvent, aggregate_id: str, time_us: int) -> Dialog | None:
    """The dialog after `event`; None: there is none."""
    if isinstance(event, DialogStarted):
        return Dialog(
            dialog_id=aggregate_id,
            topic=event.topic,
            context_id=event.context_id,
            participants={each.participant_id: each for each in event.participants},
            status="active",
            created_us=time_us,
        )
    if state is None:
        return None
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
            return replace(state, messages=(*state.messages, message), content_bytes=state.content_bytes + event.content_bytes)
        case ParticipantsAdded():
            return replace(state, participants={**state.participants, **{each.participant_id: each for each in event.participants}})
        case DialogTransitioned():
            return replace(state, status=event.after)
        case _:
            assert_never(event)
