"""What the dialog operations decide. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from services.modules.context.decide import open_context
from services.modules.dialog.evolve import evolve
from services.modules.dialog.operations import (
    AddParticipants,
    DialogResult,
    End,
    FacilitateCommunication,
    History,
    HistoryResult,
    MessageResult,
    ParticipantsResult,
    SendMessage,
    Sent,
    WantedParticipant,
)
from services.modules.dialog.state import (
    CONTENT_BYTES_MAX,
    EVENTS,
    MESSAGES_MAX,
    PARTICIPANTS_MAX,
    TRANSITIONS,
    Dialog,
    DialogEvent,
    DialogStarted,
    DialogTransitioned,
    MessageSent,
    Participant,
    ParticipantsAdded,
    Status,
)
from services.modules.lookup import find
from services.modules.operation import BuiltIn, Decided, Done, Operation, Outcome, Refusal, Request, conflict, invalid
from services.modules.transitions import refuse_transition
from streams.log.types import View


def facilitate_communication(view: View[Any], parameters: FacilitateCommunication, request: Request) -> Outcome:
    """Begins a dialog between participants, or takes a paused one up again."""
    if parameters.dialog_id is not None:
        return _transition(view, parameters.dialog_id, "active", "", request)
    if parameters.context_id is not None:
        context = open_context(view, parameters.context_id)
        if isinstance(context, Refusal):
            return context
    participants = _participants(parameters.participants or (), {})
    if isinstance(participants, Refusal):
        return participants
    dialog_id = request.new_id("dialog")
    if view.state(dialog_id) is not None:
        return conflict(f"This request created {dialog_id} before.")
    event = DialogStarted(topic=parameters.topic, participants=tuple(participants.values()), context_id=parameters.context_id)
    after = _after(None, event, dialog_id, request)
    return Done(aggregate_id=dialog_id, result=DialogResult.of(after), events=(Decided(aggregate_id=dialog_id, event=event),))


def send_message(view: View[Any], parameters: SendMessage, request: Request) -> Outcome:
    """Says something in an active dialog; only its participants may."""
    dialog = _active(view, parameters.dialog_id)
    if isinstance(dialog, Refusal):
        return dialog
    sender = _known(dialog, parameters.sender)
    if sender is None:
        return Refusal(code="denied", message=f"{parameters.sender!r} does not take part in the dialog.", pointer="/sender")
    recipients = []
    for index, each in enumerate(parameters.recipients):
        recipient = _known(dialog, each)
        if recipient is None:
            return invalid(f"{each!r} does not take part in the dialog.", f"/recipients/{index}")
        recipients.append(recipient)
    if parameters.reply_to is not None and all(message.message_id != parameters.reply_to for message in dialog.messages):
        return Refusal(code="not-found", message=f"There is no message {parameters.reply_to!r} in the dialog.", pointer="/replyTo")
    size = len(orjson.dumps(parameters.content))
    if len(dialog.messages) >= MESSAGES_MAX or dialog.content_bytes + size > CONTENT_BYTES_MAX:
        message = f"A dialog has at most {MESSAGES_MAX} messages and {CONTENT_BYTES_MAX} bytes; begin another."
        return Refusal(code="payload.too-large", message=message, pointer="/dialogId")
    event = MessageSent(
        message_id=request.new_id("message").partition("/")[2],
        sender=sender,
        content=parameters.content,
        content_bytes=size,
        recipients=tuple(recipients),
        reply_to=parameters.reply_to,
    )
    after = _after(dialog, event, dialog.dialog_id, request)
    return Done(
        aggregate_id=dialog.dialog_id,
        result=Sent(dialog_id=dialog.dialog_id, message_id=event.message_id, number=len(after.messages)),
        events=(Decided(aggregate_id=dialog.dialog_id, event=event),),
    )


def history(view: View[Any], parameters: History, request: Request) -> Outcome:
    """What was said in a dialog, in order, page by page."""
    dialog = find(view, Dialog, parameters.dialog_id, pointer="/dialogId")
    if isinstance(dialog, Refusal):
        return dialog
    messages = dialog.messages[parameters.after :]
    if parameters.participant is not None:
        who = _known(dialog, parameters.participant)
        if who is None:
            return invalid(f"{parameters.participant!r} does not take part in the dialog.", "/participant")
        messages = tuple(each for each in messages if who == each.sender or not each.recipients or who in each.recipients)
    shown = messages[: parameters.limit]
    return Done(
        aggregate_id=dialog.dialog_id,
        result=HistoryResult(
            dialog_id=dialog.dialog_id,
            messages=[MessageResult.of(each) for each in shown],
            next=shown[-1].number if len(messages) > len(shown) else None,
        ),
    )


def add_participants(view: View[Any], parameters: AddParticipants, request: Request) -> Outcome:
    """Lets more participants into an active dialog."""
    dialog = _active(view, parameters.dialog_id)
    if isinstance(dialog, Refusal):
        return dialog
    wanted = _participants(parameters.participants, dialog.participants)
    if isinstance(wanted, Refusal):
        return wanted
    added = {key: each for key, each in wanted.items() if key not in dialog.participants}
    events = (ParticipantsAdded(participants=tuple(added.values())),) if added else ()
    after = dialog
    for event in events:
        after = _after(after, event, dialog.dialog_id, request)
    result = ParticipantsResult(**DialogResult.of(after).model_dump(), added=list(added))
    return Done(
        aggregate_id=dialog.dialog_id,
        result=result,
        events=tuple(Decided(aggregate_id=dialog.dialog_id, event=event) for event in events),
    )


def end(view: View[Any], parameters: End, request: Request) -> Outcome:
    """Ends a dialog, holds it up, or puts an ended one away."""
    return _transition(view, parameters.dialog_id, parameters.status, parameters.reason, request)


def _transition(view: View[Any], dialog_id: str, status: Status, reason: str, request: Request) -> Outcome:
    dialog = find(view, Dialog, dialog_id, pointer="/dialogId")
    if isinstance(dialog, Refusal):
        return dialog
    refused = refuse_transition(TRANSITIONS, "dialog", dialog.status, status)
    if refused is not None:
        return refused
    event = DialogTransitioned(before=dialog.status, after=status, reason=reason)
    after = _after(dialog, event, dialog_id, request)
    return Done(aggregate_id=dialog_id, result=DialogResult.of(after), events=(Decided(aggregate_id=dialog_id, event=event),))


def _active(view: View[Any], dialog_id: str) -> Dialog | Refusal:
    dialog = find(view, Dialog, dialog_id, pointer="/dialogId")
    if isinstance(dialog, Dialog) and dialog.status != "active":
        return conflict(f"The dialog is {dialog.status}, not active.", "/dialogId")
    return dialog


def _participants(wanted: Sequence[str | WantedParticipant], present: Mapping[str, Participant]) -> dict[str, Participant] | Refusal:
    found: dict[str, Participant] = {}
    for index, each in enumerate(wanted):
        participant = Participant(participant_id=each) if isinstance(each, str) else each.participant()
        if participant.participant_id in found:
            return invalid(f"{participant.participant_id!r} is named twice.", f"/participants/{index}")
        found[participant.participant_id] = participant
    if len({**present, **found}) > PARTICIPANTS_MAX:
        return conflict(f"A dialog has at most {PARTICIPANTS_MAX} participants.", "/participants")
    return found


def _known(dialog: Dialog, name: str) -> str | None:
    """The id of the participant that `name` means; None if it means nobody, or more than one."""
    if name in dialog.participants:
        return name
    meant = [each.participant_id for each in dialog.participants.values() if name in (each.agent_id, each.role)]
    return meant[0] if len(meant) == 1 else None


def _after(before: Dialog | None, event: DialogEvent, dialog_id: str, request: Request) -> Dialog:
    after = evolve(before, event, dialog_id, request.time_us)
    assert after is not None
    return after


MODULE = BuiltIn(
    operations={
        "facilitate-communication": Operation(parameters=FacilitateCommunication, result=DialogResult, decide=facilitate_communication),
        "send-message": Operation(parameters=SendMessage, result=Sent, decide=send_message),
        "history": Operation(parameters=History, result=HistoryResult, decide=history),
        "add-participants": Operation(parameters=AddParticipants, result=ParticipantsResult, decide=add_participants),
        "end": Operation(parameters=End, result=DialogResult, decide=end),
    },
    events=EVENTS,
    evolve=evolve,
)
