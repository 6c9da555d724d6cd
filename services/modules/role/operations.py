"""Parameters and results of the role operations."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self, TypeAlias

from pydantic import Field, model_validator

from services.modules.operation import Identifier, Instant, Listing, Misfit, Name, Page, Parameters, Result, Text, Versioned, time_text
from services.modules.role.state import Assignment, Role, Status

Permission: TypeAlias = Annotated[str, Field(pattern=r"^!?[^\s!]+$", max_length=200)]


class CreateRole(Parameters):
    """Parameters of create-role."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    name: Name = Field(description="Unique in its scope.")
    context_id: Identifier | None = Field(None, description="Context that it belongs to; without: a pattern for all contexts of the home.")
    description: Text = ""
    permissions: list[Permission] = Field(
        default_factory=list, max_length=1000, description="What it permits: plan.approve, plan.*, *; with ! before it: what it forbids."
    )
    status: Status = Field("active", description="State to begin in.")


class WantedRole(Parameters):
    """A role to assign, and to whom."""

    role: Name = Field(description="Name of the role.")
    agent_id: Identifier | None = Field(None, description="Who gets it; without: a seat that somebody takes later.")
    permissions: list[Permission] | None = Field(None, max_length=1000, description="Permissions, if the role has to be created.")
    expires_at: Instant | None = Field(None, description="RFC 3339: from then on the assignment counts no more.")


class AssignRoles(Parameters):
    """Parameters of assign-roles."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    context_id: Identifier
    roles: list[Name | WantedRole] = Field(
        min_length=1,
        max_length=100,
        description="Names of roles, or objects that also say who gets them. A role that is not there is created.",
    )


class RevokeRole(Parameters):
    """Parameters of revoke-role: one assignment, or the whole role."""

    TARGETS: ClassVar[tuple[str, ...]] = ("assignment_id", "role_id")

    assignment_id: Identifier | None = Field(None, description="The assignment to end.")
    role_id: Identifier | None = Field(None, description="The role all of whose assignments end.")
    status: Status | None = Field(None, description="State that the role goes to.")
    reason: Text = ""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.assignment_id is None) == (self.role_id is None):
            raise ValueError("give either assignmentId or roleId")
        return self


class CheckPermission(Parameters):
    """Parameters of check-permission: what is asked, and for whom."""

    TARGETS: ClassVar[tuple[str, ...]] = ("assignment_id", "role_id", "context_id")

    permission: Annotated[str, Field(pattern=r"^[^\s!*]+$", max_length=200)] = Field(description="e.g. plan.approve")
    assignment_id: Identifier | None = Field(None, description="For whoever has this assignment.")
    role_id: Identifier | None = Field(None, description="For this role.")
    context_id: Identifier | None = Field(None, description="With agentId: for all roles that the agent has in this context.")
    agent_id: Identifier | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        given = [self.assignment_id is not None, self.role_id is not None, self.context_id is not None and self.agent_id is not None]
        if sum(given) != 1 or (self.context_id is None) != (self.agent_id is None):
            raise ValueError("give one of assignmentId, roleId, or contextId with agentId")
        return self


class OfRole(Parameters):
    """Names a role."""

    TARGETS: ClassVar[tuple[str, ...]] = ("role_id",)

    role_id: Identifier = Field(description="Id of the role, from create-role or assign-roles.")


class GetRole(OfRole):
    """Parameters of get-role."""


class UpdateRole(OfRole, Versioned):
    """Parameters of update-role: what is not given stays."""

    description: Text | None = None
    permissions: list[Permission] | None = Field(None, max_length=1000)
    status: Status | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.description is None and self.permissions is None and self.status is None:
            raise ValueError("give at least one of description, permissions, status")
        return self


class DeleteRole(OfRole):
    """Parameters of delete-role; its assignments end."""

    reason: Text = ""


class SeparateDuties(Parameters):
    """Parameters of separate-duties: a rule that nobody may have two of these roles."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    context_id: Identifier
    name: Name = Field(description="Of the rule: given again, it replaces the former.")
    roles: list[Name] = Field(max_length=100, description="Names of at least two roles; none takes the rule back.")

    @model_validator(mode="after")
    def _several(self) -> Self:
        if len(set(self.roles)) == 1 or len(set(self.roles)) != len(self.roles):
            raise Misfit("give at least two different roles, or none to take the rule back", "roles")
        return self


class ListRoles(Page):
    """Parameters of list-roles."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    context_id: Identifier | None = Field(None, description="Only the roles of this context.")
    agent_id: Identifier | None = Field(None, description="Only roles that this agent has.")
    text: Text | None = Field(None, description="Part of the name or description, without regard to case.")
    status: Status | None = None


class AssignmentResult(Result):
    """A role given to somebody."""

    assignment_id: str
    role: str
    role_id: str
    context_id: str | None
    agent_id: str | None
    assigned_at: str
    expires_at: str | None

    @classmethod
    def of(cls, role: Role, assignment: Assignment, context_id: str | None) -> Self:
        """The assignment as callers see it."""
        return cls(
            assignment_id=assignment.assignment_id,
            role=role.name,
            role_id=role.role_id,
            context_id=context_id,
            agent_id=assignment.agent_id,
            assigned_at=time_text(assignment.assigned_us),
            expires_at=None if assignment.expires_us is None else time_text(assignment.expires_us),
        )


class RoleResult(Result):
    """A role with its assignments."""

    role_id: str
    name: str
    description: str
    context_id: str | None
    permissions: list[str]
    status: Status
    assignments: list[AssignmentResult]
    version: int
    created_at: str

    @classmethod
    def of(cls, role: Role, context_id: str | None) -> Self:
        """The role as callers see it."""
        return cls(
            role_id=role.role_id,
            name=role.name,
            description=role.description,
            context_id=context_id,
            permissions=list(role.permissions),
            status=role.status,
            assignments=[AssignmentResult.of(role, given, context_id) for given in role.assignments.values()],
            version=role.version,
            created_at=time_text(role.created_us),
        )


class Assignments(Result):
    """What assign-roles gave, in the order that was asked."""

    context_id: str
    assignments: list[AssignmentResult]


class Revoked(Result):
    """What revoke-role ended, and the role as it is now."""

    revoked: list[str] = Field(description="Ids of the assignments that ended.")
    role: RoleResult


class GrantResult(Result):
    """A pattern of a role that decided."""

    role_id: str
    role: str
    pattern: str


class PermissionResult(Result):
    """Whether something is permitted, and why."""

    permission: str
    allowed: bool
    reason: str
    grants: list[GrantResult] = Field(description="The patterns that decided.")


class RoleList(Listing):
    """Roles in order of their ids."""

    ENTRIES: ClassVar[str] = "roles"
    KEY: ClassVar[str] = "roleId"

    roles: list[RoleResult]


class RoleGone(Result):
    """A role that was deleted."""

    role_id: str
    deleted: bool


class Separations(Result):
    """The rules of a scope about roles that exclude each other."""

    context_id: str
    rules: dict[str, list[str]]
