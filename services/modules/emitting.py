"""Decisions of modules as records: their events, the responses to callers, and how these reach them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from services.modules import answers
from services.modules.operation import Caller, Decided, Follow, Refusal, event_data
from services.modules.trace.collecting import collect
from streams.codec.payload import payload_text
from streams.errors import BackboneError
from streams.log.types import Decision, Send, View
from streams.records import Json, ModuleMessage, Record, SystemEvent, from_micros
from streams.topics import REQUESTS, RESPONSES, home_of


def event_of(decided: Decided, source: str, time_us: int, cause: Record | None) -> SystemEvent:
    """A domain event as it lies in the log. `cause`: the record that led to it; None: a timer."""
    return SystemEvent(
        id="",
        type=decided.event.TYPE,
        source=source,
        subject=decided.subject or decided.aggregate_id,
        time=from_micros(time_us),
        tenant="default" if cause is None else cause.tenant,
        correlation_id=decided.correlation_id or ("" if cause is None else cause.correlation_id) or home_of(decided.aggregate_id),
        causation_id=None if cause is None else cause.id,
        data=event_data(decided.event),
        aggregate_id=decided.aggregate_id,
    )


def following(
    view: View[Any], source: str, follow: Follow, time_us: int, cause: Record | None, built_in: Collection[str]
) -> Decision:  # fmt: skip
    """What a timer or a message led to, as one decision."""
    decided = (*follow.events, *collect(view, follow.events, time_us))
    events: list[Any] = [event_of(each, source, time_us, cause) for each in decided]
    effects = list(follow.effects)
    for each in follow.answers:
        answer = each.answer
        if not isinstance(answer, Refusal):
            answer = fault_of_payload(answer) or answer
        response = answers.response_event(each.caller.request(), answer, each.aggregate_id, time_us)
        events.append(response)
        if not is_heard(view, each.caller, built_in):
            effects += to_caller(each.caller, answers.essentials(response), built_in)
    return Decision(events=tuple(events), effects=tuple(effects))


def is_heard(view: View[Any], caller: Caller, built_in: Collection[str]) -> bool:
    """Whether the caller reads the log of this partition, so that the response in it is all that it needs."""
    return (
        not caller.outside
        and caller.reply_to is not None
        and caller.source_module not in built_in
        and view.is_local(home_of(caller.reply_to))
    )


def to_caller(caller: Caller, remembered: str, built_in: Collection[str]) -> tuple[Send, ...]:
    """The response on its way: to a built-in module by the inbox of requests, to others by the topic of responses."""
    if caller.reply_to is None:
        return ()
    response = answers.response_to_caller(remembered)
    if caller.source_module in built_in:
        return (Send(topic=REQUESTS, key=caller.reply_to, record=response),)
    return (Send(topic=RESPONSES, key=caller.reply_to, record=response, hand_over=not caller.outside),)


def fault_of_payload(data: Json) -> Refusal | None:
    """Why `data` cannot be a record's payload; None: it can."""
    try:
        payload_text(data)
    except BackboneError as error:
        return Refusal(code=error.code, message=error.message, pointer="")
    except (TypeError, ValueError) as error:
        return Refusal(code="invalid", message=f"This is no JSON: {error}.", pointer="")
    return None


def no_request(record: Record, time_us: int) -> Decision:
    """What lies in the inbox of requests without being one: it changes nothing, but it is on record."""
    kind = record.kind if isinstance(record, ModuleMessage) else type(record).__name__
    return Decision(events=(refused(record, time_us, "message.no-request", f"Modules take requests, not {kind}."),))


def refused(record: Record, time_us: int, code: str, message: str) -> SystemEvent:
    """A record that belongs to no aggregate here, and why nothing was done about it."""
    return SystemEvent(
        id="",
        type="message.refused",
        source="mplp/modules",
        subject=record.subject or record.id,
        time=from_micros(time_us),
        tenant=record.tenant,
        correlation_id=record.correlation_id,
        causation_id=record.id,
        severity="warning",
        data={"code": code, "message": message},
        sequence=0,
    )
