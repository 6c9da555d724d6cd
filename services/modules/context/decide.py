"""What the context operations decide. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.modules.context.evolve import evolve
from services.modules.context.operations import (
    ContextGone,
    ContextList,
    ContextResult,
    ContextTransition,
    CreateContext,
    DeleteContext,
    GetContext,
    ListContexts,
    TransitionLifecycle,
    UpdateContext,
)
from services.modules.context.state import (
    ENDED,
    EVENTS,
    TRANSITIONS,
    Context,
    ContextCreated,
    ContextDeleted,
    ContextEvent,
    ContextTransitioned,
    ContextUpdated,
)
from services.modules.lookup import find, missing_partitions, page
from services.modules.operation import BuiltIn, Decided, Done, Operation, Outcome, Refusal, Request, conflict
from services.modules.transitions import refuse_transition
from streams.log.types import View
from streams.records import Json


def create_context(view: View[Any], parameters: CreateContext, request: Request) -> Outcome:
    """Begins a context, active."""
    context_id = request.new_id("context")
    if view.state(context_id) is not None:
        return conflict(f"This request created {context_id} before.")
    event = ContextCreated(name=parameters.name, type=parameters.type, description=parameters.description, metadata=parameters.metadata)
    return _changed(None, event, context_id, request)


def get_context(view: View[Any], parameters: GetContext, request: Request) -> Outcome:
    """A context as it is now."""
    context = find(view, Context, parameters.context_id, pointer="/contextId")
    if isinstance(context, Refusal):
        return context
    return Done(aggregate_id=context.context_id, result=ContextResult.of(context))


def update_context(view: View[Any], parameters: UpdateContext, request: Request) -> Outcome:
    """Changes attributes of a context that has not ended."""
    context = find(view, Context, parameters.context_id, pointer="/contextId")
    if isinstance(context, Refusal):
        return context
    if context.status in ENDED:
        return conflict(f"A context that is {context.status} takes no changes.", "/contextId")
    if parameters.expected_version not in (None, context.version):
        return conflict(f"The context is at version {context.version}, not {parameters.expected_version}.", "/expectedVersion")
    event = ContextUpdated(
        name=parameters.name,
        type=parameters.type,
        description=parameters.description,
        metadata=None if parameters.metadata is None else _merged(context.metadata, parameters.metadata),
    )
    return _changed(context, event, context.context_id, request)


def list_contexts(view: View[Any], parameters: ListContexts, request: Request) -> Outcome:
    """Contexts of the partition that was asked, in order of their ids."""
    wanted = (
        state
        for _, state in view.states()
        if isinstance(state, Context)
        and parameters.status in (None, state.status)
        and parameters.type in (None, state.type)
        and parameters.name in (None, state.name)
    )
    shown, total, following = page(wanted, lambda context: context.context_id, parameters)
    missing = missing_partitions(view)
    return Done(
        aggregate_id=None,
        result=ContextList(
            contexts=[ContextResult.of(context) for context in shown],
            total=total,
            next=following,
            complete=not missing,
            missing_partitions=missing,
        ),
    )


def transition_lifecycle(view: View[Any], parameters: TransitionLifecycle, request: Request) -> Outcome:
    """Moves a context along its life cycle."""
    context = find(view, Context, parameters.context_id, pointer="/contextId")
    if isinstance(context, Refusal):
        return context
    refused = refuse_transition(TRANSITIONS, "context", context.status, parameters.status)
    if refused is not None:
        return refused
    event = ContextTransitioned(before=context.status, after=parameters.status, reason=parameters.reason)
    after = evolve(context, event, context.context_id, request.time_us)
    assert after is not None
    result = ContextTransition(**ContextResult.of(after).model_dump(), previous_status=context.status)
    return Done(aggregate_id=context.context_id, result=result, events=(Decided(aggregate_id=context.context_id, event=event),))


def delete_context(view: View[Any], parameters: DeleteContext, request: Request) -> Outcome:
    """Removes a context; its history stays in the log."""
    context = find(view, Context, parameters.context_id, pointer="/contextId")
    if isinstance(context, Refusal):
        return context
    event = ContextDeleted(reason=parameters.reason)
    return Done(
        aggregate_id=context.context_id,
        result=ContextGone(context_id=context.context_id, deleted=True),
        events=(Decided(aggregate_id=context.context_id, event=event),),
    )


def open_context(view: View[Any], context_id: str, *, pointer: str = "/contextId") -> Context | Refusal:
    """The context if it exists and is active: what other modules need before they put something into it."""
    context = find(view, Context, context_id, pointer=pointer)
    if isinstance(context, Context) and context.status != "active":
        return conflict(f"The context {context_id} is {context.status}, not active.", pointer)
    return context


def _changed(before: Context | None, event: ContextEvent, context_id: str, request: Request) -> Outcome:
    after = evolve(before, event, context_id, request.time_us)
    assert after is not None
    return Done(aggregate_id=context_id, result=ContextResult.of(after), events=(Decided(aggregate_id=context_id, event=event),))


def _merged(before: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in {**before, **changes}.items() if value is not None}


MODULE = BuiltIn(
    operations={
        "create-context": Operation(parameters=CreateContext, result=ContextResult, decide=create_context),
        "get-context": Operation(parameters=GetContext, result=ContextResult, decide=get_context),
        "update-context": Operation(parameters=UpdateContext, result=ContextResult, decide=update_context),
        "list-contexts": Operation(parameters=ListContexts, result=ContextList, decide=list_contexts),
        "transition-lifecycle": Operation(parameters=TransitionLifecycle, result=ContextTransition, decide=transition_lifecycle),
        "delete-context": Operation(parameters=DeleteContext, result=ContextGone, decide=delete_context),
    },
    events=EVENTS,
    evolve=evolve,
)
