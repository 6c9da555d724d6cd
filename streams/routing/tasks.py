"""What a route has to do with a record, and what is told of it: deliveries, events, dead letters. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from streams import limits
from streams.bus.outgoing import Outgoing, avro_long, avro_text, partition_for
from streams.codec.avro import CONTENT_TYPE, Codec
from streams.log.ports import Stored
from streams.records import Json, Severity, SystemEvent, derived_id, iso, to_micros
from streams.routing.letters import Redriven
from streams.routing.plan import Ready, Rejected
from streams.routing.routes import ActiveRoute

SOURCE = "mplp/routes"
_ERROR_CHARACTERS_MAX = 1000
_STATUSES = {"delivered": 0, "failed": 1, "retrying": 2, "dead": 3}
_DOUBLE = struct.Struct("<d")


@dataclass(frozen=True, slots=True)
class Task:
    """A record that is a route's business. `raw` lies where the route reads; of what was put back that is `<topic>.retry`."""

    raw: Stored
    event_id: str
    correlation_id: str
    tenant: str
    depth: int
    outcome: Ready | Rejected
    redriven: Redriven | None = None

    @property
    def size(self) -> int:
        """About how much memory it takes, bytes: the payload is there twice, as it came and as it is read."""
        return 512 + 4 * len(self.raw.value or b"")

    @property
    def attempts(self) -> int:
        """Attempts that were made before it was put back."""
        return self.redriven.attempts if self.redriven is not None else 0

    @property
    def delivery_id(self) -> str:
        """The id of what arrives: the same in every attempt."""
        return self.outcome.event.id if isinstance(self.outcome, Ready) else ""


class DeliveryWriter:
    """Writes the `Delivery` records of a version of a route by hand: they come in masses. A test holds them against the codec's."""

    def __init__(self, codec: Codec, active: ActiveRoute, partitions: int) -> None:
        route = active.route
        self._route = route.id
        self._version = active.version
        self._partitions = partitions
        self._source = f"{SOURCE}/{route.id}".encode()
        self._frame = b"\x00" + codec.schema_id("Delivery").to_bytes(4, "big")
        self._about = avro_text(f"{SOURCE}/{route.id}") + avro_text(route.id)
        self._whither = avro_text(route.id) + avro_text(route.destination.shown[: limits.NAME_CHARACTERS_MAX])

    def write(self, task: Task, attempt: int, status: str, error: tuple[str, str] | None, latency_ms: float, at: datetime) -> Outgoing:
        """`error`: code and message. A repeat of the same news has the same id."""
        raw = task.raw
        kind = f"delivery.{status}"
        id = derived_id("delivery", self._route, raw.topic, raw.partition, raw.offset, attempt, status)
        data: dict[str, Json] = {
            "route_version": self._version, "topic": raw.topic, "partition": raw.partition, "offset": raw.offset,
            "delivery": task.delivery_id,
        }  # fmt: skip
        said = b"\x00"
        if error is not None:
            data["code"] = error[0]
            said = b"\x02" + avro_text(f"{error[0]}: {error[1]}"[:_ERROR_CHARACTERS_MAX])
        if task.redriven is not None:
            data["letter"] = task.redriven.letter
        cause = task.event_id
        value = b"".join(
            (
                self._frame, avro_text(id), avro_text(kind), self._about, avro_long(to_micros(at)), avro_text(task.tenant),
                avro_text(task.correlation_id), b"\x02" + avro_text(cause) if cause else b"\x00", avro_text(orjson.dumps(data).decode()),
                avro_text(cause), self._whither, avro_long(attempt), avro_long(_STATUSES[status]), said, _DOUBLE.pack(round(latency_ms, 3)),
            )
        )  # fmt: skip
        key = cause or id
        headers = [
            ("ce_specversion", b"1.0"), ("ce_id", id.encode()), ("ce_type", kind.encode()), ("ce_source", self._source),
            ("ce_time", iso(at).encode()), ("content-type", CONTENT_TYPE), ("ce_subject", self._route.encode()),
        ]  # fmt: skip
        return Outgoing(partition_for(key, self._partitions), key.encode(), value, headers)


def loop_event(active: ActiveRoute, task: Task, code: str, message: str, attempts: int, at: datetime) -> SystemEvent:
    """`route.loop-stopped`: what was stopped is told beside its letter, since nobody waits for it."""
    return _event(
        "route.loop-stopped", active.id, at, "warning", (active.id, task.raw.topic, task.raw.partition, task.raw.offset),
        {
            "route": active.id, "route_version": active.version, "event": task.event_id, "code": code,
            "message": message[:_ERROR_CHARACTERS_MAX], "attempts": attempts, "depth": task.depth,
        },
    )  # fmt: skip


def state_event(kind: str, route_id: str, place: str, severity: Severity, data: dict[str, Json], at: datetime) -> SystemEvent:
    """`route.fell-behind`, `route.caught-up`, `route.stopped`, `route.resumed`, `route.destination-down`, `route.destination-up`,
    `route.abandoned`: how a route does on one source partition."""
    return _event(kind, route_id, at, severity, (place, iso(at)), {"route": route_id, "place": place, **data})


def _event(kind: str, route_id: str, at: datetime, severity: Severity, identity: Sequence[object], data: Json) -> SystemEvent:
    return SystemEvent(
        id=derived_id(kind, route_id, *identity), type=kind, source=SOURCE, subject=route_id, time=at, correlation_id=route_id,
        severity=severity, data=data,
    )  # fmt: skip
