"""What may enter: events given as JSON, mappings or records, checked whole before anything is sent. Pure, but for
the id and the time that an event gets which came without.

Every fault has a code and a JSON pointer into what was given:

====================  ======================================================================================
`json.invalid`        not JSON (also invalid UTF-8, `NaN`, `Infinity`, a lone surrogate)
`event.not-object`    JSON, but no object
`field.unknown`       a field that a `SystemEvent` does not have
`field.missing`       no `type`
`field.invalid`       a wrong type, an empty or too long text, control characters, a value JSON does not have
`time.invalid`        no RFC 3339 time with an offset, or outside the years that the history can hold
`number.invalid`      a number that is not finite or an integer beyond 64 bits
`payload.too-deep`    `data` nests deeper than `limits.PAYLOAD_DEPTH_MAX`
`payload.too-large`   `data` is larger than `limits.PAYLOAD_BYTES_MAX` (raised as `TooLarge`)
====================  ======================================================================================
"""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from streams import limits
from streams.errors import InvalidInput, TooLarge
from streams.records import Json, Record, Severity, SystemEvent, derived_id, new_id, now, to_micros

SEVERITIES = frozenset(typing.get_args(Severity))
#: Fields that only the owner of a log writes; null is accepted, so that what was read can be sent again.
LOG_FIELDS = frozenset({"aggregate_id", "sequence", "epoch", "input"})
FIELDS = frozenset(field.name for field in fields(SystemEvent))

#: Times that ClickHouse's DateTime64 holds: others would be records that the history cannot keep.
TIME_MIN = datetime(1900, 1, 1, tzinfo=UTC)
TIME_MAX = datetime(2299, 12, 31, 23, 59, 59, tzinfo=UTC)
_TIME_MIN_US, _TIME_MAX_US = to_micros(TIME_MIN), to_micros(TIME_MAX)

#: Longest line that is parsed at all: a payload written as escapes (`\\u00e9`) is up to six times as long as its bytes.
LINE_BYTES_MAX = 6 * limits.PAYLOAD_BYTES_MAX + 64 * 1024

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Every digit becomes a 0: so a long number is found without a regular expression.
_DIGITS = bytes(ord("0") if chr(code) in "0123456789" else ord(" ") for code in range(256))
_LONG_NUMBER = b"0" * 19
#: Times and dataclasses would be written as something else than what they are.
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

_TEXT_LIMITS = {
    "id": limits.ID_CHARACTERS_MAX,
    "type": limits.NAME_CHARACTERS_MAX,
    "source": limits.NAME_CHARACTERS_MAX,
    "subject": limits.NAME_CHARACTERS_MAX,
    "tenant": limits.ID_CHARACTERS_MAX,
    "correlation_id": limits.NAME_CHARACTERS_MAX,
    "causation_id": limits.ID_CHARACTERS_MAX,
}
#: All texts of an event together are mostly shorter than the shortest limit of one.
_SHORT = min(_TEXT_LIMITS.values())
_NEVER_EMPTY = frozenset({"id", "type", "tenant", "causation_id"})


class EventFields(NamedTuple):
    """A system event that has been checked, as fields: what comes in masses need not become an object first."""

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    tenant: str
    correlation_id: str
    causation_id: str | None
    data: Json
    severity: str
    text: bytes  #: `data` as JSON
    given_id: str | None = None  #: the id that the sender gave, if it is no UUID and another derives from it


def parse_event(given: bytes | str | Mapping[str, Any]) -> SystemEvent:
    """The event that a line of NDJSON or a mapping describes; at least `type` must be there, the rest has defaults.

    Raises `InvalidInput` and `TooLarge` with the codes above; never anything else.
    """
    fields = parse_fields(given)
    return SystemEvent(
        id=fields.given_id or fields.id,  # what derives from it, derives when it is published
        type=fields.type,
        source=fields.source,
        subject=fields.subject,
        time=fields.time,
        tenant=fields.tenant,
        correlation_id=fields.correlation_id,
        causation_id=fields.causation_id,
        data=fields.data,
        severity=fields.severity,  # type: ignore[arg-type]  # checked
    )


def parse_fields(given: bytes | str | Mapping[str, Any]) -> EventFields:
    """As `parse_event`, without making the object."""
    values = given if isinstance(given, Mapping) else _parse_json(given)
    if not FIELDS.issuperset(values):
        unknown = next(name for name in values if name not in FIELDS)
        raise InvalidInput("field.unknown", f"A system event has no field {_shown(unknown)}.", pointer=pointer("", unknown))
    if "type" not in values:
        raise InvalidInput("field.missing", "An event needs a `type`.", pointer="")
    if not LOG_FIELDS.isdisjoint(values):
        for name in LOG_FIELDS.intersection(values):
            if values[name] is not None:
                raise InvalidInput("field.invalid", f"{name} is written by the owner of a log only.", pointer=f"/{name}")
    get = values.get
    return _with_uuid(
        values["id"] if "id" in values else new_id(),
        values["type"],
        get("source", ""),
        get("subject", ""),
        _time(values["time"]) if "time" in values else now(),
        get("tenant", "default"),
        get("correlation_id", ""),
        get("causation_id"),
        get("data", {}),
        get("severity", "info"),
    )


