"""What the role operations decide. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.context.decide import open_context
from services.modules.context.state import Context
from services.modules.lookup import find, has_text, missing_partitions, page, refuse_version, states_of
from services.modules.operation import Decided, Done, Operation, Outcome, Refusal, Request, conflict, invalid, not_found, time_us_of
from services.modules.role.evolve import evolve
from services.modules.role.operations import (
    AssignmentResult,
    Assignments,
    AssignRoles,
    CheckPermission,
    CreateRole,
    DeleteRole,
    GetRole,
    GrantResult,
    ListRoles,
    PermissionResult,
    Revoked,
    RevokeRole,
    RoleGone,
    RoleList,
    RoleResult,
    SeparateDuties,
    Separations,
    UpdateRole,
    WantedRole,
)
from services.modules.role.permissions import Verdict, evaluate
from services.modules.role.state import (
    ASSIGNMENTS_MAX,
    EVENTS,
    LIFECYCLE,
    ROLES_MAX,
    DutiesSeparated,
    Role,
    RoleAssigned,
    RoleBook,
    RoleCreated,
    RoleDeleted,
    RoleEvent,
    RoleRevoked,
    RoleTransitioned,
    RoleUpdated,
    book_id,
    book_of,
    role_id,
)
from streams.log.types import View


def create_role(view: View[Any], parameters: CreateRole, request: Request) -> Outcome:
    """Creates a role in a context, or as a pattern for the contexts of the home."""
    if parameters.context_id is not None:
        context = open_context(view, parameters.context_id)
        if isinstance(context, Refusal):
            return context
    book = _book(view, request.home, parameters.context_id)
    wanted = role_id(book.book_id, parameters.name)
    if wanted in book.roles:
        return conflict(f"There is a role {parameters.name!r} already.", "/name")
    if len(book.roles) >= ROLES_MAX:
        return conflict(f"A scope has at most {ROLES_MAX} roles.")
    event = RoleCreated(
        role_id=wanted,
        context_id=parameters.context_id,
        name=parameters.name,
        description=parameters.description,
        permissions=tuple(parameters.permissions),
        status=parameters.status,
    )
    after = _folded(book, [event], request)
    return Done(
        aggregate_id=book.book_id,
        result=RoleResult.of(after.roles[wanted], parameters.context_id),
        events=_decided(book.book_id, [event]),
    )


def assign_roles(view: View[Any], parameters: AssignRoles, request: Request) -> Outcome:
    """Assigns roles in an active context; a role that is not there is created, after the home's pattern if there is one."""
    context = open_context(view, parameters.context_id)
    if isinstance(context, Refusal):
        return context
    before = book = _book(view, request.home, parameters.context_id)
    events: list[RoleEvent] = []
    given: list[tuple[str, str]] = []
    for index, item in enumerate(parameters.roles):
        wanted = item if isinstance(item, WantedRole) else WantedRole(role=item)
        decided = _assign_one(view, book, wanted, request, index)
        if isinstance(decided, Refusal):
            return decided
        assigned = decided[-1]
        assert isinstance(assigned, RoleAssigned)
        given.append((assigned.role_id, assigned.assignment_id))
        events += decided
        book = _folded(book, decided, request)
    results = [
        AssignmentResult.of(book.roles[role], book.roles[role].assignments[assignment], book.context_id) for role, assignment in given
    ]
    return Done(
        aggregate_id=before.book_id,
        result=Assignments(context_id=parameters.context_id, assignments=results),
        events=_decided(before.book_id, events),
    )


