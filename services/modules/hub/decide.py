"""What the hub operations decide. Pure."""

from __future__ import annotations

from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.hub import broadcasting, exchanging, registry
from services.modules.hub.checksums import checksum, rebuild, state
from services.modules.hub.evolve import evolve
from services.modules.hub.operations import (
    BroadcastParameters,
    BroadcastResult,
    Coordinate,
    CoordinationResult,
    GetModule,
    ListModules,
    ModuleGone,
    ModuleList,
    ModuleResult,
    Move,
    Register,
    Registered,
    Report,
    ReportResult,
    Send,
    SentResult,
    Subscribe,
    SubscriptionList,
    SubscriptionResult,
    Subscriptions,
    Unregister,
    Unsubscribe,
)
from services.modules.hub.owner_operations import Checksum, ChecksumList, Rebuild, RebuildList, StateList, StateOf
from services.modules.hub.state import CALL_LIFECYCLE, EVENTS, EXCHANGE_LIFECYCLE, LIFECYCLE, Broadcast, Exchange, Registry
from services.modules.operation import Done, Follow, Operation, Outcome, Request, not_found
from streams.log.types import View
from streams.records import ModuleMessage


def report(view: View[Any], parameters: Report, request: Request) -> Outcome:
    """What became of a coordination, a message or a broadcast."""
    state = view.state(parameters.id)
    if not isinstance(state, Exchange | Broadcast):
        return not_found("coordination, message or broadcast", parameters.id, "/id")
    result = ReportResult(
        id=parameters.id,
        coordination=CoordinationResult.of(state) if isinstance(state, Exchange) else None,
        broadcast=BroadcastResult.of(state) if isinstance(state, Broadcast) else None,
    )
    return Done(aggregate_id=parameters.id, result=result)


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """Answers of modules, and subscribers that have a message."""
    if message.kind == "response":
        return exchanging.take(view, message, time_us)
    if message.kind == "notification" and message.operation == broadcasting.RECEIVED:
        return broadcasting.take(view, message, time_us)
    return None


MODULE = BuiltIn(
    operations={
        "register": Operation(parameters=Register, result=Registered, decide=registry.register),
        "unregister": Operation(parameters=Unregister, result=ModuleGone, decide=registry.unregister),
        "list": Operation(parameters=ListModules, result=ModuleList, decide=registry.list_modules),
        "get": Operation(parameters=GetModule, result=ModuleResult, decide=registry.get_module),
        "start": Operation(parameters=Move, result=ModuleResult, decide=registry.move("serving")),
        "drain": Operation(parameters=Move, result=ModuleResult, decide=registry.move("draining")),
        "stop": Operation(parameters=Move, result=ModuleResult, decide=registry.move("stopped")),
        "coordinate": Operation(parameters=Coordinate, result=CoordinationResult, decide=exchanging.coordinate),
        "send": Operation(parameters=Send, result=SentResult, decide=exchanging.send),
        "broadcast": Operation(parameters=BroadcastParameters, result=BroadcastResult, decide=broadcasting.broadcast),
        "subscribe": Operation(parameters=Subscribe, result=SubscriptionResult, decide=registry.subscribe),
        "unsubscribe": Operation(parameters=Unsubscribe, result=SubscriptionResult, decide=registry.unsubscribe),
        "subscriptions": Operation(parameters=Subscriptions, result=SubscriptionList, decide=registry.subscriptions),
        "report": Operation(parameters=Report, result=ReportResult, decide=report),
        "checksum": Operation(parameters=Checksum, result=ChecksumList, decide=checksum, gathers=True),
        "state": Operation(parameters=StateOf, result=StateList, decide=state, gathers=True),
        "rebuild": Operation(parameters=Rebuild, result=RebuildList, decide=rebuild, gathers=True),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(
        Aggregate(state=Registry, due=registry.due, fire=registry.fire, stays=True),
        Aggregate(
            state=Exchange, due=exchanging.due, fire=exchanging.fire, outstanding=exchanging.outstanding,
            ended=lambda state: state.ended_us,
        ),
        Aggregate(
            state=Broadcast, due=broadcasting.due, fire=broadcasting.fire, outstanding=broadcasting.outstanding,
            ended=lambda state: state.ended_us,
        ),
    ),
    take=take,
    lifecycles=(LIFECYCLE, CALL_LIFECYCLE, EXCHANGE_LIFECYCLE),
)  # fmt: skip
