"""Broadcasts: a message to every subscriber of its type, each told until it says that it has it, or the time is over. Pure.

A subscriber has an address of its own (a key in the topic of responses) or is a module, whose inbox its processes share. It says that it
has a message by the notification `received`; messages carry ids that derive from broadcast and subscriber, so that a repeat is
recognised. What a subscriber misses while it is away is sent again when it subscribes again, and when the hub's partition has a new
owner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.modules.hub.evolve import evolve
from services.modules.hub.operations import BroadcastParameters, BroadcastResult
from services.modules.hub.state import NAME, REGISTRY, Broadcast, BroadcastBegun, BroadcastEnded, HubEvent, MessageReceived, Registry
from services.modules.lookup import changed, states_of
from services.modules.operation import NOTHING_FOLLOWS, Answered, Decided, Done, Follow, Outcome, Pending, Request
from streams.log.types import Due, Send, View
from streams.matching.globs import glob_matches
from streams.records import ModuleMessage, derived_id, from_micros
from streams.topics import RESPONSES, module_requests

#: Operation of the notification by which a subscriber says that it has a message.
RECEIVED = "received"


def broadcast(view: View[Any], parameters: BroadcastParameters, request: Request) -> Outcome:
    """Sends a message to all who want its type; answered with who has received it, when all have or the time is over."""
    broadcast_id = request.new_id("broadcast")
    if view.state(broadcast_id) is not None:
        return Pending(aggregate_id=broadcast_id)
    state = view.state(REGISTRY)
    source = parameters.source or request.caller.source_module
    subscribers = (
        {
            each.subscriber: each.is_module
            for each in state.subscribers.values()
            if any(glob_matches(pattern, parameters.type) for pattern in each.types)
            and (each.source is None or glob_matches(each.source, source))
        }
        if isinstance(state, Registry)
        else {}
    )
    begun = BroadcastBegun(
        type=parameters.type,
        source=source,
        data=parameters.data,
        subscribers=subscribers,
        deadline_us=request.time_us + parameters.timeout * 1000,
        caller=request.caller if parameters.wait and subscribers else None,
        correlation_id=request.caller.correlation_id,
    )
    events: list[HubEvent] = [begun]
    if not subscribers:
        events.append(BroadcastEnded(received=0))
    done = changed(evolve, None, broadcast_id, request, BroadcastResult.of, *events)
    after = evolve(None, begun, broadcast_id, request.time_us)
    sent = tuple(outstanding(after))
    if begun.caller is not None:
        return Pending(aggregate_id=broadcast_id, events=done.events, effects=sent)
    return Done(aggregate_id=broadcast_id, result=done.result, events=done.events, effects=sent)


def outstanding(state: Broadcast) -> Iterator[Send]:
    """The message, to those who have not said that they have it."""
    if state.ended_us is None:
        yield from (_message(state, name) for name in state.subscribers if name not in state.received)


def outstanding_for(view: View[Any], subscriber: str) -> Iterator[Send]:
    """What one subscriber has not received."""
    for state in states_of(view, Broadcast, resting=False):
        if state.ended_us is None and subscriber in state.subscribers and subscriber not in state.received:
            yield _message(state, subscriber)


def _message(state: Broadcast, subscriber: str) -> Send:
    message = ModuleMessage(
        id=derived_id("broadcast", state.broadcast_id, subscriber),
        type=state.type,
        source=state.source,
        subject=state.broadcast_id,
        time=from_micros(state.begun_us),
        tenant=state.tenant,
        correlation_id=state.correlation_id,
        data=state.data,
        kind="broadcast",
        source_module=state.source,
        target_module=subscriber,
        operation=state.type,
        reply_to=NAME,
        deadline=from_micros(state.deadline_us),
    )
    if state.subscribers[subscriber]:
        return Send(topic=module_requests(subscriber), key=state.broadcast_id, record=message)
    return Send(topic=RESPONSES, key=subscriber, record=message, hand_over=False)


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """A subscriber says that it has a message."""
    data = message.data if isinstance(message.data, dict) else {}
    state, subscriber = view.state(str(data.get("broadcast_id"))), data.get("subscriber")
    if not isinstance(state, Broadcast) or not isinstance(subscriber, str) or subscriber not in state.subscribers:
        return NOTHING_FOLLOWS
    if subscriber in state.received or subscriber in state.late:
        return NOTHING_FOLLOWS
    event = MessageReceived(subscriber=subscriber, late=state.ended_us is not None)
    told = Decided(aggregate_id=state.broadcast_id, event=event, subject=subscriber, correlation_id=state.correlation_id)
    after = evolve(state, event, state.broadcast_id, time_us)
    if event.late or len(after.received) < len(after.subscribers):
        return Follow(events=(told,))
    return _ended(after, time_us, told)


def fire(view: View[Any], state: Broadcast, timer: Due) -> Follow:
    """The time is over."""
    return _ended(state, timer.time_us)


def due(state: Broadcast) -> int | None:
    """When the time is over."""
    return state.deadline_us if state.ended_us is None else None


def _ended(state: Broadcast, time_us: int, *told: Decided) -> Follow:
    missing = tuple(name for name in state.subscribers if name not in state.received)
    event = BroadcastEnded(received=len(state.received), missing=missing)
    after = evolve(state, event, state.broadcast_id, time_us)
    events = (*told, Decided(aggregate_id=state.broadcast_id, event=event, correlation_id=state.correlation_id))
    if state.caller is None:
        return Follow(events=events)
    result = BroadcastResult.of(after).model_dump(mode="json", by_alias=True)
    return Follow(events=events, answers=(Answered(caller=state.caller, aggregate_id=state.broadcast_id, answer=result),))
