"""`/v1/events`: takes one event, an array, or NDJSON (the good ones are kept, the others named), and gives pages of what has been."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from services.gateway import bodies, cursors, problems
from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
from services.gateway.ports import LookBack
from services.gateway.stream import check_room, open_stream
from services.gateway.waiting import while_connected
from streams import limits
from streams.bus.validate import parse_time
from streams.errors import BackboneError, InvalidInput
from streams.records import SystemEvent

router = APIRouter(tags=["events"])

#: Events that are parsed before others get a turn: a body of 10 MB must not stop the gateway.
SLICE = 200

Rejection = dict[str, Any]

_EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "description": "Dotted, past tense: order.paid."},
        "id": {
            "type": "string",
            "description": "A UUID; of any other text, with `source`, one derives. None: a new one. Repeats count once.",
        },
        "source": {"type": "string"},
        "subject": {"type": "string", "description": "What it is about; the key."},
        "time": {"type": "string", "format": "date-time"},
        "tenant": {"type": "string"},
        "correlation_id": {"type": "string"},
        "causation_id": {"type": "string"},
        "severity": {"enum": ["debug", "info", "warning", "error", "critical"]},
        "data": {"description": "Any JSON."},
    },
}

_BODY = {
    bodies.JSON_TYPE: {"oneOf": [_EVENT_SCHEMA, {"type": "array", "items": _EVENT_SCHEMA}]},
    "application/x-ndjson": {"type": "string", "description": "One event a line."},
}


@router.post(
    "/v1/events",
    response_class=Answer,
    summary="Publish events",
    dependencies=[Depends(requires(Role.PRODUCER))],
    openapi_extra=bodies.describes(**_BODY),
    responses={207: {"description": "Some were accepted, some rejected."}, 422: {"description": "All were rejected (`events.rejected`)."}},
    description="Answers when the broker has the accepted ones: `{accepted, rejected: [{index | line, code, message, pointer?}]}`; `index` "
    "from 0 in a JSON body, `line` from 1 in NDJSON. 200 if all were accepted, 207 if some were, 422 if none was.",
)
async def publish(request: Request) -> Response:
    """Takes events."""
    body = await bodies.read(request)
    kind = bodies.content_type(request)
    if kind == bodies.JSON_TYPE:
        given = bodies.parse_json(body)
        place, entries = "index", list(enumerate(given if isinstance(given, list) else [given]))
    elif kind in bodies.NDJSON_TYPES:
        place, entries = "line", [(number, line) for number, line in enumerate(body.split(b"\n"), start=1) if line.strip()]
    else:
        raise problems.UnsupportedMediaType(
            "content-type.unsupported", f"Events come as {bodies.JSON_TYPE} or application/x-ndjson, not as {kind or 'nothing'}."
        )
    events, rejected = await _parse(ports_of(request).parse_event, entries, place)
    if events:
        await ports_of(request).publish(events)
    return _answer(request, len(events), rejected)


_TEXT = limits.NAME_CHARACTERS_MAX
_Topic = Annotated[str, Field(min_length=1, max_length=249)]


@router.get(
    "/v1/events",
    response_class=Answer,
    summary="Look back",
    dependencies=[Depends(requires(Role.READER))],
    description="Records that match, oldest first by their `time`, read from the topics themselves: nothing that was accepted is missing. "
    "Without `topic` those of all topics of events (system events, composites, transitions, module messages). A record that arrives "
    "later with an earlier time than the end of a page is on none of the following.",
)
async def look_back(
    request: Request,
    type: Annotated[str | None, Query(max_length=_TEXT, description="Glob over the type: order.*, **.failed.")] = None,
    source: Annotated[str | None, Query(max_length=_TEXT, description="Glob over the source.")] = None,
    subject: Annotated[str | None, Query(max_length=_TEXT, description="Exactly this subject.")] = None,
    correlation_id: Annotated[str | None, Query(max_length=_TEXT, description="Exactly this story.")] = None,
    since: Annotated[str | None, Query(max_length=64, description="At this time (RFC 3339) or later.")] = None,
    until: Annotated[str | None, Query(max_length=64, description="Before this time (RFC 3339).")] = None,
    filter: Annotated[
        str | None, Query(max_length=limits.EXPRESSION_CHARACTERS_MAX, description="CEL over the record; only records for which it holds.")
    ] = None,
    topic: Annotated[list[_Topic] | None, Query(max_length=20, description="Logical name; may be repeated.")] = None,
    limit: cursors.Limit = cursors.PAGE,
    cursor: cursors.Cursor = None,
) -> Response:
    """A page of records."""
    asked = LookBack(
        topics=tuple(topic or ()), type=type, source=source, subject=subject, correlation_id=correlation_id,
        since=_time("since", since), until=_time("until", until), where=filter, limit=limit,
        after=None if cursor is None else cursors.decode(cursor, str)[0],
    )  # fmt: skip
    check_room(request)
    with open_stream(request):  # it has a connection to Kafka of its own, as a stream has
        found, after = await while_connected(request, ports_of(request).live.page(asked))
    return Answer(cursors.page(found, None if after is None else cursors.encode(after)))


def _time(name: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"`{name}` is a time such as 2026-01-31T12:00:00Z.", pointer=f"/{name}") from error


async def _parse(
    parse: Callable[[Any], SystemEvent], entries: Iterable[tuple[int, Any]], place: str
) -> tuple[list[SystemEvent], list[Rejection]]:
    events: list[SystemEvent] = []
    rejected: list[Rejection] = []
    for count, (number, entry) in enumerate(entries):
        if count % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        try:
            if not isinstance(entry, (bytes, dict)):
                raise InvalidInput("event.invalid", "An event is an object.")
            events.append(parse(entry))
        except BackboneError as error:
            rejected.append({place: number, **error.to_dict()})
    return events, rejected


def _answer(request: Request, accepted: int, rejected: Sequence[Rejection]) -> Response:
    metrics = request.app.state.metrics
    metrics.events_accepted.inc(accepted)
    for rejection in rejected:
        metrics.events_rejected.labels(rejection["code"]).inc()
    result = {"accepted": accepted, "rejected": rejected}
    if accepted or not rejected:
        return Answer(result, status_code=207 if rejected else 200)
    return problems.problem(422, {"code": "events.rejected", "message": f"None of {len(rejected)} event(s) was accepted.", **result})
