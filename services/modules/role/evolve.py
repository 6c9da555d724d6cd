"""The fold of the events of a scope's roles. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.role.state import (
    Assignment,
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
)


def evolve(state: RoleBook | None, event: RoleEvent, aggregate_id: str, time_us: int) -> RoleBook | None:
    """The scope's roles after `event`."""
    if isinstance(event, RoleCreated):
        book = state or RoleBook(book_id=aggregate_id, context_id=event.context_id)
        role = Role(
            role_id=event.role_id,
            name=event.name,
            description=event.description,
            permissions=event.permissions,
            status=event.status,
            created_us=time_us,
        )
        return replace(book, roles={**book.roles, role.role_id: role})
    if isinstance(event, DutiesSeparated):
        book = state or RoleBook(book_id=aggregate_id, context_id=event.context_id)
        rules = {**book.separated, event.name: event.roles}
        return replace(book, separated={name: roles for name, roles in rules.items() if roles})
    if state is None or event.role_id not in state.roles:
        return state
    role = state.roles[event.role_id]
    match event:
        case RoleUpdated():
            return _with(
                state,
                replace(
                    role,
                    description=role.description if event.description is None else event.description,
                    permissions=role.permissions if event.permissions is None else event.permissions,
                ),
            )
        case RoleDeleted():
            return replace(state, roles={name: each for name, each in state.roles.items() if name != event.role_id})
        case RoleAssigned():
            given = Assignment(assignment_id=event.assignment_id, agent_id=event.agent_id, assigned_us=time_us, expires_us=event.expires_us)
            return _with(state, replace(role, assignments={**role.assignments, given.assignment_id: given}))
        case RoleRevoked():
            rest = {key: value for key, value in role.assignments.items() if key != event.assignment_id}
            return _with(state, replace(role, assignments=rest))
        case RoleTransitioned():
            return _with(state, replace(role, status=event.after))
        case _:
            assert_never(event)


def _with(book: RoleBook, role: Role) -> RoleBook:
    return replace(book, roles={**book.roles, role.role_id: replace(role, version=role.version + 1)})
