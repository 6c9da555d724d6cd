"""State and events of roles, and the table of their life cycle.

The roles of one scope are one aggregate, `<home>/roles-…`, so that assigning several is one decision and a permission is
checked without a search. A role's id is `<aggregate id>/role-…`, an assignment's `<aggregate id>/assignment-…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from services.modules.operation import short_id

Status: TypeAlias = Literal["active", "inactive", "suspended", "deprecated"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "active": ("inactive", "suspended", "deprecated"),
    "inactive": ("active", "suspended", "deprecated"),
    "suspended": ("active", "inactive", "deprecated"),
    "deprecated": (),
}
LIFECYCLE = Lifecycle(noun="role", initial=("active", "inactive", "suspended", "deprecated"), table=TRANSITIONS)

#: Roles of one scope, and assignments of one role.
ROLES_MAX = 1000
ASSIGNMENTS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A role given to somebody; without `agent_id` it is a seat that nobody took yet."""

    assignment_id: str
    agent_id: str | None
    assigned_us: int
    expires_us: int | None = None  #: from then on it counts no more

    def counts(self, now_us: int) -> bool:
        """Whether it is in force."""
        return self.expires_us is None or now_us < self.expires_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role: a name, what it may do, and who has it."""

    role_id: str
    name: str
    description: str
    permissions: tuple[str, ...]
    status: Status
    created_us: int
    assignments: Mapping[str, Assignment] = field(default_factory=dict)  #: by assignment id
    version: int = 1

    def held_by(self, agent_id: str, now_us: int) -> bool:
        """Whether an agent has the role."""
        return any(each.agent_id == agent_id and each.counts(now_us) for each in self.assignments.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleBook:
    """The roles of a scope. `context_id` is None for the roles of a home, which serve as patterns for its contexts."""

    book_id: str
    context_id: str | None
    roles: Mapping[str, Role] = field(default_factory=dict)  #: by role id
    separated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: by name: roles of which nobody may have two

    def role_of(self, assignment_id: str) -> Role | None:
        """The role that an assignment is of."""
        return next((role for role in self.roles.values() if assignment_id in role.assignments), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleCreated:
    """A role exists from now on."""

    TYPE: ClassVar[str] = "role.created"
    role_id: str
    context_id: str | None
    name: str
    description: str = ""
    permissions: tuple[str, ...] = ()
    status: Status = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAssigned:
    """A role was given to somebody."""

    TYPE: ClassVar[str] = "role.assigned"
    role_id: str
    context_id: str | None
    role: str
    assignment_id: str
    agent_id: str | None = None
    expires_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRevoked:
    """An assignment ended."""

    TYPE: ClassVar[str] = "role.revoked"
    role_id: str
    assignment_id: str
    agent_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTransitioned:
    """A role's state changed."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "active": "role.activated",
        "inactive": "role.deactivated",
        "suspended": "role.suspended",
        "deprecated": "role.deprecated",
    }
    role_id: str
    before: Status
    after: Status
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleUpdated:
    """Attributes changed; null: as before."""

    TYPE: ClassVar[str] = "role.updated"
    role_id: str
    description: str | None = None
    permissions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDeleted:
    """The role is gone, with its assignments; its history stays."""

    TYPE: ClassVar[str] = "role.deleted"
    role_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DutiesSeparated:
    """From now on nobody may have two of these roles; without roles the rule is taken back. `role_id` is the scope's."""

    TYPE: ClassVar[str] = "role.duties-separated"
    role_id: str
    context_id: str | None
    name: str
    roles: tuple[str, ...]


RoleEvent: TypeAlias = RoleCreated | RoleUpdated | RoleDeleted | RoleAssigned | RoleRevoked | RoleTransitioned | DutiesSeparated
EVENTS = (RoleCreated, RoleUpdated, RoleDeleted, RoleAssigned, RoleRevoked, RoleTransitioned, DutiesSeparated)


def book_id(home: str, context_id: str | None) -> str:
    """The aggregate that holds the roles of a context, or of a home."""
    return f"{home}/roles-{short_id('roles', home, context_id or '')}"


def role_id(book: str, name: str) -> str:
    """The id of the role of this name in a scope: there is at most one."""
    return f"{book}/role-{short_id('role', book, name)}"


def book_of(part_id: str) -> str:
    """The aggregate that a role's or assignment's id names: its first two parts."""
    return "/".join(part_id.split("/")[:2])
