"""State and events of contexts, and the table of their life cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from streams.records import Json

Status: TypeAlias = Literal["active", "suspended", "completed", "terminated"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "active": ("suspended", "completed", "terminated"),
    "suspended": ("active", "completed", "terminated"),
    "completed": ("terminated",),
    "terminated": (),
}
LIFECYCLE = Lifecycle(noun="context", initial=("active",), table=TRANSITIONS)

#: In these states a context takes no more changes.
ENDED: frozenset[Status] = frozenset({"completed", "terminated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context as it is now."""

    context_id: str
    name: str
    type: str
    description: str
    metadata: Mapping[str, Json]
    status: Status
    version: int  #: number of changes, the creation included
    created_us: int
    updated_us: int
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextCreated:
    """A context began, active."""

    TYPE: ClassVar[str] = "context.created"
    name: str
    type: str
    description: str = ""
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextUpdated:
    """Attributes changed; null: as before. `metadata` is what they are now, whole."""

    TYPE: ClassVar[str] = "context.updated"
    name: str | None = None
    type: str | None = None
    description: str | None = None
    metadata: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextTransitioned:
    """The life cycle went on."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "active": "context.activated",
        "suspended": "context.suspended",
        "completed": "context.completed",
        "terminated": "context.terminated",
    }
    before: Status
    after: Status
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextDeleted:
    """The context is gone; its history stays."""

    TYPE: ClassVar[str] = "context.deleted"
    reason: str = ""


ContextEvent: TypeAlias = ContextCreated | ContextUpdated | ContextTransitioned | ContextDeleted
EVENTS = (ContextCreated, ContextUpdated, ContextTransitioned, ContextDeleted)
