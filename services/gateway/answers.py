"""Answers as JSON by orjson (times as RFC 3339), and the way from a request to the ports."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.ports import Ports
from streams.records import iso


def json_bytes(value: Any) -> bytes:
    """`value` as JSON: times as RFC 3339 with microseconds and Z, what JSON does not know as text."""

    def default(item: Any) -> Any:
        if isinstance(item, datetime):
            return iso(item if item.tzinfo else item.replace(tzinfo=UTC))
        if isinstance(item, date):
            return item.isoformat()
        if isinstance(item, bytes):
            return item.decode(errors="replace")
        if isinstance(item, (set, frozenset)):
            return sorted(item)
        return list(item) if isinstance(item, tuple) else str(item)

    return orjson.dumps(value, default=default, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS)


class Answer(Response):
    """A JSON response."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return json_bytes(content)


def ports_of(request: Request) -> Ports:
    """What the application was given."""
    ports: Ports = request.app.state.ports
    return ports
