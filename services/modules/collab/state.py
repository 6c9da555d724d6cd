"""State and events of collaborations, and the tables of their life cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from streams.records import Json

Status: TypeAlias = Literal["pending", "active", "completed", "failed", "cancelled"]
TaskStatus: TypeAlias = Literal["assigned", "running", "completed", "failed"]
VoteStatus: TypeAlias = Literal["open", "decided", "undecided"]
Rule: TypeAlias = Literal["majority", "unanimous", "plurality"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "pending": ("active", "cancelled"),
    "active": ("completed", "failed", "cancelled"),
    "completed": (),
    "failed": (),
    "cancelled": (),
}
LIFECYCLE = Lifecycle(noun="collaboration", initial=("pending",), table=TRANSITIONS)

TASK_TRANSITIONS: Mapping[TaskStatus, tuple[TaskStatus, ...]] = {
    "assigned": ("running", "completed", "failed"),
    "running": ("completed", "failed", "assigned"),
    "failed": ("assigned",),
    "completed": (),
}
TASK_LIFECYCLE = Lifecycle(noun="shared task", initial=("assigned",), table=TASK_TRANSITIONS)

#: A collaboration needs two; more than a hundred do not decide by talking (limits of the MPLP documents).
PARTICIPANTS_MIN = 2
PARTICIPANTS_MAX = 100
TASKS_MAX = 1000
VOTES_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who takes part."""

    participant_id: str
    role: str | None = None
    joined_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTask:
    """A task of somebody in the collaboration."""

    task_id: str
    title: str
    assignee: str
    status: TaskStatus = "assigned"
    result: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Something that participants vote on. `outcome` is the option that won."""

    decision_id: str
    title: str
    options: tuple[str, ...]
    rule: Rule
    status: VoteStatus = "open"
    votes: Mapping[str, str] = field(default_factory=dict)  #: participant → option
    outcome: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaboration:
    """A collaboration as it is."""

    collab_id: str
    name: str
    description: str
    context_id: str | None
    status: Status
    version: int
    created_us: int
    updated_us: int
    participants: Mapping[str, Participant] = field(default_factory=dict)  #: those who take part, in the order in which they joined
    tasks: Mapping[str, SharedTask] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    reason: str = ""
    ended_us: int | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CollabCreated:
    """A collaboration is to begin."""

    TYPE: ClassVar[str] = "collab.created"
    name: str
    description: str = ""
    context_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollabUpdated:
    """Attributes changed; null: as before."""

    TYPE: ClassVar[str] = "collab.updated"
    name: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantJoined:
    """Somebody takes part."""

    TYPE: ClassVar[str] = "collab.participant-joined"
    participant_id: str
    role: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantLeft:
    """Somebody takes part no more."""

    TYPE: ClassVar[str] = "collab.participant-left"
    participant_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAssigned:
    """A participant has a task; it is as told here."""

    TYPE: ClassVar[str] = "collab.task-assigned"
    task: SharedTask


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMoved:
    """A task made progress."""

    TYPE: ClassVar[str] = "collab.task-updated"
    task: SharedTask
    before: TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionProposed:
    """Participants are to vote."""

    TYPE: ClassVar[str] = "collab.decision-proposed"
    decision: Decision
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCast:
    """A participant voted."""

    TYPE: ClassVar[str] = "collab.vote-cast"
    decision_id: str
    by: str
    choice: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionMade:
    """A vote has ended: with an outcome, or undecided (null)."""

    TYPE: ClassVar[str] = "collab.decision-made"
    decision_id: str
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollabTransitioned:
    """The collaboration's state changed."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "active": "collab.started",
        "completed": "collab.completed",
        "failed": "collab.failed",
        "cancelled": "collab.cancelled",
    }
    before: Status
    after: Status
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


CollabEvent: TypeAlias = (
    CollabCreated | CollabUpdated | ParticipantJoined | ParticipantLeft | TaskAssigned | TaskMoved | DecisionProposed | VoteCast
    | DecisionMade | CollabTransitioned
)  # fmt: skip
EVENTS = (
    CollabCreated, CollabUpdated, ParticipantJoined, ParticipantLeft, TaskAssigned, TaskMoved, DecisionProposed, VoteCast,
    DecisionMade, CollabTransitioned,
)  # fmt: skip
