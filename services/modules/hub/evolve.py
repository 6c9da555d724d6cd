"""The fold of the hub's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.modules.hub.state import (
    AnsweredLate,
    Broadcast,
    BroadcastBegun,
    BroadcastEnded,
    Call,
    CallMoved,
    Exchange,
    ExchangeBegun,
    ExchangeMoved,
    HubEvent,
    Instance,
    InstanceGone,
    LeaseRenewed,
    MessageReceived,
    ModuleRegistered,
    ModuleUnregistered,
    Registration,
    Registry,
    Subscribed,
    Unsubscribed,
    WishChanged,
)


def evolve(state: Any, event: HubEvent, aggregate_id: str, time_us: int) -> Any:
    """The registry, exchange or broadcast after `event`."""
    match event:
        case ExchangeBegun() | CallMoved() | AnsweredLate() | ExchangeMoved():
            return _exchange(state, event, aggregate_id, time_us)
        case BroadcastBegun() | MessageReceived() | BroadcastEnded():
            return _broadcast(state, event, aggregate_id, time_us)
        case (
            ModuleRegistered() | LeaseRenewed() | InstanceGone() | ModuleUnregistered() | WishChanged() | Subscribed() | Unsubscribed()
        ):  # fmt: skip
            return _registry(state if isinstance(state, Registry) else Registry(), event, time_us)
        case _:  # on record, nothing more
            return state


def _registry(state: Registry, event: Any, time_us: int) -> Registry:
    match event:
        case Subscribed(subscription=subscription):
            return replace(state, subscribers={**state.subscribers, subscription.subscriber: subscription})
        case Unsubscribed(subscriber=gone):
            return replace(state, subscribers={name: each for name, each in state.subscribers.items() if name != gone})
        case ModuleUnregistered(module=gone):
            return replace(state, modules={name: each for name, each in state.modules.items() if name != gone})
    known = state.modules.get(event.module)
    if isinstance(event, ModuleRegistered):
        instances = {} if known is None else known.instances
        known = Registration(
            module=event.module,
            description=event.description,
            operations=event.operations,
            wish="serving" if known is None else known.wish,
            registered_us=time_us if known is None else known.registered_us,
            instances={**instances, event.instance: Instance(instance=event.instance, lease_us=event.lease_us)},
        )
    elif known is None:
        return state
    elif isinstance(event, LeaseRenewed):
        instance = Instance(instance=event.instance, lease_us=event.lease_us, detail=event.detail)
        known = replace(known, instances={**known.instances, event.instance: instance})
    elif isinstance(event, InstanceGone):
        known = replace(known, instances={name: each for name, each in known.instances.items() if name != event.instance})
    else:
        known = replace(known, wish=event.after)
    return replace(state, modules={**state.modules, known.module: known})


def _exchange(
    state: Any, event: ExchangeBegun | CallMoved | AnsweredLate | ExchangeMoved, aggregate_id: str, time_us: int
) -> Exchange | None:  # fmt: skip
    if isinstance(event, ExchangeBegun):
        return Exchange(
            exchange_id=aggregate_id,
            name=event.name,
            kind=event.kind,
            calls={call.call_id: call for call in event.calls},
            atomic=event.atomic,
            status="running",
            begun_us=time_us,
            deadline_us=event.deadline_us,
            caller=event.caller,
            correlation_id=event.caller.correlation_id,
            tenant=event.caller.tenant,
        )
    if not isinstance(state, Exchange):
        return None
    if isinstance(event, ExchangeMoved):
        ended = event.after != "compensating"
        ended_us, caller = (time_us, None) if ended else (None, state.caller)
        return replace(state, status=event.after, ended_us=ended_us, caller=caller, settled=ended and state.settled)
    call = state.calls.get(event.call_id)
    if call is None:
        return state
    moved = _answered_late(call, event) if isinstance(event, AnsweredLate) else _moved(call, event, time_us)
    return replace(state, calls={**state.calls, call.call_id: moved})


def _answered_late(call: Call, event: AnsweredLate) -> Call:
    late = (*call.late, event.result) if event.owed else call.late
    return replace(call, answered_late=(*call.answered_late, event.attempt), late=late)


def _moved(call: Call, event: CallMoved, time_us: int) -> Call:
    # What a call brought is kept while it is undone.
    result = event.result if event.after == "succeeded" else call.result
    error = event.error if event.after not in ("running", "succeeded", "compensating", "compensated") else None
    return replace(
        call,
        status=event.after,
        attempt=event.attempt or call.attempt,
        undos=call.undos + (event.after == "compensating"),
        undo_tries=_undo_tries(call, event),
        late=call.late[1:] if event.after == "succeeded" and event.before in ("failed", "timed_out", "compensated") else call.late,
        due_us=event.due_us,
        begun_us=time_us if event.after in ("running", "compensating") else call.begun_us,
        result=result,
        error=error,
    )


def _undo_tries(call: Call, event: CallMoved) -> int:
    if event.after != "compensating":
        return call.undo_tries
    return call.undo_tries + 1 if event.before == "compensation_retrying" else 1


def _broadcast(
    state: Any, event: BroadcastBegun | MessageReceived | BroadcastEnded, aggregate_id: str, time_us: int
) -> Broadcast | None:  # fmt: skip
    if isinstance(event, BroadcastBegun):
        return Broadcast(
            broadcast_id=aggregate_id,
            type=event.type,
            source=event.source,
            data=event.data,
            begun_us=time_us,
            deadline_us=event.deadline_us,
            subscribers=event.subscribers,
            caller=event.caller,
            correlation_id=event.correlation_id,
        )
    if not isinstance(state, Broadcast):
        return None
    if isinstance(event, BroadcastEnded):
        # Nobody is told any more: what was said stays in the log, and not in memory.
        return replace(state, ended_us=time_us, data=None, caller=None)
    if event.late:
        return replace(state, late=(*state.late, event.subscriber))
    return replace(state, received={**state.received, event.subscriber: time_us})
