"""State and events of dialogs, and the table of their life cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from streams.records import Json

Status: TypeAlias = Literal["active", "paused", "ended", "archived"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "active": ("paused", "ended"),
    "paused": ("active", "ended"),
    "ended": ("archived",),
    "archived": (),
}
LIFECYCLE = Lifecycle(noun="dialog", initial=("active",), table=TRANSITIONS)

PARTICIPANTS_MAX = 1000
#: Messages of one dialog, and bytes of JSON of their contents; beyond either a new dialog is needed.
MESSAGES_MAX = 10_000
CONTENT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who takes part, known by `participant_id`; also by `agent_id`, and by `role` as long as nobody else has it."""

    participant_id: str
    role: str | None = None
    agent_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something that was said. `recipients` empty: to all."""

    message_id: str
    number: int  #: from 1, gapless
    sender: str  #: participant id
    recipients: tuple[str, ...]
    content: Json
    reply_to: str | None
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialog:
    """A dialog as it is now."""

    dialog_id: str
    topic: str
    context_id: str | None
    participants: Mapping[str, Participant]  #: by participant id
    status: Status
    created_us: int
    messages: tuple[Message, ...] = ()
    content_bytes: int = 0  #: bytes of JSON of all contents
    turns: bool = False  #: participants speak one after another, in the order in which they joined
    turn: str | None = None  #: whose turn it is, with turns
    updated_us: int = 0
    version: int = 1
    settled: bool = False

    def next_after(self, participant: str | None) -> str | None:
        """Whose turn comes after that of a participant; without turns nobody's."""
        names = list(self.participants)
        if not self.turns or not names:
            return None
        return names[(names.index(participant) + 1) % len(names)] if participant is not None and participant in names else names[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogStarted:
    """A dialog began, active."""

    TYPE: ClassVar[str] = "dialog.started"
    topic: str
    participants: tuple[Participant, ...]
    context_id: str | None = None
    turns: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSent:
    """A participant said something."""

    TYPE: ClassVar[str] = "dialog.message-sent"
    message_id: str
    sender: str
    content: Json
    content_bytes: int
    recipients: tuple[str, ...] = ()
    reply_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantsAdded:
    """More take part."""

    TYPE: ClassVar[str] = "dialog.participants-added"
    participants: tuple[Participant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogTransitioned:
    """The dialog's state changed."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "active": "dialog.resumed",
        "paused": "dialog.paused",
        "ended": "dialog.ended",
        "archived": "dialog.archived",
    }
    before: Status
    after: Status
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantsRemoved:
    """Some take part no more; what they said stays."""

    TYPE: ClassVar[str] = "dialog.participants-removed"
    participants: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPassed:
    """Somebody had nothing to say; `to` is whose turn it is then."""

    TYPE: ClassVar[str] = "dialog.turn-passed"
    by: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogUpdated:
    """Attributes changed; null: as before."""

    TYPE: ClassVar[str] = "dialog.updated"
    topic: str | None = None
    turns: bool | None = None


DialogEvent: TypeAlias = (
    DialogStarted | MessageSent | ParticipantsAdded | ParticipantsRemoved | TurnPassed | DialogUpdated | DialogTransitioned
)  # fmt: skip
EVENTS = (DialogStarted, MessageSent, ParticipantsAdded, ParticipantsRemoved, TurnPassed, DialogUpdated, DialogTransitioned)
