"""Parameters and results of the collab operations."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.modules.collab.state import PARTICIPANTS_MAX, Collaboration, Decision, Rule, SharedTask, Status, TaskStatus, VoteStatus
from services.modules.operation import Identifier, Listing, Name, Page, Parameters, Result, Text, Versioned, time_text
from streams.records import Json


class WantedParticipant(Parameters):
    """Who shall take part."""

    participant_id: Identifier
    role: Name | None = None


class Create(Parameters):
    """Parameters of create. The collaboration is active as soon as two take part."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    name: Name
    description: Text = ""
    context_id: Identifier | None = None
    participants: list[Identifier | WantedParticipant] = Field(default_factory=list, max_length=PARTICIPANTS_MAX)


class OfCollab(Parameters):
    """Names a collaboration."""

    TARGETS: ClassVar[tuple[str, ...]] = ("collab_id",)

    collab_id: Identifier = Field(description="Id of the collaboration, from create.")


class Join(OfCollab):
    """Parameters of join."""

    participant_id: Identifier
    role: Name | None = None


class Leave(OfCollab):
    """Parameters of leave."""

    participant_id: Identifier
    reason: Text = ""


class AssignTask(OfCollab):
    """Parameters of assign-task: a new task, or a task given to somebody else."""

    title: Text = Field("", description="What is to be done; of a task that is there, as before.")
    assignee: Identifier = Field(description="A participant.")
    task_id: Identifier | None = Field(None, description="A task that is there; without: a new one.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.task_id is None and not self.title:
            raise ValueError("give a title for a new task, or the taskId of one that is there")
        return self


class UpdateTask(OfCollab):
    """Parameters of update-task."""

    task_id: Identifier
    status: TaskStatus
    result: Json = None


class Propose(OfCollab):
    """Parameters of propose: something to vote on."""

    title: Text = Field(min_length=1)
    options: list[Name] = Field(default=["yes", "no"], min_length=2, max_length=100)
    rule: Rule = Field(
        "majority", description="`majority` of all participants, `unanimous`, or `plurality`: the most votes when all have voted."
    )
    by: Text = ""


class Decide(OfCollab):
    """Parameters of decide: a vote."""

    by: Identifier = Field(description="A participant.")
    choice: Name = Field(description="One of the options.")
    decision_id: Identifier | None = Field(None, description="From propose.")
    title: Text | None = Field(None, description="Instead of decisionId: the open vote with this title, or a new one, yes or no.")
    reason: Text = ""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.decision_id is None) == (self.title is None):
            raise ValueError("give decisionId or title")
        return self


class End(OfCollab):
    """Parameters of end."""

    status: Literal["completed", "failed", "cancelled"] = "completed"
    reason: Text = ""


class Update(OfCollab, Versioned):
    """Parameters of update: what is not given stays."""

    name: Name | None = None
    description: Text | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.name is None and self.description is None:
            raise ValueError("give name or description")
        return self


class Get(OfCollab):
    """Parameters of get."""


class List(Page):
    """Parameters of list: conditions that all must hold."""

    status: Status | None = None
    participant: Identifier | None = None
    context_id: Identifier | None = None
    text: Text | None = Field(None, description="Part of the name or description, without regard to case.")


class ParticipantResult(Result):
    """Who takes part."""

    participant_id: str
    role: str | None
    joined_at: str


class TaskResult(Result):
    """A shared task."""

    task_id: str
    title: str
    assignee: str
    status: TaskStatus
    result: Json

    @classmethod
    def of(cls, task: SharedTask) -> Self:
        """The task as callers see it."""
        return cls(task_id=task.task_id, title=task.title, assignee=task.assignee, status=task.status, result=task.result)


class DecisionResult(Result):
    """A vote."""

    decision_id: str
    title: str
    options: list[str]
    rule: Rule
    status: VoteStatus
    votes: dict[str, str] = Field(description="Participant → option.")
    outcome: str | None

    @classmethod
    def of(cls, decision: Decision) -> Self:
        """The vote as callers see it."""
        return cls(
            decision_id=decision.decision_id,
            title=decision.title,
            options=list(decision.options),
            rule=decision.rule,
            status=decision.status,
            votes=dict(decision.votes),
            outcome=decision.outcome,
        )


class CollabResult(Result):
    """A collaboration."""

    collab_id: str
    name: str
    description: str
    context_id: str | None
    status: Status
    participants: list[ParticipantResult]
    tasks: list[TaskResult]
    decisions: list[DecisionResult]
    progress: float = Field(description="Share of tasks that are completed, 0 to 1; 0 without tasks.")
    reason: str
    version: int
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, state: Collaboration) -> Self:
        """The collaboration as callers see it."""
        done = sum(task.status == "completed" for task in state.tasks.values())
        return cls(
            collab_id=state.collab_id,
            name=state.name,
            description=state.description,
            context_id=state.context_id,
            status=state.status,
            participants=[
                ParticipantResult(participant_id=each.participant_id, role=each.role, joined_at=time_text(each.joined_us))
                for each in state.participants.values()
            ],
            tasks=[TaskResult.of(task) for task in state.tasks.values()],
            decisions=[DecisionResult.of(decision) for decision in state.decisions.values()],
            progress=done / len(state.tasks) if state.tasks else 0.0,
            reason=state.reason,
            version=state.version,
            created_at=time_text(state.created_us),
            updated_at=time_text(state.updated_us),
        )


class CollabTask(CollabResult):
    """A collaboration, and the task that it is about."""

    task: TaskResult


class CollabDecision(CollabResult):
    """A collaboration, and the vote that it is about."""

    decision: DecisionResult


class CollabList(Listing):
    """Collaborations in order of their ids."""

    ENTRIES: ClassVar[str] = "collaborations"
    KEY: ClassVar[str] = "collabId"

    collaborations: list[CollabResult]
