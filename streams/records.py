"""The records that travel: one frozen dataclass per schema in `schemas/avro`, in the same field order (a test compares them).

In Python `data` is the parsed payload and times are aware datetimes (UTC, microseconds); on the wire `data` is JSON text
and times are microseconds since the epoch (`streams.codec`). Hot paths read records as plain dicts instead
(`Codec.decode_raw`).
"""

from __future__ import annotations

import hashlib
import os
import time as _time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any  #: a JSON value: None, bool, int, float, str, list, dict with text keys

Severity: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
ExecutionStatus: TypeAlias = Literal["pending", "running", "paused", "completed", "failed", "cancelled", "timed_out"]
CommandName: TypeAlias = Literal["start", "pause", "resume", "cancel", "signal", "answer", "retry", "fork"]
MessageKind: TypeAlias = Literal["request", "response", "notification", "broadcast"]
ControlKind: TypeAlias = Literal["rule", "route", "workflow"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Namespace of all derived ids (UUIDv5).
ID_NAMESPACE = uuid.UUID("6d706c70-0000-5000-8000-6261636b626e")
_NAMESPACE = ID_NAMESPACE.bytes


def from_micros(time_us: int) -> datetime:
    """The instant `time_us` microseconds after the epoch, UTC."""
    return EPOCH + timedelta(microseconds=time_us)


def to_micros(time: datetime) -> int:
    """Microseconds since the epoch; a time without zone is taken as UTC."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - EPOCH) // _MICROSECOND


#: The first and the last instant that a time can be, microseconds since the epoch.
FIRST_US = to_micros(datetime.min)
LAST_US = to_micros(datetime.max)


def now() -> datetime:
    """The wall clock. Only shells and adapters may call it."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh id that sorts by time (UUIDv7). Only shells and adapters may call it: decided ids are derived."""
    milliseconds = _time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64 | 0b10 << 62 | random & 0x3FFFFFFFFFFFFFFF
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def derived_id(*parts: object) -> str:
    """The id that derives from `parts` (UUIDv5 over their texts joined by "/")."""
    # As uuid.uuid5, without the object in between: ids are made for every record.
    name = _NAMESPACE + "/".join(map(str, parts)).encode()
    raw = bytearray(hashlib.sha1(name, usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50
    raw[8] = raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def iso(time: datetime) -> str:
    """RFC 3339 with microseconds and `Z`."""
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    return time.isoformat(timespec="microseconds")[:-6] + "Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPosition:
    """The place in a topic of the record that caused another."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What all records have first. Times are aware datetimes, `data` is a JSON value."""

    id: str = field(default_factory=new_id)
    type: str
    source: str = ""
    subject: str = ""
    time: datetime = field(default_factory=now)
    tenant: str = "default"
    correlation_id: str = ""
    causation_id: str | None = None
    data: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTransition(Record):
    """One step in the life of a workflow execution; the orchestrator's log."""

    execution_id: str
    workflow_id: str
    workflow_version: str = ""
    step_id: str | None = None
    attempt: int = 0
    status: ExecutionStatus = "pending"
    aggregate_id: str | None = None
    sequence: int | None = None
    epoch: int | None = None
    input: InputPosition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCommand(Record):
    """A wish addressed to an execution."""

    execution_id: str
    command: CommandName


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageError:
    """Why a request failed."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleMessage(Record):
    """A request to a module, its response, a notification or a broadcast."""

    kind: MessageKind
    source_module: str
    target_module: str | None = None
    operation: str
    execution_id: str | None = None
    step_id: str | None = None
    attempt: int = 0
    reply_to: str | None = None
    deadline: datetime | None = None
    status: Literal["success", "error"] | None = None
    error: MessageError | None = None
    aggregate_id: str | None = None
    sequence: int | None = None
    epoch: int | None = None
    input: InputPosition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemEvent(Record):
    """Anything that happened in a system that produces events."""

    severity: Severity = "info"
    aggregate_id: str | None = None
    sequence: int | None = None
    epoch: int | None = None
    input: InputPosition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """Something worth knowing about the records of a composite."""

    type: Literal["pattern", "anomaly", "performance"]
    summary: str
    data: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeEvent(Record):
    """What a correlation rule found."""

    rule_id: str
    rule_version: int = 0
    correlation_type: str
    group_key: Mapping[str, str] = field(default_factory=dict)
    window_start: datetime
    window_end: datetime
    event_ids: tuple[str, ...] = ()
    event_count: int = 0
    confidence: float = 1.0
    severity: Severity = "info"
    insights: tuple[Insight, ...] = ()
    explanation: str = ""
    revision: int = 0
    retracted: bool = False
    suppressed_count: int = 0
    aggregate_id: str | None = None
    sequence: int | None = None
    epoch: int | None = None
    input: InputPosition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence(Record):
    """A claim of a log partition. `offset` is null in the log itself, set in the index of fences (snapshots topic)."""

    log: str
    partition: int
    epoch: int
    owner: str
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position(Record):
    """An owner's positions (highest offsets handled) that moved without an event."""

    log: str
    partition: int
    epoch: int
    positions: tuple[InputPosition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Record):
    """State of an aggregate, or a checkpoint of a partition: the fold of the log before `offset`."""

    aggregate_id: str
    log: str
    partition: int
    offset: int
    epoch: int
    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRecord(Record):
    """A rule, route or workflow definition. `id` is its id (workflows also `id@hash`), not a UUID; `content` is JSON text."""

    kind: ControlKind
    version: int = 0
    content: str = "{}"
    who: str = ""
    why: str = ""
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Record):
    """One attempt to deliver an event by a route."""

    event_id: str
    route_id: str
    destination: str
    attempt: int = 1
    status: Literal["delivered", "failed", "retrying", "dead"]
    error: str | None = None
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Match(Record):
    """A record that satisfied a rule's matchers; the first fields are the record's own."""

    rule_id: str
    rule_version: int
    names: tuple[str, ...]
    group_key: str
    topic: str
    partition: int
    offset: int
    ordinal: int = 0
    timestamp: datetime
    truncated: bool = False
    fields: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchBatch(Record):
    """Matches of one source partition for one partition of matches; `data` has them as rows (`streams.correlation.rows`)."""

    topic: str
    partition: int
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionMark:
    """Clock of one source partition: greatest event time used, next offset, and whether it is read to its end."""

    topic: str
    partition: int
    time: datetime
    offset: int
    idle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark(Record):
    """How far a worker's match stage has read its source partitions."""

    worker: str
    level: int = 0
    marks: tuple[PartitionMark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange(Record):
    """From this source position on a version of a rule is used."""

    rule_id: str
    rule_version: int
    topic: str
    partition: int
    offset: int
    content: str = "{}"
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Record):
    """A decision of the sink: the offsets [first_offset, end_offset) of a partition are one insert."""

    topic: str
    partition: int
    first_offset: int
    end_offset: int
    epoch: int
    reader_epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inserted(Record):
    """A block is in ClickHouse."""

    topic: str
    partition: int
    first_offset: int
    end_offset: int
    epoch: int
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Record):
    """A process is alive."""

    process: str
    host: str
    control_offsets: Mapping[str, int] = field(default_factory=dict)
    partitions: tuple[str, ...] = ()


#: Records that lie in a log and carry aggregate, sequence, epoch and input.
LogEvent: TypeAlias = WorkflowTransition | ModuleMessage | SystemEvent | CompositeEvent

#: Every record class by its schema name (`schemas/avro/<name>.avsc`).
RECORDS: Mapping[str, type[Record]] = {
    cls.__name__: cls
    for cls in (
        WorkflowTransition, WorkflowCommand, ModuleMessage, SystemEvent, CompositeEvent, Fence, Position, Snapshot, ControlRecord,
        Delivery, Match, MatchBatch, Watermark, RuleChange, Block, Inserted, Heartbeat,
    )
}  # fmt: skip
