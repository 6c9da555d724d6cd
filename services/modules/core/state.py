"""State and events of the module core: definitions that it keeps, and questions to the orchestrator that wait for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from services.modules.operation import Caller
from streams.records import Json

#: How long the orchestrator may take to answer, microseconds.
WAIT_US = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A definition that executions can be made of."""

    workflow_id: str
    name: str
    definition: Mapping[str, Json]
    version: int
    created_us: int
    executions: int = 0  #: how many were begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A question to the orchestrator. `workflow_id`: what it is about; `definition`: what is kept if the answer is good."""

    inquiry_id: str
    caller: Caller
    operation: str
    data: Json
    key: str
    asked_us: int
    due_us: int
    workflow_id: str | None = None
    definition: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryBegun:
    """The orchestrator was asked."""

    TYPE: ClassVar[str] = "core.asked"
    caller: Caller
    operation: str
    data: Json
    key: str
    due_us: int
    workflow_id: str | None = None
    definition: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryEnded:
    """The orchestrator has answered, or did not in time."""

    TYPE: ClassVar[str] = "core.told"
    answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCreated:
    """A definition is kept."""

    TYPE: ClassVar[str] = "core.workflow-created"
    name: str
    definition: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowExecuted:
    """An execution of a definition was begun."""

    TYPE: ClassVar[str] = "core.workflow-executed"
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDeleted:
    """A definition is kept no more; what runs goes on, and its history stays."""

    TYPE: ClassVar[str] = "core.workflow-deleted"
    reason: str = ""


CoreEvent: TypeAlias = InquiryBegun | InquiryEnded | WorkflowCreated | WorkflowExecuted | WorkflowDeleted
EVENTS = (InquiryBegun, InquiryEnded, WorkflowCreated, WorkflowExecuted, WorkflowDeleted)