def fields_of(event: SystemEvent) -> EventFields:
    """The fields of an event outside a log, checked."""
    return _with_uuid(
        event.id, event.type, event.source, event.subject, event.time, event.tenant, event.correlation_id, event.causation_id, event.data,
        event.severity,
    )  # fmt: skip


def check_record(record: Record) -> None:
    """Refuses a record of any kind whose shared fields or payload are malformed; what is its own the codec checks."""
    _checked(
        record.id, record.type, record.source, record.subject, record.time, record.tenant, record.correlation_id, record.causation_id,
        record.data, getattr(record, "severity", "info"),
    )  # fmt: skip


def event_id(given: str, source: str) -> str:
    """The id of the event that its source calls `given`: a UUID in lower case; of any other text the one that derives from both.

    Ids of CloudEvents are any texts, unique together with their source; ours are UUIDs. So whoever sends an event twice under his own id
    sends one event, whatever he calls it.
    """
    lower = given.lower()
    return lower if _UUID.fullmatch(lower) else derived_id("event", len(source), source, given)


def _with_uuid(*values: Any) -> EventFields:
    """As `_checked`, under the event's own id."""
    fields = _checked(*values)
    id = event_id(fields.id, fields.source)
    return fields if id == fields.id else fields._replace(id=id, given_id=None if id == fields.id.lower() else fields.id)


def _checked(
    id: Any, type: Any, source: Any, subject: Any, time: Any, tenant: Any, correlation_id: Any, causation_id: Any, data: Json, severity: Any
) -> EventFields:
    """Refuses fields of a wrong type, too long, or with control characters (they become headers), and a bad payload."""
    check_texts(id, type, source, subject, tenant, correlation_id, causation_id)
    check_severity(severity)
    check_time(time)
    return EventFields(id, type, source, subject, time, tenant, correlation_id, causation_id, data, severity, check_payload(data))


def check_texts(id: Any, type: Any, source: Any, subject: Any, tenant: Any, correlation_id: Any, causation_id: Any) -> None:
    """Refuses texts of a wrong type, too long, empty where they must not be, or with control characters."""
    texts = (id, type, source, subject, tenant, correlation_id, "-" if causation_id is None else causation_id)
    try:
        together = "".join(texts)
    except TypeError:
        together = "\n"  # not all are texts: say which
    # Short and printable all together is the rule, and cheap to see; only an exception is looked at field by field.
    if len(together) > _SHORT or not (id and type and tenant and causation_id != "") or not (together.isascii() and together.isprintable()):
        for (name, most), value in zip(_TEXT_LIMITS.items(), (*texts[:-1], causation_id), strict=True):
            _check_text(name, value, most)


def check_severity(severity: Any) -> None:
    """Refuses what is no severity."""
    if not isinstance(severity, str) or severity not in SEVERITIES:
        raise InvalidInput("field.invalid", "severity must be one of debug, info, warning, error, critical.", pointer="/severity")


