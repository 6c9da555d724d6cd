"""The forms in which `POST /v1/query` answers, and which of them a request asks for. Pure."""

from __future__ import annotations

from typing import Literal

from streams.errors import BackboneError, Fault

FormatName = Literal["rows", "json", "jsonl", "csv", "compact", "columns", "arrow", "parquet"]

#: Content type of each form, in the order of preference among equals.
MEDIA_TYPES: dict[FormatName, str] = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
    "compact": "application/x-ndjson",
    "columns": "application/json",
    "rows": "application/json",
}
#: What a client may accept, and what it gets.
_ACCEPTED: dict[str, FormatName] = {
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.parquet": "parquet",
}


class NotAcceptable(BackboneError):
    """None of the content types that the client accepts can be had."""

    fault = Fault.CALLER
    http_status = 406


def wanted(format: FormatName | None, accept: str) -> FormatName:
    """The form of an answer: what the body says, else the best that the header `Accept` allows (RFC 9110, 12.5.1), else JSON.

    Raises `NotAcceptable` (`accept.unsupported`).
    """
    if format is not None:
        return "json" if format == "rows" else format
    if not accept.strip():
        return "json"
    ranges = [_range_of(part) for part in accept.split(",") if part.strip()]
    best = max(((_quality(media, ranges), -number, name) for number, (media, name) in enumerate(_ACCEPTED.items())), default=None)
    if best is None or best[0] <= 0:
        raise NotAcceptable(
            "accept.unsupported", f"No answer can be had as {accept[:200]}.", advice=f"There are: {', '.join(_ACCEPTED)}."
        )  # fmt: skip
    return best[2]


def _range_of(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
    return media, quality


def _quality(media: str, ranges: list[tuple[str, float]]) -> float:
    """The quality that the most specific range which has the type gives it."""
    for pattern in (media, media.partition("/")[0] + "/*", "*/*"):
        found = [quality for name, quality in ranges if name == pattern]
        if found:
            return max(found)
    return 0.0