def _assign_one(view: View[Any], book: RoleBook, wanted: WantedRole, request: Request, index: int) -> list[RoleEvent] | Refusal:
    pointer = f"/roles/{index}"
    identity = role_id(book.book_id, wanted.role)
    role = book.roles.get(identity)
    events: list[RoleEvent] = []
    if role is None:
        if len(book.roles) >= ROLES_MAX:
            return conflict(f"A scope has at most {ROLES_MAX} roles.", pointer)
        pattern = _pattern(view, request.home, wanted.role)
        permissions = tuple(wanted.permissions or ()) if pattern is None or wanted.permissions is not None else pattern.permissions
        events.append(
            RoleCreated(
                role_id=identity,
                context_id=book.context_id,
                name=wanted.role,
                description=pattern.description if pattern is not None else "",
                permissions=permissions,
            )
        )
    elif wanted.permissions is not None and tuple(wanted.permissions) != role.permissions:
        return conflict(f"The role {role.name!r} is there with other permissions.", f"{pointer}/permissions")
    elif role.status in ("suspended", "deprecated"):
        return conflict(f"The role {role.name!r} is {role.status}; it cannot be assigned.", pointer)
    elif len(role.assignments) >= ASSIGNMENTS_MAX:
        return conflict(f"A role has at most {ASSIGNMENTS_MAX} assignments.", pointer)
    elif role.status == "inactive":
        events.append(RoleTransitioned(role_id=identity, before=role.status, after="active", reason="assigned"))
    if role is not None and wanted.agent_id is not None and role.held_by(wanted.agent_id, request.time_us):
        return conflict(f"{wanted.agent_id!r} has the role {role.name!r} already.", pointer)
    excluded = _excluded(book, wanted.role, wanted.agent_id, request.time_us)
    if excluded is not None:
        return conflict(f"{wanted.agent_id!r} has the role {excluded!r}, which excludes {wanted.role!r}.", pointer)
    expires_us = None if wanted.expires_at is None else time_us_of(wanted.expires_at)
    if expires_us is not None and expires_us <= request.time_us:
        return invalid("It would have expired already.", f"{pointer}/expiresAt")
    assignment_id = f"{book.book_id}/assignment-{request.new_id('assignment', index).rpartition('-')[2]}"
    events.append(
        RoleAssigned(
            role_id=identity,
            context_id=book.context_id,
            role=wanted.role,
            assignment_id=assignment_id,
            agent_id=wanted.agent_id,
            expires_us=expires_us,
        )
    )
    return events


def _excluded(book: RoleBook, wanted: str, agent_id: str | None, now_us: int) -> str | None:
    """A role of the agent's that excludes the wanted one."""
    if agent_id is None:
        return None
    others = {name for roles in book.separated.values() if wanted in roles for name in roles if name != wanted}
    return next((role.name for role in book.roles.values() if role.name in others and role.held_by(agent_id, now_us)), None)


def revoke_role(view: View[Any], parameters: RevokeRole, request: Request) -> Outcome:
    """Ends an assignment, or all of a role's; with `status` the role changes its state too."""
    found = _role(view, parameters.role_id, parameters.assignment_id)
    if isinstance(found, Refusal):
        return found
    book, role = found
    ended = list(role.assignments) if parameters.assignment_id is None else [parameters.assignment_id]
    events: list[RoleEvent] = [
        RoleRevoked(role_id=role.role_id, assignment_id=each, agent_id=role.assignments[each].agent_id, reason=parameters.reason)
        for each in ended
    ]
    if parameters.status is not None:
        refused = LIFECYCLE.refusal(role.status, parameters.status, "/status")
        if refused is not None:
            return refused
        events.append(RoleTransitioned(role_id=role.role_id, before=role.status, after=parameters.status, reason=parameters.reason))
    if not events:
        return conflict(f"The role {role.name!r} has no assignments.", "/roleId")
    after = _folded(book, events, request)
    return Done(
        aggregate_id=book.book_id,
        result=Revoked(revoked=ended, role=RoleResult.of(after.roles[role.role_id], book.context_id)),
        events=_decided(book.book_id, events),
    )


