"""Parameters and results of the context operations."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from services.modules.context.state import Context, Status
from services.modules.operation import Identifier, Listing, Name, Page, Parameters, Result, Text, Versioned, time_text
from streams.records import Json


class CreateContext(Parameters):
    """Parameters of create-context."""

    name: Name = Field(description="What people call it.")
    type: Name = Field("default", description="What sort of context it is, e.g. multi-agent.")
    description: Text = ""
    metadata: dict[str, Json] = Field(default_factory=dict, description="Anything that belongs to it.")


class OfContext(Parameters):
    """Names a context."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    context_id: Identifier = Field(description="Id of the context, from create-context.")


class GetContext(OfContext):
    """Parameters of get-context."""


class UpdateContext(OfContext, Versioned):
    """Parameters of update-context: what is not given stays."""

    name: Name | None = None
    type: Name | None = None
    description: Text | None = None
    metadata: dict[str, Json] | None = Field(None, description="Merged into the present metadata; a null removes its key.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.name is None and self.type is None and self.description is None and self.metadata is None:
            raise ValueError("give at least one of name, type, description, metadata")
        return self


class ListContexts(Page):
    """Parameters of list-contexts: conditions that all must hold."""

    status: Status | None = None
    type: Name | None = None
    name: Name | None = None


class SearchContexts(Page):
    """Parameters of search-contexts: conditions that all must hold."""

    text: Text | None = Field(None, description="Part of the name, type or description, without regard to case.")
    metadata: dict[str, Json] = Field(default_factory=dict, description="Keys that the metadata has, with these values.")
    status: Status | None = None


class TransitionLifecycle(OfContext, Versioned):
    """Parameters of transition-lifecycle."""

    status: Status = Field(description="The state to go to.")
    reason: Text = ""


class DeleteContext(OfContext):
    """Parameters of delete-context."""

    reason: Text = ""


class ContextResult(Result):
    """A context."""

    context_id: str
    name: str
    type: str
    description: str
    metadata: dict[str, Json]
    status: Status
    version: int = Field(description="Number of changes, the creation included.")
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, context: Context) -> Self:
        """The context as callers see it."""
        return cls(
            context_id=context.context_id,
            name=context.name,
            type=context.type,
            description=context.description,
            metadata=dict(context.metadata),
            status=context.status,
            version=context.version,
            created_at=time_text(context.created_us),
            updated_at=time_text(context.updated_us),
        )


class ContextTransition(ContextResult):
    """A context, and the state that it came from."""

    previous_status: Status


class ContextList(Listing):
    """Contexts in order of their ids."""

    ENTRIES: ClassVar[str] = "contexts"
    KEY: ClassVar[str] = "contextId"

    contexts: list[ContextResult]


class ContextGone(Result):
    """A context that was deleted."""

    context_id: str
    deleted: bool
