"""`POST /v1/events`: one event, an array, or NDJSON. The good ones are kept, the others named with place, code and message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.gateway import bodies, problems
from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
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