def check_permission(view: View[Any], parameters: CheckPermission, request: Request) -> Outcome:
    """Whether a role, an assignment, or an agent in a context may do something, and why."""
    if parameters.context_id is not None and parameters.agent_id is not None:
        context = find(view, Context, parameters.context_id, pointer="/contextId")
        if isinstance(context, Refusal):
            return context
        book = _book(view, request.home, parameters.context_id)
        had = [role for role in book.roles.values() if any(one.agent_id == parameters.agent_id for one in role.assignments.values())]
        roles = [role for role in had if role.held_by(parameters.agent_id, request.time_us)]
    else:
        found = _role(view, parameters.role_id, parameters.assignment_id)
        if isinstance(found, Refusal):
            return found
        book, had = found[0], [found[1]]
        assignment = found[1].assignments.get(parameters.assignment_id or "")
        roles = had if assignment is None or assignment.counts(request.time_us) else []
    closed = _closed(view, book)
    verdict = closed or evaluate(parameters.permission, roles, [role for role in had if role not in roles])
    return Done(
        aggregate_id=book.book_id if view.state(book.book_id) is not None else None,
        result=PermissionResult(
            permission=parameters.permission,
            allowed=verdict.allowed,
            reason=verdict.reason,
            grants=[GrantResult(**asdict(grant)) for grant in verdict.grants],
        ),
    )


def _closed(view: View[Any], book: RoleBook) -> Verdict | None:
    """The verdict on everything in a context that is not active, whoever asks; None: it is, or the roles belong to no context."""
    if book.context_id is None:
        return None
    context = view.state(book.context_id)
    status = context.status if isinstance(context, Context) else "gone"
    return None if status == "active" else Verdict(allowed=False, reason=f"The context is {status}: its roles permit nothing.")


def list_roles(view: View[Any], parameters: ListRoles, request: Request) -> Outcome:
    """Roles in order of their ids: of a context, of an agent, by state or part of the name."""
    if parameters.context_id is None:
        books = list(states_of(view, RoleBook))
        missing = missing_partitions(view)
    else:
        context = open_context(view, parameters.context_id)
        if isinstance(context, Refusal) and context.code == "not-found":
            return context
        books, missing = [_book(view, request.home, parameters.context_id)], []
    wanted = [
        (role, book.context_id)
        for book in books
        for role in book.roles.values()
        if parameters.status in (None, role.status)
        and has_text(parameters.text, role.name, role.description)
        and (parameters.agent_id is None or role.held_by(parameters.agent_id, request.time_us))
    ]
    shown, total, following = page(wanted, lambda entry: entry[0].role_id, parameters)
    return Done(
        aggregate_id=None,
        result=RoleList(
            roles=[RoleResult.of(role, context_id) for role, context_id in shown],
            total=total,
            next=following,
            complete=not missing,
            missing_partitions=missing,
        ),
    )


def get_role(view: View[Any], parameters: GetRole, request: Request) -> Outcome:
    """A role as it is, with its assignments."""
    found = _role(view, parameters.role_id, None)
    if isinstance(found, Refusal):
        return found
    return Done(aggregate_id=found[0].book_id, result=RoleResult.of(found[1], found[0].context_id))


def update_role(view: View[Any], parameters: UpdateRole, request: Request) -> Outcome:
    """Changes what a role permits, its description, or its state."""
    found = _role(view, parameters.role_id, None)
    if isinstance(found, Refusal):
        return found
    book, role = found
    refused = refuse_version(parameters.expected_version, role.version, "role")
    if refused is None and parameters.status is not None:
        refused = LIFECYCLE.refusal(role.status, parameters.status, "/status")
    if refused is None and role.status == "deprecated":
        refused = conflict("A role that is deprecated takes no changes.", "/roleId")
    if refused is not None:
        return refused
    events: list[RoleEvent] = []
    if parameters.description is not None or parameters.permissions is not None:
        permissions = None if parameters.permissions is None else tuple(parameters.permissions)
        events.append(RoleUpdated(role_id=role.role_id, description=parameters.description, permissions=permissions))
    if parameters.status is not None:
        events.append(RoleTransitioned(role_id=role.role_id, before=role.status, after=parameters.status))
    after = _folded(book, events, request)
    result = RoleResult.of(after.roles[role.role_id], book.context_id)
    return Done(aggregate_id=book.book_id, result=result, events=_decided(book.book_id, events))