def _check_text(name: str, value: Any, most: int) -> None:
    if value is None and name == "causation_id":
        return
    if not isinstance(value, str):
        raise InvalidInput("field.invalid", f"{name} must be a text, not {_kind(value)}.", pointer=f"/{name}")
    if len(value) > most:
        raise InvalidInput("field.invalid", f"{name} has more than {most} characters.", pointer=f"/{name}")
    if not value and name in _NEVER_EMPTY:
        raise InvalidInput("field.invalid", f"{name} must not be empty.", pointer=f"/{name}")
    if _CONTROL.search(value):
        raise InvalidInput("field.invalid", f"{name} has control characters.", pointer=f"/{name}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("field.invalid", f"{name} is no valid Unicode: {error.reason}", pointer=f"/{name}") from error


def check_time(time: Any) -> None:
    """Refuses what is no time, and a time that the history cannot hold."""
    if not isinstance(time, datetime):
        raise InvalidInput("time.invalid", f"time must be a datetime, not {_kind(time)}.", pointer="/time")
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    if not TIME_MIN <= aware <= TIME_MAX:
        raise _outside_history()


def check_micros(time_us: int) -> None:
    """As `check_time`, given microseconds since the epoch."""
    if not _TIME_MIN_US <= time_us <= _TIME_MAX_US:
        raise _outside_history()


def _outside_history() -> InvalidInput:
    return InvalidInput("time.invalid", "time must lie between the years 1900 and 2299.", pointer="/time")


def check_payload(data: Json) -> bytes:
    """The payload as JSON text. Refuses what is not JSON, not finite, too deep or too large: faults as above, pointers from `/data`."""
    try:
        text = orjson.dumps(data, option=_STRICT)
    except TypeError as error:
        _check_value(data)  # says where
        raise InvalidInput("field.invalid", f"data is no JSON: {error}", pointer="/data") from error
    if len(text) > limits.PAYLOAD_BYTES_MAX:
        raise TooLarge(
            "payload.too-large", f"data has {len(text):,} bytes of JSON; {limits.PAYLOAD_BYTES_MAX:,} are allowed.", pointer="/data"
        )
    # NaN is written as null, and what nests deeply has many brackets: quick tests that never miss; only then the value is walked.
    if b"null" in text or text.count(b"[") + text.count(b"{") > limits.PAYLOAD_DEPTH_MAX:
        _check_value(data)
    return text


def pointer(base: str, *parts: object) -> str:
    """A JSON pointer: `base` and its parts, escaped."""
    return base + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _parse_json(text: bytes | str) -> Mapping[str, Any]:
    if not isinstance(text, (bytes, str)):
        raise InvalidInput("event.not-object", f"An event is an object, not {_kind(text)}.", pointer="")
    if len(text) > LINE_BYTES_MAX:
        raise TooLarge(
            "payload.too-large", f"The event has {len(text):,} bytes; its data may have {limits.PAYLOAD_BYTES_MAX:,}.", pointer="/data"
        )
    try:
        document = orjson.loads(text)
    except ValueError as error:
        raise InvalidInput("json.invalid", f"This is not JSON: {error}", pointer="") from error
    if not isinstance(document, dict):
        raise InvalidInput("event.not-object", f"An event is a JSON object, not {_kind(document)}.", pointer="")
    raw = text if isinstance(text, bytes) else text.encode()
    if _LONG_NUMBER in raw.translate(_DIGITS) and "data" in document:
        _refuse_rounded_integers(document["data"], raw)
    return document


def _refuse_rounded_integers(data: Json, raw: bytes) -> None:
    """orjson reads an integer beyond 64 bits as a rounded double. The standard parser does not, so its reading tells."""
    _check_value(data)  # its depth first: the standard parser recurses
    exact = json.loads(raw)  # cannot fail: a number of more digits than Python converts would have been infinite
    _check_value(exact["data"])


def _check_value(data: Json) -> None:
    """Walks the payload without recursion and names the place of what JSON has not."""
    pending: list[tuple[Any, int, tuple[object, ...]]] = [(data, 1, ())]
    while pending:
        value, depth, path = pending.pop()
        if not isinstance(value, (dict, list, tuple)):
            _check_scalar(value, path)
            continue
        if depth > limits.PAYLOAD_DEPTH_MAX:
            raise InvalidInput("payload.too-deep", f"data nests deeper than {limits.PAYLOAD_DEPTH_MAX} levels.", pointer="/data")
        if isinstance(value, dict):
            for key in value:
                if type(key) is not str:
                    raise InvalidInput("field.invalid", f"A key is {_kind(key)}, not a text.", pointer=pointer("/data", *path))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        pending.extend((item, depth + 1, (*path, key)) for key, item in items)


def _check_scalar(value: Any, path: tuple[object, ...]) -> None:
    kind = type(value)
    if kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise InvalidInput("number.invalid", "An integer has more than 64 bits.", pointer=pointer("/data", *path))
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidInput("number.invalid", f"JSON has no {value}.", pointer=pointer("/data", *path))
    elif kind is str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput("field.invalid", "A text is no valid Unicode.", pointer=pointer("/data", *path)) from error
    elif kind is not bool and value is not None:
        raise InvalidInput("field.invalid", f"JSON has no {kind.__name__}.", pointer=pointer("/data", *path))


def _time(value: Any, name: str = "time") -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and len(value) <= 64 and _TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # a 31st of February, or a year before 1 after the offset: refused below
    raise InvalidInput("time.invalid", f"{name} must be RFC 3339 with an offset, as 2026-01-31T12:00:00.5Z.", pointer=f"/{name}")


def parse_time(text: str, name: str = "time") -> datetime:
    """The instant of an RFC 3339 text. `name`: of the field that has it. Raises `InvalidInput` (`time.invalid`)."""
    return _time(text, name)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    names: Mapping[type, str] = {dict: "an object", list: "an array", str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def _shown(name: object) -> str:
    text = str(name)
    return (text if len(text) <= 60 else text[:60] + "…").encode("unicode_escape").decode()
