"""`Delivery` records, written by hand, since they come in masses. Pure. A test holds them against the codec's."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import orjson

from streams import limits
from streams.bus.mass_partitions import partitions_for
from streams.bus.outgoing import avro_long, avro_text, avro_time, partition_for
from streams.bus.rendering import VARINTS, Rendered, header, header_begin, sized
from streams.codec.avro import CONTENT_TYPE, Codec
from streams.masses import iso_of, numbered_ids
from streams.routing.routes import ActiveRoute
from streams.routing.seen import Seen
from streams.routing.tasks import SOURCE, Task

_ERROR_CHARACTERS_MAX = 1000
_STATUSES = {"delivered": 0, "failed": 1, "retrying": 2, "dead": 3}
_DOUBLE = struct.Struct("<d")
_ID_BYTES = 36
_ID_LENGTH = VARINTS[_ID_BYTES]
_HEADERS_BEGIN = VARINTS[7] + header("ce_specversion", b"1.0") + header_begin("ce_id", _ID_BYTES)
_NO_ERROR = b"\x00"


class DeliveryWriter:
    """Of one version of a route on one source partition. A repeat of the same news has the same id."""

    def __init__(self, codec: Codec, active: ActiveRoute, topic: str, partition: int, partitions: int) -> None:
        """`topic` and `partition` (name on the broker): where the route reads; `partitions`: of the topic of deliveries."""
        route = active.route
        self._route = route.id
        self._topic, self._partition = topic, partition
        self._partitions = partitions
        self._frame = b"\x00" + codec.schema_id("Delivery").to_bytes(4, "big") + _ID_LENGTH
        self._source = avro_text(f"{SOURCE}/{route.id}") + avro_text(route.id)
        self._destination = avro_text(route.id) + avro_text(route.destination.shown[: limits.NAME_CHARACTERS_MAX])
        self._place = b'{"route_version":%d,"topic":%s,"partition":%d,"offset":' % (active.version, orjson.dumps(topic), partition)
        self._ids: dict[tuple[int, str], Callable[[int], str]] = {}
        self._alike: dict[tuple[int, str, int], tuple[bytes, bytes, bytes]] = {}

    def write_delivered(self, tasks: Sequence[Task], now_ms: int, time_us: int) -> list[Rendered]:
        """As `write`, of many tasks that are delivered now: Unix time, and microseconds since the epoch."""
        self._tell_partitions(tasks)
        found: list[Rendered] = []
        place, frame, pack, sizes = self._place, self._frame, _DOUBLE.pack, VARINTS
        ids, (begin, middle, headers) = self._ids_of(1, "delivered"), self._of_moment(1, "delivered", time_us)
        middle += _NO_ERROR
        for task in tasks:
            seen = task.seen
            latency_ms = max(0.0, float(now_ms - seen.timestamp_ms))
            key, partition, story, cause = seen.told
            if task.redriven is not None or key is None:
                found.append(self.write(task, task.attempts + 1, "delivered", None, latency_ms, time_us))
                continue
            id = ids(seen.offset).encode()
            data = b'%s%d,"delivery":"%s"}' % (place, seen.offset, task.delivery_id.encode())
            value = b"".join((frame, id, begin, story, sizes[len(data)], data, cause, middle, pack(latency_ms)))
            found.append(Rendered(partition, b"".join((key, sizes[len(value)], value, _HEADERS_BEGIN, id, headers))))
        return found

    def _tell_partitions(self, tasks: Sequence[Task]) -> None:
        """What all deliveries of a record have alike, of many records."""
        fresh = [task.seen for task in tasks if task.seen.told is None]
        for seen, partition in zip(fresh, partitions_for([seen.id.encode() for seen in fresh], self._partitions), strict=True):
            seen.told = _told(seen, partition)

    def _ids_of(self, attempt: int, status: str) -> Callable[[int], str]:
        """All attempts of one kind are a sequence by their offsets; so the hash is taken once."""
        ids = self._ids.get((attempt, status))
        if ids is None:
            ids = self._ids[attempt, status] = numbered_ids("delivery", self._route, self._topic, self._partition, attempt, status)
        return ids

    def write(self, task: Task, attempt: int, status: str, error: tuple[str, str] | None, latency_ms: float, time_us: int) -> Rendered:
        """`error`: code and message; `latency_ms`: since the record arrived; `time_us`: now, microseconds since the epoch."""
        seen = task.seen
        id = self._ids_of(attempt, status)(seen.offset).encode()
        begin, middle, headers = self._alike.get((attempt, status, time_us)) or self._of_moment(attempt, status, time_us)
        told = seen.told
        if told is None:
            told = seen.told = _told(seen, partition_for(seen.id, self._partitions))
        key, partition, story, cause = told
        said, more = (_NO_ERROR, b"") if error is None else (_error(error), b',"code":' + orjson.dumps(error[0]))
        if task.redriven is not None:
            more += b',"letter":' + orjson.dumps(task.redriven.letter)
        data = b'%s%d,"delivery":"%s"%s}' % (self._place, seen.offset, task.delivery_id.encode(), more)
        value = b"".join(
            (
                self._frame, id, begin, story, VARINTS[len(data)], data, cause, middle, said, _DOUBLE.pack(round(latency_ms, 3)),
            )
        )  # fmt: skip
        if key is None:  # nobody could read whose it is
            key, partition = _ID_LENGTH + id, partition_for(id.decode(), self._partitions)
        return Rendered(partition, b"".join((key, VARINTS[len(value)], value, _HEADERS_BEGIN, id, headers)))

    def _of_moment(self, attempt: int, status: str, time_us: int) -> tuple[bytes, bytes, bytes]:
        """What all that is told of one moment has alike: before the story, behind the cause, and the headers behind the id."""
        kind = f"delivery.{status}"
        found = (
            avro_text(kind) + self._source + avro_time(time_us),
            self._destination + avro_long(attempt) + avro_long(_STATUSES[status]),
            b"".join(
                (
                    header("ce_type", kind.encode()), header("ce_source", f"{SOURCE}/{self._route}".encode()),
                    header("ce_time", iso_of(time_us).encode()), header("content-type", CONTENT_TYPE),
                    header("ce_subject", self._route.encode()),
                )
            ),
        )  # fmt: skip
        self._alike = {(attempt, status, time_us): found}
        return found


def _told(seen: Seen, partition: int) -> tuple[bytes | None, int, bytes, bytes]:
    """What all deliveries of a record have alike: key, partition, its tenant and story with the cause, and the cause."""
    cause = avro_text(seen.id)
    story = avro_text(seen.tenant) + avro_text(seen.story) + (b"\x02" + cause if seen.id else b"\x00")
    if not seen.id:
        return None, 0, story, cause
    return sized(seen.id.encode()), partition, story, cause


def _error(error: tuple[str, str]) -> bytes:
    return b"\x02" + avro_text(f"{error[0]}: {error[1]}"[:_ERROR_CHARACTERS_MAX])
