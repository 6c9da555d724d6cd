"""`Delivery` records, written by hand, since they come in masses. Pure. A test holds them against the codec's."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from operator import is_
from typing import NamedTuple

import orjson

from streams import limits
from streams.bus.bodies import Bodies, bodies_of
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
_DELIVERY, _DATA_END = b',"delivery":"', b'"}'
#: Of an id of a sequence, what tells the number (`numbered_ids`).
_NUMBER_BYTES = 12


class _Group(NamedTuple):
    """What deliveries of records say whatever the route; those that go to one partition."""

    rows: list[int]  #: where each stands among all
    keys: list[bytes]
    stories: list[bytes]
    causes: list[bytes]  #: behind the end of the payload
    sizes: list[int]  #: of these two
    digits: list[bytes]  #: of the offset
    numbers: list[bytes]  #: the offset as ids end with it
    arrived_ms: list[int]


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

    def write_delivered(self, tasks: Sequence[Task], now_ms: int, time_us: int) -> dict[int, Bodies]:
        """As `write`, of many tasks that are delivered now (Unix time, and microseconds since the epoch), by partition."""
        delivered = [task.id_written or b"" for task in tasks]
        if not all(delivered) or any(task.redriven is not None or not task.seen.id for task in tasks):
            return self._write_each(tasks, now_ms, time_us)
        begin, middle, headers = self._of_moment(1, "delivered", time_us)
        id_begin = self._ids_of(1, "delivered")(0)[:-_NUMBER_BYTES].encode()
        frame, last = self._frame + id_begin, _HEADERS_BEGIN + id_begin
        # Bytes of the payload and of the value, but for what differs from record to record, and what is behind the value.
        in_data = len(self._place) + len(_DELIVERY) + _ID_BYTES + len(_DATA_END)
        in_value = len(frame) + _NUMBER_BYTES + len(begin) - len(_DATA_END) + len(middle) + len(_NO_ERROR) + _DOUBLE.size
        behind_value = len(last) + _NUMBER_BYTES + len(headers)
        found: dict[int, Bodies] = {}
        for partition, group in self._together(tasks).items():
            count = len(group.rows)
            data_sizes = [in_data + len(digits) for digits in group.digits]
            data_begins = [VARINTS[size] for size in data_sizes]
            value_sizes = list(map(sum, zip(repeat(in_value), group.sizes, data_sizes, map(len, data_begins))))
            value_begins = [VARINTS[size] for size in value_sizes]
            sizes = list(map(sum, zip(repeat(behind_value), map(len, group.keys), value_sizes, map(len, value_begins))))
            columns: list[list[bytes]] = [
                group.keys, value_begins, [frame] * count, group.numbers, [begin] * count, group.stories, data_begins,
                [self._place] * count, group.digits, [_DELIVERY] * count, [delivered[row] for row in group.rows], group.causes,
                [middle + _NO_ERROR] * count, [_DOUBLE.pack(max(0.0, now_ms - arrived_ms)) for arrived_ms in group.arrived_ms],
                [last] * count, group.numbers, [headers] * count,
            ]  # fmt: skip
            found[partition] = Bodies(sizes, columns)
        return found

    def _write_each(self, tasks: Sequence[Task], now_ms: int, time_us: int) -> dict[int, Bodies]:
        self._tell_partitions(tasks)
        found: dict[int, list[bytes]] = {}
        for task in tasks:
            latency_ms = max(0.0, float(now_ms - task.seen.timestamp_ms))
            partition, body = self.write(task, task.attempts + 1, "delivered", None, latency_ms, time_us)
            found.setdefault(partition, []).append(body)
        return {partition: bodies_of(bodies) for partition, bodies in found.items()}

    def _together(self, tasks: Sequence[Task]) -> Mapping[int, _Group]:
        """What all deliveries of these records have alike, by partition; it lies at the first record, for the next route that has them."""
        first, others = tasks[0].seen, [task.seen for task in tasks[1:]]
        known: tuple[Sequence[Seen], Mapping[int, _Group]] | None = first.together
        if known is not None and len(known[0]) == len(others) and all(map(is_, known[0], others)):
            return known[1]
        self._tell_partitions(tasks)
        groups: dict[int, _Group] = {}
        for row, task in enumerate(tasks):
            seen = task.seen
            key, partition, story, cause = seen.told
            group = groups.get(partition)
            if group is None:
                group = groups[partition] = _Group([], [], [], [], [], [], [], [])
            group.rows.append(row)
            group.keys.append(key)
            group.stories.append(story)
            group.causes.append(_DATA_END + cause)
            group.sizes.append(len(story) + len(_DATA_END) + len(cause))
            group.digits.append(b"%d" % seen.offset)
            group.numbers.append(b"%012x" % seen.offset)
            group.arrived_ms.append(seen.timestamp_ms)
        first.together = others, groups
        return groups

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
