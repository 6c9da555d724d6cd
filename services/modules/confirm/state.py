"""State and events of confirmations, and the table of their life cycle. Times are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from services.modules.operation import Caller
from streams.records import Json

Status: TypeAlias = Literal["pending", "in_review", "approved", "rejected", "cancelled", "expired"]
Verdict: TypeAlias = Literal["approve", "reject"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "pending": ("in_review", "approved", "rejected", "cancelled", "expired"),
    "in_review": ("approved", "rejected", "cancelled", "expired"),
    "rejected": ("pending",),
    "approved": (),
    "cancelled": (),
    "expired": (),
}
LIFECYCLE = Lifecycle(noun="confirmation", initial=("pending",), table=TRANSITIONS)

#: In these states somebody is still to decide.
OPEN: frozenset[Status] = frozenset({"pending", "in_review"})

APPROVERS_MAX = 1000
ESCALATIONS_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What somebody decided. `choice` and `value` are for questions of workflows."""

    by: str
    verdict: Verdict
    comment: str
    at_us: int
    round: int
    choice: str | None = None
    value: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """Who is asked besides when nobody has decided until `at_us`."""

    at_us: int
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The step of a workflow that waits for the decision."""

    execution_id: str
    step_id: str
    attempt: int
    choices: tuple[str, ...]
    closed: bool = False  #: the workflow does not wait any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A confirmation as it is."""

    confirm_id: str
    title: str
    description: str
    requested_by: str
    approvers: tuple[str, ...]  #: who may decide; nobody named: anybody may
    quorum: int  #: how many have to approve
    status: Status
    version: int
    created_us: int
    updated_us: int
    context_id: str | None = None
    data: Json = None
    round: int = 1  #: grows with every resubmission
    votes: tuple[Vote, ...] = ()  #: of all rounds
    delegations: Mapping[str, str] = field(default_factory=dict)  #: who gave the decision to whom
    escalations: tuple[Escalation, ...] = ()  #: still to come, earliest first
    escalated: int = 0  #: how often it was escalated
    expires_us: int | None = None
    question: Question | None = None
    caller: Caller | None = None  #: waits for the decision
    correlation_id: str = ""
    ended_us: int | None = None
    reason: str = ""
    settled: bool = False

    def votes_now(self, verdict: Verdict) -> int:
        """How many have decided so in this round."""
        return sum(vote.verdict == verdict and vote.round == self.round for vote in self.votes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmCreated:
    """A decision was asked for."""

    TYPE: ClassVar[str] = "confirm.created"
    title: str
    description: str = ""
    requested_by: str = ""
    approvers: tuple[str, ...] = ()
    quorum: int = 1
    context_id: str | None = None
    data: Json = None
    escalations: tuple[Escalation, ...] = ()
    expires_us: int | None = None
    question: Question | None = None
    caller: Caller | None = None
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmUpdated:
    """Attributes changed; null: as before."""

    TYPE: ClassVar[str] = "confirm.updated"
    title: str | None = None
    description: str | None = None
    approvers: tuple[str, ...] | None = None
    quorum: int | None = None
    data: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmVoted:
    """Somebody decided."""

    TYPE: ClassVar[str] = "confirm.voted"
    by: str
    verdict: Verdict
    comment: str = ""
    choice: str | None = None
    value: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmDelegated:
    """Somebody gave the decision to somebody else."""

    TYPE: ClassVar[str] = "confirm.delegated"
    by: str
    to: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmEscalated:
    """More people are asked. `timed`: since nobody has decided in time."""

    TYPE: ClassVar[str] = "confirm.escalated"
    to: tuple[str, ...]
    by: str = ""
    reason: str = ""
    timed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTransitioned:
    """The confirmation's state changed."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "pending": "confirm.resubmitted",
        "in_review": "confirm.reviewed",
        "approved": "confirm.approved",
        "rejected": "confirm.rejected",
        "cancelled": "confirm.cancelled",
        "expired": "confirm.expired",
    }
    before: Status
    after: Status
    by: str = ""
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionClosed:
    """The workflow that asked does not wait any more."""

    TYPE: ClassVar[str] = "confirm.question-closed"
    reason: str = ""


ConfirmEvent: TypeAlias = (
    ConfirmCreated | ConfirmUpdated | ConfirmVoted | ConfirmDelegated | ConfirmEscalated | ConfirmTransitioned | QuestionClosed
)  # fmt: skip
EVENTS = (ConfirmCreated, ConfirmUpdated, ConfirmVoted, ConfirmDelegated, ConfirmEscalated, ConfirmTransitioned, QuestionClosed)
