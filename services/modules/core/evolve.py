"""The fold of the events of the module core. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.core.state import (
    CoreEvent,
    Inquiry,
    InquiryBegun,
    InquiryEnded,
    Workflow,
    WorkflowCreated,
    WorkflowDeleted,
    WorkflowExecuted,
)


def evolve(state: Workflow | Inquiry | None, event: CoreEvent, aggregate_id: str, time_us: int) -> Workflow | Inquiry | None:
    """The definition or question after `event`; None: there is none."""
    match event:
        case InquiryBegun():
            return Inquiry(
                inquiry_id=aggregate_id, caller=event.caller, operation=event.operation, data=event.data, key=event.key, asked_us=time_us,
                due_us=event.due_us, workflow_id=event.workflow_id, definition=event.definition,
            )  # fmt: skip
        case WorkflowCreated():
            version = state.version + 1 if isinstance(state, Workflow) else 1
            return Workflow(workflow_id=aggregate_id, name=event.name, definition=event.definition, version=version, created_us=time_us)
        case WorkflowExecuted():
            return replace(state, executions=state.executions + 1) if isinstance(state, Workflow) else state
        case InquiryEnded() | WorkflowDeleted():
            return None
        case _:
            assert_never(event)
