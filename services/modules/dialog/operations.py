"""Parameters and results of the dialog operations."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from services.modules.dialog.state import PARTICIPANTS_MAX, Dialog, Message, Participant, Status
from services.modules.operation import Identifier, Listing, Misfit, Name, Page, Parameters, Result, Text, Versioned, time_text
from streams.records import Json


class WantedParticipant(Parameters):
    """Who shall take part: an assignment as assign-roles gives it, or any object with one of the ids; other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    participant_id: Identifier | None = None
    assignment_id: Identifier | None = None
    agent_id: Identifier | None = None
    role: Name | None = None
    context_id: Json = None  #: of an assignment

    @model_validator(mode="after")
    def _identified(self) -> Self:
        if self.participant_id is None and self.assignment_id is None and self.agent_id is None and self.role is None:
            raise ValueError("give participantId, assignmentId, agentId or role")
        return self

    def participant(self) -> Participant:
        """The participant: known by the first id that is given."""
        identity = self.participant_id or self.assignment_id or self.agent_id or self.role
        assert identity is not None
        return Participant(participant_id=identity, role=self.role, agent_id=self.agent_id)


class FacilitateCommunication(Parameters):
    """Parameters of facilitate-communication: who shall talk, or which paused dialog goes on."""

    TARGETS: ClassVar[tuple[str, ...]] = ("dialog_id", "context_id")

    participants: list[Identifier | WantedParticipant] | None = Field(None, min_length=1, max_length=PARTICIPANTS_MAX)
    topic: Text = ""
    context_id: Identifier | None = Field(
        None, description="Context in which they talk. Without: that of the participants, if all are assignments of one that is active."
    )
    dialog_id: Identifier | None = Field(None, description="A paused dialog, to take it up again.")
    turn_taking: Literal["free", "round-robin"] = Field(
        "free", description="`round-robin`: participants speak one after another, in the order in which they joined."
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.participants is None) == (self.dialog_id is None):
            raise ValueError("give participants for a new dialog, or dialogId to take up a paused one")
        if self.dialog_id is not None and (self.topic or self.context_id is not None or self.turn_taking != "free"):
            raise ValueError("topic, contextId and turnTaking belong to a new dialog")
        return self

    def room(self) -> str | None:
        """The context of which all participants are assignments; None: there is no such."""
        named = [each.context_id if isinstance(each, WantedParticipant) else None for each in self.participants or ()]
        texts = {each if isinstance(each, str) else None for each in named}
        return texts.pop() if len(texts) == 1 else None


class OfDialog(Parameters):
    """Names a dialog."""

    TARGETS: ClassVar[tuple[str, ...]] = ("dialog_id",)

    dialog_id: Identifier = Field(description="Id of the dialog, from facilitate-communication.")


class GetDialog(OfDialog):
    """Parameters of get-dialog."""


class ListDialogs(Page):
    """Parameters of list-dialogs: conditions that all must hold."""

    context_id: Identifier | None = None
    participant: Identifier | None = Field(None, description="Somebody who takes part: participant id, agent id or role.")
    status: Status | None = None
    text: Text | None = Field(None, description="Part of the topic, without regard to case.")


class UpdateDialog(OfDialog, Versioned):
    """Parameters of update-dialog: what is not given stays."""

    topic: Text | None = None
    turn_taking: Literal["free", "round-robin"] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.topic is None and self.turn_taking is None:
            raise ValueError("give topic or turnTaking")
        return self


class PassTurn(OfDialog):
    """Parameters of pass-turn."""

    by: Identifier = Field(description="Whose turn it is, and who has nothing to say.")


class RemoveParticipants(OfDialog):
    """Parameters of remove-participants."""

    participants: list[Identifier] = Field(min_length=1, max_length=PARTICIPANTS_MAX)
    reason: Text = ""


class SendMessage(OfDialog):
    """Parameters of send-message."""

    sender: Identifier = Field(description="A participant: its id, its agent id, or its role if nobody else has it.")
    content: Json = Field(description="What is said: text or any JSON value but null.")
    recipients: list[Identifier] = Field(default_factory=list, max_length=PARTICIPANTS_MAX, description="Participants; empty: all.")
    reply_to: Identifier | None = Field(None, description="Id of the message that it answers.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None:
            raise Misfit("content is any JSON value but null", "content")
        return self


class History(OfDialog):
    """Parameters of history."""

    after: int = Field(0, ge=0, description="Only messages with a greater number.")
    limit: int = Field(100, ge=1, le=1000)
    participant: Identifier | None = Field(None, description="Only what this participant sent or was sent.")


class AddParticipants(OfDialog):
    """Parameters of add-participants; who takes part already is left as it is."""

    participants: list[Identifier | WantedParticipant] = Field(min_length=1, max_length=PARTICIPANTS_MAX)


class End(OfDialog):
    """Parameters of end."""

    status: Literal["ended", "paused", "archived"] = Field(
        "ended", description="`paused`: facilitate-communication with dialogId takes it up again; `archived` puts an ended one away."
    )
    reason: Text = ""


class ParticipantResult(Result):
    """Who takes part."""

    participant_id: str
    role: str | None
    agent_id: str | None


class DialogResult(Result):
    """A dialog without its messages."""

    dialog_id: str
    topic: str
    context_id: str | None
    status: Status
    participants: list[ParticipantResult]
    message_count: int
    created_at: str
    turn_taking: Literal["free", "round-robin"]
    turn: str | None = Field(description="Whose turn it is; null: anybody may speak.")
    version: int

    @classmethod
    def of(cls, dialog: Dialog) -> Self:
        """The dialog as callers see it."""
        return cls(
            dialog_id=dialog.dialog_id,
            topic=dialog.topic,
            context_id=dialog.context_id,
            status=dialog.status,
            participants=[
                ParticipantResult(participant_id=each.participant_id, role=each.role, agent_id=each.agent_id)
                for each in dialog.participants.values()
            ],
            message_count=len(dialog.messages),
            created_at=time_text(dialog.created_us),
            turn_taking="round-robin" if dialog.turns else "free",
            turn=dialog.turn,
            version=dialog.version,
        )


class MessageResult(Result):
    """Something that was said."""

    message_id: str
    number: int = Field(description="From 1, without gaps.")
    sender: str
    recipients: list[str] = Field(description="Participant ids; empty: all.")
    content: Json
    reply_to: str | None
    at: str

    @classmethod
    def of(cls, message: Message) -> Self:
        """The message as callers see it."""
        return cls(
            message_id=message.message_id,
            number=message.number,
            sender=message.sender,
            recipients=list(message.recipients),
            content=message.content,
            reply_to=message.reply_to,
            at=time_text(message.at_us),
        )


class Sent(Result):
    """What send-message answers."""

    dialog_id: str
    message_id: str
    number: int
    turn: str | None = Field(description="Whose turn it is then; null: anybody may speak.")


class DialogList(Listing):
    """Dialogs in order of their ids."""

    ENTRIES: ClassVar[str] = "dialogs"
    KEY: ClassVar[str] = "dialogId"

    dialogs: list[DialogResult]


class HistoryResult(Result):
    """Messages in order."""

    dialog_id: str
    messages: list[MessageResult]
    next: int | None = Field(description="Give it as `after` for the messages that follow; null: there are none.")


class ParticipantsResult(DialogResult):
    """A dialog, and who was added to it."""

    added: list[str]
