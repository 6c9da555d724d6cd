"""The gateway's refusals (problem details, RFC 9457) back as our errors. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from streams.bus.stories import violations_of
from streams.errors import BackboneError, Defect, Denied, InvalidInput, NotFound, Refused, TooLarge, Unavailable

_BY_STATUS: Mapping[int, type[BackboneError]] = {
    400: InvalidInput,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Refused,
    413: TooLarge,
    415: InvalidInput,
    422: InvalidInput,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem(status: int, content: bytes) -> BackboneError:
    """The error that problem details (RFC 9457) describe, with their code, pointer, advice and faults."""
    try:
        details = orjson.loads(content)
    except ValueError:
        details = {}
    if not isinstance(details, Mapping):
        details = {}
    code = str(details.get("code") or "gateway.failed")
    message = str(details.get("detail") or details.get("title") or f"The gateway answered with status {status}.")
    family = _BY_STATUS.get(status, InvalidInput if status < 500 else Defect)
    pointer, advice, faults = details.get("pointer"), details.get("advice"), violations_of(details.get("faults"))
    return family(code, message, pointer=pointer, advice=advice, faults=faults)
