"""`GET /v1/stream`: records of a topic as server-sent events, from now, the beginning, or a time.

Every stream pulls for itself and is held back by its own client alone: one that reads slowly reads late, one that does not
read at all for half a minute is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from services.gateway.answers import json_bytes, ports_of
from services.gateway.keys import Role, requires
from services.gateway.ports import Item
from services.gateway.problems import TooMany
from streams import limits
from streams.bus.validate import parse_time
from streams.errors import BackboneError, InvalidInput
from streams.matching.expressions import compiled
from streams.topics import SYSTEM_EVENTS

router = APIRouter(tags=["events"])

#: Open streams; each has a connection to Kafka of its own.
STREAMS_MAX = 200
#: Seconds between heartbeats (comments), which also find clients that have gone.
HEARTBEAT_S = 10
#: Seconds that a client may not take what is sent to it before it is dropped.
SEND_TIMEOUT_S = 30.0


@router.get(
    "/v1/stream",
    response_class=EventSourceResponse,
    summary="Follow a topic",
    dependencies=[Depends(requires(Role.READER))],
    description="Server-sent events: `id` is `topic/partition/offset`, `data` the record as JSON. A comment comes every "
    f"{HEARTBEAT_S} s. A failure in the middle comes as an event named `problem`, then the stream ends.",
)
async def stream(
    request: Request,
    topic: Annotated[str, Query(min_length=1, max_length=249, description="Logical name of a topic.")] = SYSTEM_EVENTS,
    filter: Annotated[
        str | None, Query(max_length=limits.EXPRESSION_CHARACTERS_MAX, description="CEL over the record; only records for which it holds.")
    ] = None,
    since: Annotated[str, Query(alias="from", max_length=100, description="now, beginning, or an RFC 3339 time.")] = "now",
    type: Annotated[str | None, Query(max_length=limits.NAME_CHARACTERS_MAX, description="Glob over the record's type.")] = None,
    source: Annotated[str | None, Query(max_length=limits.NAME_CHARACTERS_MAX, description="Glob over the record's source.")] = None,
) -> EventSourceResponse:
    """Follows a topic."""
    if filter is not None:
        compiled(filter)
    check_since(since)
    check_room(request)
    metrics = request.app.state.metrics
    items = await ports_of(request).live.follow(topic, since=since, where=filter, type=type, source=source)

    async def messages() -> AsyncIterator[ServerSentEvent]:
        with open_stream(request):
            try:
                yield ServerSentEvent(comment="open")
                async with aclosing(items):
                    async for item in items:
                        metrics.stream_records.inc()
                        yield message_of(item)
            except BackboneError as error:
                yield ServerSentEvent(event="problem", data=json_bytes(error.to_dict()).decode())

    return EventSourceResponse(messages(), ping=HEARTBEAT_S, send_timeout=SEND_TIMEOUT_S)


def check_room(request: Request) -> None:
    """Raises `TooMany` (`streams.too-many`) if no more streams may be opened."""
    if request.app.state.streams_open >= STREAMS_MAX:
        raise TooMany("streams.too-many", f"{STREAMS_MAX} streams are open; no more are allowed.")


@contextmanager
def open_stream(request: Request) -> Iterator[None]:
    """Counts as an open stream, until the end of the block."""
    state = request.app.state
    state.streams_open += 1
    state.metrics.streams_open.inc()
    try:
        yield
    finally:
        state.streams_open -= 1
        state.metrics.streams_open.dec()


def message_of(item: Item) -> ServerSentEvent:
    """A record as a server-sent event. It has no event name, so that a plain `EventSource.onmessage` gets it."""
    return ServerSentEvent(id=item.id, data=json_bytes(item.record).decode())


def check_since(text: str) -> None:
    """Raises `InvalidInput` (`since.invalid`) unless `text` is now, beginning or an RFC 3339 time."""
    if text in ("now", "beginning"):
        return
    try:
        parse_time(text)
    except InvalidInput as error:
        raise InvalidInput("since.invalid", "`from` is now, beginning, or a time such as 2026-01-31T12:00:00Z.", pointer="/from") from error
