"""What the context operations decide. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
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
    SearchContexts,
    TransitionLifecycle,
    UpdateContext,
)
from services.modules.context.state import (
    ENDED,
    EVENTS,
    LIFECYCLE,
    Context,
    ContextCreated,
    ContextDeleted,
    ContextTransitioned,
    ContextUpdated,
)
from services.modules.lookup import changed, find, gone, has_text, listing, refuse_version, states_of
from services.modules.operation import Done, Operation, Outcome, Refusal, Request, conflict
from streams.equality import equal
from streams.log.types import View
from streams.records import Json


def create_context(view: View[Any], parameters: CreateContext, request: Request) -> Outcome:
    """Begins a context, active."""
    context_id = request.new_id("context")
    if view.state(context_id) is not None:
        return conflict(f"This request created {context_id} before.")
    event = ContextCreated(name=parameters.name, type=parameters.type, description=parameters.description, metadata=parameters.metadata)
    return changed(evolve, None, context_id, request, ContextResult.of, event)


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
    refused = refuse_version(parameters.expected_version, context.version, "context")
    if refused is not None:
        return refused
    event = ContextUpdated(
        name=parameters.name,
        type=parameters.type,
        description=parameters.description,
        metadata=None if parameters.metadata is None else _merged(context.metadata, parameters.metadata),
    )
    return changed(evolve, context, context.context_id, request, ContextResult.of, event)


def list_contexts(view: View[Any], parameters: ListContexts, request: Request) -> Outcome:
    """Contexts in order of their ids, by state, type or name."""
    wanted = (
        state
        for state in states_of(view, Context)
        if parameters.status in (None, state.status) and parameters.type in (None, state.type) and parameters.name in (None, state.name)
    )
    return listing(view, parameters, ContextList, wanted, lambda context: context.context_id, ContextResult.of)


def search_contexts(view: View[Any], parameters: SearchContexts, request: Request) -> Outcome:
    """Contexts in order of their ids, by part of a text, by metadata, by state."""
    wanted = (
        state
        for state in states_of(view, Context)
        if parameters.status in (None, state.status)
        and has_text(parameters.text, state.name, state.type, state.description)
        and all(key in state.metadata and equal(state.metadata[key], value) for key, value in parameters.metadata.items())
    )
    return listing(view, parameters, ContextList, wanted, lambda context: context.context_id, ContextResult.of)


def transition_lifecycle(view: View[Any], parameters: TransitionLifecycle, request: Request) -> Outcome:
    """Moves a context along its life cycle."""
    context = find(view, Context, parameters.context_id, pointer="/contextId")
    if isinstance(context, Refusal):
        return context
    refused = refuse_version(parameters.expected_version, context.version, "context")
    refused = refused or LIFECYCLE.refusal(context.status, parameters.status, "/status")
    if refused is not None:
        return refused
    before = context.status
    event = ContextTransitioned(before=before, after=parameters.status, reason=parameters.reason)
    return changed(
        evolve, context, context.context_id, request,
        lambda after: ContextTransition(**ContextResult.of(after).model_dump(), previous_status=before), event,
    )  # fmt: skip


def delete_context(view: View[Any], parameters: DeleteContext, request: Request) -> Outcome:
    """Removes a context; its history stays in the log."""
    context = find(view, Context, parameters.context_id, pointer="/contextId")
    if isinstance(context, Refusal):
        return context
    result = ContextGone(context_id=context.context_id, deleted=True)
    return gone(context.context_id, result, ContextDeleted(reason=parameters.reason))


def open_context(view: View[Any], context_id: str, *, pointer: str = "/contextId") -> Context | Refusal:
    """The context if it exists and is active: what other modules need before they put something into it."""
    context = find(view, Context, context_id, pointer=pointer)
    if isinstance(context, Context) and context.status != "active":
        return conflict(f"The context {context_id} is {context.status}, not active.", pointer)
    return context


def _merged(before: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in {**before, **changes}.items() if value is not None}


MODULE = BuiltIn(
    operations={
        "create-context": Operation(parameters=CreateContext, result=ContextResult, decide=create_context),
        "get-context": Operation(parameters=GetContext, result=ContextResult, decide=get_context),
        "update-context": Operation(parameters=UpdateContext, result=ContextResult, decide=update_context),
        "list-contexts": Operation(parameters=ListContexts, result=ContextList, decide=list_contexts, gathers=True),
        "search-contexts": Operation(parameters=SearchContexts, result=ContextList, decide=search_contexts, gathers=True),
        "transition-lifecycle": Operation(parameters=TransitionLifecycle, result=ContextTransition, decide=transition_lifecycle),
        "delete-context": Operation(parameters=DeleteContext, result=ContextGone, decide=delete_context),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Context, ended=lambda state: state.updated_us if state.status == "terminated" else None),),
    lifecycles=(LIFECYCLE,),
)
