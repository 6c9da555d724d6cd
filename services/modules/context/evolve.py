"""The fold of a context's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.context.state import Context, ContextCreated, ContextDeleted, ContextEvent, ContextTransitioned, ContextUpdated


def evolve(state: Context | None, event: ContextEvent, aggregate_id: str, time_us: int) -> Context | None:
    """The context after `event`; None: there is none."""
    if isinstance(event, ContextCreated):
        return Context(
            context_id=aggregate_id,
            name=event.name,
            type=event.type,
            description=event.description,
            metadata=event.metadata,
            status="active",
            version=1,
            created_us=time_us,
            updated_us=time_us,
        )
    if state is None:
        return None
    changed = replace(state, version=state.version + 1, updated_us=time_us)
    match event:
        case ContextUpdated():
            return replace(
                changed,
                name=state.name if event.name is None else event.name,
                type=state.type if event.type is None else event.type,
                description=state.description if event.description is None else event.description,
                metadata=state.metadata if event.metadata is None else event.metadata,
            )
        case ContextTransitioned():
            return replace(changed, status=event.after)
        case ContextDeleted():
            return None
        case _:
            assert_never(event)
