"""Parameters and results of the core operations."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from services.modules.core.state import Workflow
from services.modules.operation import Identifier, Listing, Name, Page, Parameters, Result, Text, time_text
from streams.records import Json


class CreateWorkflow(Parameters):
    """Parameters of create-workflow."""

    definition: dict[str, Json] = Field(description="A workflow definition, bare or wrapped in `workflow`; it is checked whole.")


class OfWorkflow(Parameters):
    """Names a definition that the module keeps."""

    TARGETS: ClassVar[tuple[str, ...]] = ("workflow_id",)

    workflow_id: Identifier = Field(description="From create-workflow.")


class GetWorkflow(OfWorkflow):
    """Parameters of get-workflow."""


class DeleteWorkflow(OfWorkflow):
    """Parameters of delete-workflow."""

    reason: Text = ""


class ListWorkflows(Page):
    """Parameters of list-workflows."""

    text: Text | None = Field(None, description="Part of the name, without regard to case.")


class ExecuteWorkflow(Parameters):
    """Parameters of execute-workflow: a definition that create-workflow keeps, one that is published, or one given here."""

    TARGETS: ClassVar[tuple[str, ...]] = ("workflow_id",)

    workflow_id: Identifier | None = Field(None, description="From create-workflow.")
    published: Name | None = Field(None, description="Id of a published definition (`mplp workflow apply`).")
    definition: dict[str, Json] | None = None
    input: Json = Field(default_factory=dict)
    execution_id: Name | None = Field(None, description="Of the execution; the same again gives the same execution. Without: a new one.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum(each is not None for each in (self.workflow_id, self.published, self.definition)) != 1:
            raise ValueError("give one of workflowId, published, definition")
        return self


class OfExecution(Parameters):
    """Names an execution."""

    execution_id: Name


class GetWorkflowStatus(OfExecution):
    """Parameters of get-workflow-status."""


class Command(OfExecution):
    """Parameters of pause, resume and cancel."""

    by: Text = ""
    reason: Text = ""


class WorkflowResult(Result):
    """A definition that the module keeps."""

    workflow_id: str
    name: str
    definition: dict[str, Json]
    version: int
    executions: int = Field(description="How many were begun.")
    created_at: str

    @classmethod
    def of(cls, state: Workflow) -> Self:
        """The definition as callers see it."""
        return cls(
            workflow_id=state.workflow_id,
            name=state.name,
            definition=dict(state.definition),
            version=state.version,
            executions=state.executions,
            created_at=time_text(state.created_us),
        )


class WorkflowList(Listing):
    """Definitions in order of their ids."""

    ENTRIES: ClassVar[str] = "workflows"
    KEY: ClassVar[str] = "workflowId"

    workflows: list[WorkflowResult]


class WorkflowGone(Result):
    """A definition that was deleted."""

    workflow_id: str
    deleted: bool


class ExecutionResult(Result):
    """An execution after a command."""

    execution_id: str
    status: str


class StepResult(Result):
    """A step of an execution."""

    step_id: str
    status: str
    attempts: int


class StatusResult(ExecutionResult):
    """How an execution is."""

    workflow: str = Field(description="Id of its definition.")
    progress: float = Field(description="Share of steps that have ended, 0 to 1.")
    steps: list[StepResult]
    output: Json
    error: Json
    started_at: str
    ended_at: str | None
