"""Child workflows: an execution of its own for each attempt of a `workflow` step. What is said on the way: `family`."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator import family
from services.orchestrator.definition import ChildWorkflow
from services.orchestrator.draft import Draft
from services.orchestrator.faults import StepError
from services.orchestrator.schema import schema_faults
from streams import limits
from streams.errors import InvalidDocument
from streams.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What an attempt of a `workflow` step starts."""

    input: Json
    definition_hash: str
    workflow_id: str
    workflow_version: str

    def to_json(self) -> dict[str, Json]:
        """What `step.started` tells of it, under `child`."""
        return {"definition_hash": self.definition_hash, "workflow_id": self.workflow_id, "workflow_version": self.workflow_version}


def call(draft: Draft, action: ChildWorkflow, input: Json) -> Call:
    """The child that a step wants now. Raises `StepError`: `workflow.depth`, `workflow.unknown`, `definition.invalid`, `input.invalid`."""
    if draft.state.depth >= limits.CHILD_DEPTH_MAX:
        raise StepError("workflow.depth", f"Workflows are nested more than {limits.CHILD_DEPTH_MAX} deep.")
    definition = action.definition
    if definition is None:
        try:
            definition = draft.find_workflow(action.workflow_id, action.version)
        except InvalidDocument as error:
            raise StepError(error.code, error.message) from error
    if definition is None:
        version = "" if action.version is None else f" with the version {action.version!r}"
        raise StepError("workflow.unknown", f"There is no workflow {action.workflow_id!r}{version}.")
    if definition.input_schema is not None:
        for fault in schema_faults(definition.input_schema, input, code="input"):
            raise StepError("input.invalid", f"The input does not fit the workflow's input-schema: {fault.pointer or '/'}: {fault.message}")
    return Call(input=input, definition_hash=definition.hash, workflow_id=definition.id, workflow_version=definition.version)


def give_up(draft: Draft, instance: str) -> None:
    """The step's attempt does not wait for its child any more: it is cancelled."""
    child = family.awaited(draft.state.step(instance))
    if child is not None:
        draft.effects.append(family.cancel_command(draft.state, instance, child))
