"""Parameters and results of the confirm operations."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from services.modules.confirm.state import APPROVERS_MAX, ESCALATIONS_MAX, Confirmation, Status, Verdict
from services.modules.operation import (
    Duration,
    Identifier,
    Instant,
    Listing,
    Misfit,
    Name,
    Page,
    Parameters,
    Result,
    Text,
    Versioned,
    time_text,
)
from streams.records import Json

Reason = Annotated[str, Field(min_length=1, max_length=1024)]


class WantedEscalation(Parameters):
    """Who is asked besides, and when."""

    after: Duration = Field(description="After the creation: milliseconds, ISO 8601, or a number with ms, s, m, h or d.")
    to: list[Identifier] = Field(min_length=1, max_length=APPROVERS_MAX, description="Who may decide then, too.")


class Create(Parameters):
    """Parameters of create: what is to be decided, by whom, until when."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    title: Text = Field(min_length=1, description="The question, for people.")
    description: Text = ""
    requested_by: Text = ""
    approvers: list[Identifier] = Field(default_factory=list, max_length=APPROVERS_MAX, description="Who may decide; empty: anybody.")
    quorum: int = Field(1, ge=1, le=APPROVERS_MAX, description="How many have to approve; it is rejected once that is out of reach.")
    context_id: Identifier | None = None
    data: Json = Field(None, description="What is to be confirmed: any JSON value.")
    escalation: list[WantedEscalation] = Field(default_factory=list, max_length=ESCALATIONS_MAX)
    expires_in: Duration | None = Field(None, description="It expires so long after its creation if nobody has decided.")
    expires_at: Instant | None = Field(None, description="RFC 3339: it expires then.")
    wait: bool = Field(False, description="Answer only when it is decided (or has expired): the answer is the decision.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.approvers and self.quorum > len(set(self.approvers)):
            raise Misfit("quorum is more than there are approvers", "quorum")
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("give expiresIn or expiresAt, not both")
        return self


class OfConfirmation(Parameters):
    """Names a confirmation."""

    TARGETS: ClassVar[tuple[str, ...]] = ("confirm_id",)

    confirm_id: Identifier = Field(description="Id of the confirmation, from create or list.")


class Approve(OfConfirmation):
    """Parameters of approve."""

    by: Name = Field(description="Who approves.")
    comment: Text = ""
    choice: Name | None = Field(None, description="Of a workflow's question: which of its choices; without: the first that goes on.")
    value: Json = Field(None, description="With the choice `use-value`: the step's result.")


class Reject(OfConfirmation):
    """Parameters of reject."""

    by: Name = Field(description="Who rejects.")
    reason: Reason = Field(description="A rejection says why.")


class Delegate(OfConfirmation):
    """Parameters of delegate."""

    by: Name = Field(description="One of the approvers, who then decides no more.")
    to: Name = Field(description="Who decides instead.")
    reason: Text = ""


class Escalate(OfConfirmation):
    """Parameters of escalate."""

    to: list[Identifier] = Field(min_length=1, max_length=APPROVERS_MAX, description="Who may decide, too.")
    by: Text = ""
    reason: Text = ""


class Cancel(OfConfirmation):
    """Parameters of cancel."""

    by: Text = ""
    reason: Reason = Field(description="Why nobody needs to decide any more.")


class Resubmit(OfConfirmation):
    """Parameters of resubmit: a rejected confirmation is put again, maybe changed."""

    by: Text = ""
    reason: Text = ""
    data: Json = None


class Update(OfConfirmation, Versioned):
    """Parameters of update: what is not given stays."""

    title: Text | None = None
    description: Text | None = None
    approvers: list[Identifier] | None = Field(None, max_length=APPROVERS_MAX)
    quorum: int | None = Field(None, ge=1, le=APPROVERS_MAX)
    data: Json = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(each is None for each in (self.title, self.description, self.approvers, self.quorum, self.data)):
            raise ValueError("give at least one of title, description, approvers, quorum, data")
        return self


class Get(OfConfirmation):
    """Parameters of get."""


class List(Page):
    """Parameters of list: conditions that all must hold."""

    status: Status | None = None
    approver: Identifier | None = Field(None, description="Only what this one may decide and has not decided.")
    requested_by: Identifier | None = None
    context_id: Identifier | None = None
    execution_id: Identifier | None = Field(None, description="Only questions of this execution.")
    text: Text | None = Field(None, description="Part of the title or description, without regard to case.")


class VoteResult(Result):
    """What somebody decided."""

    by: str
    verdict: Verdict
    comment: str
    choice: str | None
    value: Json
    round: int
    at: str


class QuestionResult(Result):
    """The step of a workflow that asked."""

    execution_id: str
    step_id: str
    choices: list[str]
    open: bool = Field(description="Whether the workflow still waits for the answer.")


class ConfirmResult(Result):
    """A confirmation."""

    confirm_id: str
    title: str
    description: str
    status: Status
    requested_by: str
    approvers: list[str]
    quorum: int
    approvals: int = Field(description="Of this round.")
    rejections: int = Field(description="Of this round.")
    decisions: list[VoteResult] = Field(description="Of all rounds, in order.")
    delegations: dict[str, str]
    escalated: int = Field(description="How often it was escalated.")
    context_id: str | None
    data: Json
    reason: str
    round: int
    question: QuestionResult | None
    expires_at: str | None
    next_escalation_at: str | None
    version: int
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, state: Confirmation) -> Self:
        """The confirmation as callers see it."""
        asked = state.question
        return cls(
            confirm_id=state.confirm_id,
            title=state.title,
            description=state.description,
            status=state.status,
            requested_by=state.requested_by,
            approvers=list(state.approvers),
            quorum=state.quorum,
            approvals=state.votes_now("approve"),
            rejections=state.votes_now("reject"),
            decisions=[
                VoteResult(
                    by=vote.by,
                    verdict=vote.verdict,
                    comment=vote.comment,
                    choice=vote.choice,
                    value=vote.value,
                    round=vote.round,
                    at=time_text(vote.at_us),
                )
                for vote in state.votes
            ],
            delegations=dict(state.delegations),
            escalated=state.escalated,
            context_id=state.context_id,
            data=state.data,
            reason=state.reason,
            round=state.round,
            question=None
            if asked is None
            else QuestionResult(execution_id=asked.execution_id, step_id=asked.step_id, choices=list(asked.choices), open=not asked.closed),
            expires_at=None if state.expires_us is None else time_text(state.expires_us),
            next_escalation_at=time_text(state.escalations[0].at_us) if state.escalations else None,
            version=state.version,
            created_at=time_text(state.created_us),
            updated_at=time_text(state.updated_us),
        )


class ConfirmList(Listing):
    """Confirmations in order of their ids."""

    ENTRIES: ClassVar[str] = "confirmations"
    KEY: ClassVar[str] = "confirmId"

    confirmations: list[ConfirmResult]
