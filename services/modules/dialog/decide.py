"""What the dialog operations decide. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.context.decide import open_context
from services.modules.dialog.evolve import evolve
from services.modules.dialog.operations import (
    AddParticipants,
    DialogList,
    DialogResult,
    End,
    FacilitateCommunication,
    GetDialog,
    History,
    HistoryResult,
    ListDialogs,
    MessageResult,
    ParticipantsResult,
    PassTurn,
    RemoveParticipants,
    SendMessage,
    Sent,
    UpdateDialog,
    WantedParticipant,
)
from services.modules.dialog.state import (
    CONTENT_BYTES_MAX,
    EVENTS,
    LIFECYCLE,
    MESSAGES_MAX,
    PARTICIPANTS_MAX,
    Dialog,
    DialogStarted,
    DialogTransitioned,
    DialogUpdated,
    MessageSent,
    Participant,
    ParticipantsAdded,
    ParticipantsRemoved,
    Status,
    TurnPassed,
)
from services.modules.lookup import changed, find, has_text, how_many_fit, listing, refuse_version, states_of
from services.modules.operation import Done, Operation, Outcome, Refusal, Request, conflict, invalid
from streams.log.types import View


def facilitate_communication(view: View[Any], parameters: FacilitateCommunication, request: Request) -> Outcome:
    """Begins a dialog between participants, or takes a paused one up again."""
    if parameters.dialog_id is not None:
        return _transition(view, parameters.dialog_id, "active", "", request, "/dialogId")
    context_id = parameters.context_id or parameters.room()
    if context_id is not None:
        context = open_context(view, context_id)
        if isinstance(context, Refusal):
            if parameters.context_id is not None:
                return context
            context_id = None
    participants = _participants(parameters.participants or (), {})
    if isinstance(participants, Refusal):
        return participants
    dialog_id = request.new_id("dialog")
    if view.state(dialog_id) is not None:
        return conflict(f"This request created {dialog_id} before.")
    event = DialogStarted(
        topic=parameters.topic,
        participants=tuple(participants.values()),
        context_id=context_id,
        turns=parameters.turn_taking == "round-robin",
    )
    return changed(evolve, None, dialog_id, request, DialogResult.of, event)


def get_dialog(view: View[Any], parameters: GetDialog, request: Request) -> Outcome:
    """A dialog as it is, without its messages."""
    dialog = find(view, Dialog, parameters.dialog_id, pointer="/dialogId")
    return dialog if isinstance(dialog, Refusal) else Done(aggregate_id=dialog.dialog_id, result=DialogResult.of(dialog))


def list_dialogs(view: View[Any], parameters: ListDialogs, request: Request) -> Outcome:
    """Dialogs in order of their ids, by context, participant, state, or part of the topic."""
    wanted = (
        dialog
        for dialog in states_of(view, Dialog)
        if parameters.context_id in (None, dialog.context_id)
        and parameters.status in (None, dialog.status)
        and has_text(parameters.text, dialog.topic)
        and (parameters.participant is None or known(dialog, parameters.participant) is not None)
    )
    return listing(view, parameters, DialogList, wanted, lambda dialog: dialog.dialog_id, DialogResult.of)


def update_dialog(view: View[Any], parameters: UpdateDialog, request: Request) -> Outcome:
    """Changes the topic of a dialog, or whether its participants take turns."""
    dialog = _active(view, parameters.dialog_id)
    if isinstance(dialog, Refusal):
        return dialog
    refused = refuse_version(parameters.expected_version, dialog.version, "dialog")
    if refused is not None:
        return refused
    turns = None if parameters.turn_taking is None else parameters.turn_taking == "round-robin"
    return changed(evolve, dialog, dialog.dialog_id, request, DialogResult.of, DialogUpdated(topic=parameters.topic, turns=turns))


def pass_turn(view: View[Any], parameters: PassTurn, request: Request) -> Outcome:
    """Lets the next participant speak; only whose turn it is may."""
    dialog = _active(view, parameters.dialog_id)
    if isinstance(dialog, Refusal):
        return dialog
    who = known(dialog, parameters.by)
    following = dialog.next_after(who)
    if who is None:
        return Refusal(code="denied", message=f"{parameters.by!r} does not take part in the dialog.", pointer="/by")
    if who != dialog.turn or following is None:
        whose = "Anybody may speak" if dialog.turn is None else f"It is the turn of {dialog.turn}"
        return conflict(f"{whose}; {parameters.by!r} has no turn to pass.", "/by")
    return changed(evolve, dialog, dialog.dialog_id, request, DialogResult.of, TurnPassed(by=who, to=following))


def remove_participants(view: View[Any], parameters: RemoveParticipants, request: Request) -> Outcome:
    """Has participants leave an active dialog."""
    dialog = _active(view, parameters.dialog_id)
    if isinstance(dialog, Refusal):
        return dialog
    leaving: dict[str, None] = {}
    for index, each in enumerate(parameters.participants):
        who = known(dialog, each)
        if who is None:
            return invalid(f"{each!r} does not take part in the dialog.", f"/participants/{index}")
        leaving[who] = None
    event = ParticipantsRemoved(participants=tuple(leaving), reason=parameters.reason)
    return changed(evolve, dialog, dialog.dialog_id, request, DialogResult.of, event)


def send_message(view: View[Any], parameters: SendMessage, request: Request) -> Outcome:
    """Says something in an active dialog; only its participants may."""
    dialog = _active(view, parameters.dialog_id)
    if isinstance(dialog, Refusal):
        return dialog
    sender = known(dialog, parameters.sender)
    if sender is None:
        return Refusal(code="denied", message=f"{parameters.sender!r} does not take part in the dialog.", pointer="/sender")
    if dialog.turn is not None and sender != dialog.turn:
        return conflict(f"It is the turn of {dialog.turn}, not of {sender}.", "/sender")
    recipients = []
    for index, each in enumerate(parameters.recipients):
        recipient = known(dialog, each)
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
    number = len(dialog.messages) + 1
    return changed(
        evolve, dialog, dialog.dialog_id, request,
        lambda after: Sent(dialog_id=after.dialog_id, message_id=event.message_id, number=number, turn=after.turn), event,
    )  # fmt: skip


def history(view: View[Any], parameters: History, request: Request) -> Outcome:
    """What was said in a dialog, in order, page by page."""
    dialog = find(view, Dialog, parameters.dialog_id, pointer="/dialogId")
    if isinstance(dialog, Refusal):
        return dialog
    messages = dialog.messages[parameters.after :]
    if parameters.participant is not None:
        who = known(dialog, parameters.participant) or _former(dialog, parameters.participant)
        if who is None:
            return invalid(f"{parameters.participant!r} does not take part in the dialog.", "/participant")
        messages = tuple(each for each in messages if who == each.sender or not each.recipients or who in each.recipients)
    shown = [MessageResult.of(each) for each in messages[: parameters.limit]]
    shown = shown[: max(1, how_many_fit(each.model_dump(mode="json") for each in shown))]
    following = shown[-1].number if len(messages) > len(shown) else None
    return Done(aggregate_id=dialog.dialog_id, result=HistoryResult(dialog_id=dialog.dialog_id, messages=shown, next=following))


def _former(dialog: Dialog, name: str) -> str | None:
    """The id of somebody who takes part no more, but has said something, or was told something."""
    return name if any(name == each.sender or name in each.recipients for each in dialog.messages) else None


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
    return changed(
        evolve, dialog, dialog.dialog_id, request,
        lambda after: ParticipantsResult(**DialogResult.of(after).model_dump(), added=list(added)), *events,
    )  # fmt: skip


def end(view: View[Any], parameters: End, request: Request) -> Outcome:
    """Ends a dialog, holds it up, or puts an ended one away."""
    return _transition(view, parameters.dialog_id, parameters.status, parameters.reason, request)


def _transition(
    view: View[Any], dialog_id: str, status: Status, reason: str, request: Request, pointer: str = "/status"
) -> Outcome:  # fmt: skip
    dialog = find(view, Dialog, dialog_id, pointer="/dialogId")
    if isinstance(dialog, Refusal):
        return dialog
    refused = LIFECYCLE.refusal(dialog.status, status, pointer)
    if refused is not None:
        return refused
    event = DialogTransitioned(before=dialog.status, after=status, reason=reason)
    return changed(evolve, dialog, dialog_id, request, DialogResult.of, event)


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


def known(dialog: Dialog, name: str) -> str | None:
    """The id of the participant that `name` means; None if it means nobody, or more than one."""
    if name in dialog.participants:
        return name
    meant = [each.participant_id for each in dialog.participants.values() if name in (each.agent_id, each.role)]
    return meant[0] if len(meant) == 1 else None


MODULE = BuiltIn(
    operations={
        "facilitate-communication": Operation(parameters=FacilitateCommunication, result=DialogResult, decide=facilitate_communication),
        "get-dialog": Operation(parameters=GetDialog, result=DialogResult, decide=get_dialog),
        "list-dialogs": Operation(parameters=ListDialogs, result=DialogList, decide=list_dialogs, gathers=True),
        "update-dialog": Operation(parameters=UpdateDialog, result=DialogResult, decide=update_dialog),
        "send-message": Operation(parameters=SendMessage, result=Sent, decide=send_message),
        "pass-turn": Operation(parameters=PassTurn, result=DialogResult, decide=pass_turn),
        "history": Operation(parameters=History, result=HistoryResult, decide=history),
        "add-participants": Operation(parameters=AddParticipants, result=ParticipantsResult, decide=add_participants),
        "remove-participants": Operation(parameters=RemoveParticipants, result=DialogResult, decide=remove_participants),
        "end": Operation(parameters=End, result=DialogResult, decide=end),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Dialog, ended=lambda state: state.updated_us if state.status == "archived" else None),),
    lifecycles=(LIFECYCLE,),
)