def delete_role(view: View[Any], parameters: DeleteRole, request: Request) -> Outcome:
    """Removes a role with its assignments; its history stays in the log."""
    found = _role(view, parameters.role_id, None)
    if isinstance(found, Refusal):
        return found
    book, role = found
    events: list[RoleEvent] = [RoleDeleted(role_id=role.role_id, reason=parameters.reason)]
    return Done(
        aggregate_id=book.book_id, result=RoleGone(role_id=role.role_id, deleted=True), events=_decided(book.book_id, events)
    )  # fmt: skip


def separate_duties(view: View[Any], parameters: SeparateDuties, request: Request) -> Outcome:
    """Makes roles of a context exclude each other: nobody may have two of them."""
    context = open_context(view, parameters.context_id)
    if isinstance(context, Refusal):
        return context
    book = _book(view, request.home, parameters.context_id)
    holders: dict[str, str] = {}
    for role in book.roles.values():
        for each in role.assignments.values() if role.name in parameters.roles else ():
            if each.agent_id is not None and each.counts(request.time_us):
                other = holders.setdefault(each.agent_id, role.name)
                if other != role.name:
                    return conflict(f"{each.agent_id!r} has both {other!r} and {role.name!r}; revoke one first.", "/roles")
    events: list[RoleEvent] = [
        DutiesSeparated(role_id=book.book_id, context_id=parameters.context_id, name=parameters.name, roles=tuple(parameters.roles))
    ]
    after = _folded(book, events, request)
    rules = {name: list(roles) for name, roles in after.separated.items()}
    result = Separations(context_id=parameters.context_id, rules=rules)
    return Done(aggregate_id=book.book_id, result=result, events=_decided(book.book_id, events))


def _book(view: View[Any], home: str, context_id: str | None) -> RoleBook:
    identity = book_id(home, context_id)
    state = view.state(identity)
    return state if isinstance(state, RoleBook) else RoleBook(book_id=identity, context_id=context_id)


def _pattern(view: View[Any], home: str, name: str) -> Role | None:
    book = _book(view, home, None)
    return book.roles.get(role_id(book.book_id, name))


def _role(view: View[Any], role: str | None, assignment: str | None) -> tuple[RoleBook, Role] | Refusal:
    noun, given, pointer = ("assignment", assignment, "/assignmentId") if assignment is not None else ("role", role, "/roleId")
    if given is None:
        return invalid("Name a role or an assignment.", "")
    book = view.state(book_of(given))
    if isinstance(book, RoleBook):
        found = book.role_of(given) if assignment is not None else book.roles.get(given)
        if found is not None:
            return book, found
    return not_found(noun, given, pointer)


def _folded(book: RoleBook, events: list[RoleEvent], request: Request) -> RoleBook:
    for event in events:
        book = evolve(book, event, book.book_id, request.time_us) or book
    return book


def _decided(book: str, events: list[RoleEvent]) -> tuple[Decided, ...]:
    return tuple(Decided(aggregate_id=book, event=event, subject=event.role_id) for event in events)


MODULE = BuiltIn(
    operations={
        "create-role": Operation(parameters=CreateRole, result=RoleResult, decide=create_role),
        "get-role": Operation(parameters=GetRole, result=RoleResult, decide=get_role),
        "update-role": Operation(parameters=UpdateRole, result=RoleResult, decide=update_role),
        "delete-role": Operation(parameters=DeleteRole, result=RoleGone, decide=delete_role),
        "separate-duties": Operation(parameters=SeparateDuties, result=Separations, decide=separate_duties),
        "assign-roles": Operation(parameters=AssignRoles, result=Assignments, decide=assign_roles),
        "revoke-role": Operation(parameters=RevokeRole, result=Revoked, decide=revoke_role),
        "check-permission": Operation(parameters=CheckPermission, result=PermissionResult, decide=check_permission),
        "list-roles": Operation(parameters=ListRoles, result=RoleList, decide=list_roles, gathers=True),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=RoleBook),),
    lifecycles=(LIFECYCLE,),
)
