"""What topics get from routes, written by hand, since it comes in masses: what routes of one recipe write alike is written once. Pure.

A test holds it against `streams.bus.outgoing` and the codec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add, is_
from typing import NamedTuple

from streams import limits
from streams.bus.bodies import Bodies
from streams.bus.outgoing import DEFAULT_SOURCE, NOT_IN_A_LOG, SEVERITIES_WRITTEN, avro_text, avro_time, partition_for
from streams.bus.rendering import VARINTS, Rendered, header, header_begin, sized
from streams.causation import depth_headers
from streams.codec.avro import CONTENT_TYPE, Codec
from streams.errors import TooLarge
from streams.masses import iso_of, many_derived_ids
from streams.routing.recipes import Made
from streams.routing.tasks import Task
from streams.topics import ROUTED_HEADER

#: An id that derives: a UUID.
_ID_BYTES = 36
_ID_LENGTH = VARINTS[_ID_BYTES]
#: How headers begin: the version and the id, type, source, time, content type, the subject if there is one, depth, where it comes from.
_HEADERS = header("ce_specversion", b"1.0") + header_begin("ce_id", _ID_BYTES)
_WITHOUT_SUBJECT, _WITH_SUBJECT = VARINTS[8] + _HEADERS, VARINTS[9] + _HEADERS
_TIME = header_begin("ce_time", len(iso_of(0)))
_CONTENT_TYPE = header("content-type", CONTENT_TYPE)
_SUBJECT = sized(b"ce_subject")
#: Types and sources that a writer remembers.
_KINDS_MAX = 1000
_DIGITS_MAX = 20


class _Group(NamedTuple):
    """Events of a partition, without what their route says: of each where it stands among all, and what `EventWriter._alike` gives."""

    rows: list[int]
    offsets: list[int]
    digits: list[bytes]  #: of the offset
    befores: list[bytes]
    betweens: list[bytes]
    behinds: list[bytes]
    sizes: list[int]


class _Together(NamedTuple):
    """What many events are without what their route says. It lies at the first of them, and does not refer to it: that would be a cycle."""

    partitions: int
    others: Sequence[object]  #: all but the first
    originals: list[bytes]
    groups: Mapping[int, _Group]
    lasts: bool

    def is_of(self, made: Sequence[object], partitions: int) -> bool:
        """Whether it is what these are, the first of which has it."""
        return partitions == self.partitions and len(made) == len(self.originals) and all(map(is_, self.others, made[1:]))


class EventWriter:
    """Of one route on one source partition."""

    __slots__ = ("_frame", "_ids", "_kinds", "_offset_begins")

    def __init__(self, codec: Codec, route: str, place: str) -> None:
        """`place`: logical topic and partition, `topic/partition`."""
        self._frame = b"\x00" + codec.schema_id("SystemEvent").to_bytes(4, "big") + _ID_LENGTH
        self._kinds: dict[tuple[str, str, str, str, int], tuple[bytes, bytes, bytes, bytes, bytes]] = {}
        self._ids = many_derived_ids("route", route)  # as `Plan.id_of`
        routed = f"{route}/{place}/".encode()
        #: Digits of the offset → the header that it ends.
        self._offset_begins = [header_begin(ROUTED_HEADER, len(routed) + digits) + routed for digits in range(_DIGITS_MAX)]

    def write_all(self, tasks: Sequence[Task], partitions: int) -> dict[int, tuple[list[int], Bodies]]:
        """As `write`, of many tasks with something to deliver: by partition the offsets of what was read, and bodies.

        Raises `TooLarge` if one is. What does not depend on the route is there once for all who deliver the very same.
        """
        made = [task.outcome for task in tasks]
        first = made[0]
        assert type(first) is Made
        together: _Together | None = first.together
        if together is None or not together.is_of(made, partitions):
            originals = [each.original.encode() for each in made]  # type: ignore[union-attr]  # all are made
            ids = self._ids(originals)
            together = _Together(partitions, made[1:], originals, *self._groups(tasks, ids, partitions))
            first.together = together if together.lasts else None
        else:
            ids = self._ids(together.originals)
        for task, id in zip(tasks, ids, strict=True):
            task.id_written = id
        found: dict[int, tuple[list[int], Bodies]] = {}
        for partition, group in together.groups.items():
            own = [ids[row] for row in group.rows]
            begins = [self._offset_begins[digits] for digits in map(len, group.digits)]
            sizes = list(map(add, group.sizes, map(len, begins)))
            if max(sizes) > limits.TOPIC_MESSAGE_BYTES_MAX:
                raise _too_large(max(sizes))
            columns = [group.befores, own, group.betweens, own, group.behinds, begins, group.digits]
            found[partition] = group.offsets, Bodies(sizes, columns)
        return found

    def _groups(self, tasks: Sequence[Task], ids: Sequence[bytes], partitions: int) -> tuple[dict[int, _Group], bool]:
        """What is written of each, by partition; and whether all of it is the same for other routes."""
        groups: dict[int, _Group] = {}
        lasts = True
        for row, (task, id) in enumerate(zip(tasks, ids, strict=True)):
            made, offset = task.outcome, task.seen.offset
            assert type(made) is Made
            key, before, between, behind = self._written(task, made, id)
            if not key:
                key, before, lasts = id.decode(), _ID_LENGTH + id + before, False
            partition = partition_for(key, partitions)
            group = groups.get(partition)
            if group is None:
                group = groups[partition] = _Group([], [], [], [], [], [], [])
            digits = b"%d" % offset
            group.rows.append(row)
            group.offsets.append(offset)
            group.befores.append(before)
            group.betweens.append(between)
            group.behinds.append(behind)
            group.digits.append(digits)
            group.sizes.append(len(before) + len(between) + len(behind) + len(digits) + 2 * _ID_BYTES)
            lasts = lasts and made.written is not None
        return groups, lasts

    def write(self, task: Task, made: Made, partitions: int) -> Rendered:
        """The event for a topic of so many partitions. Raises `TooLarge` (`payload.too-large`): it is more than a topic takes."""
        text = task.delivery_id
        id = text.encode()
        key, before, between, behind = self._written(task, made, id)
        offset = b"%d" % task.seen.offset
        if key:
            body = b"".join((before, id, between, id, behind, self._offset_begins[len(offset)], offset))
        else:
            body = b"".join((_ID_LENGTH, id, before, id, between, id, behind, self._offset_begins[len(offset)], offset))
        if len(body) > limits.TOPIC_MESSAGE_BYTES_MAX:
            raise _too_large(len(body))
        return Rendered(partition_for(key or text, partitions), body)

    def _written(self, task: Task, made: Made, id: bytes) -> tuple[str, bytes, bytes, bytes]:
        """See `_alike`; remembered, unless it is a story of its own."""
        written: tuple[str, bytes, bytes, bytes] | None = made.written
        if written is None:
            written = self._alike(made, task.seen.depth, made.correlation_id or id.decode())
            if made.correlation_id:
                made.written = written
        return written

    def _alike(self, made: Made, depth: int, story: str) -> tuple[str, bytes, bytes, bytes]:
        """The key if it is not the id, and what stands before the first id (behind that of the key), between and behind the two others."""
        kind = (made.type, made.source, made.tenant, made.severity, depth)
        source, tenant, rest, headers, deeper = self._kinds.get(kind) or self._of_kind(*kind)
        subject = made.subject.encode()
        value = b"".join(
            (
                source, sized(subject), avro_time(made.time_us), tenant, sized(story.encode()),
                b"\x02" + sized(made.original.encode()) if made.original else b"\x00", sized(made.text), rest,
            )
        )  # fmt: skip
        before = VARINTS[len(self._frame) + _ID_BYTES + len(value)] + self._frame
        time = iso_of(made.time_us).encode()
        if not subject:
            return "", before, value + _WITHOUT_SUBJECT, b"".join((headers, time, _CONTENT_TYPE, deeper))
        behind = b"".join((headers, time, _CONTENT_TYPE, _SUBJECT, VARINTS[len(subject)], subject, deeper))
        return made.subject, sized(subject) + before, value + _WITH_SUBJECT, behind

    def _of_kind(self, type: str, source: str, tenant: str, severity: str, depth: int) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """What events of a type and source have alike: both as the value begins, the tenant, what is behind the payload, and headers."""
        kind, origin = type.encode(), (source or DEFAULT_SOURCE).encode()
        found = (
            sized(kind) + sized(origin), avro_text(tenant), SEVERITIES_WRITTEN[severity] + NOT_IN_A_LOG,
            header("ce_type", kind) + header("ce_source", origin) + _TIME,
            b"".join(header(name, content) for name, content in depth_headers(depth + 1)),
        )  # fmt: skip
        if len(self._kinds) >= _KINDS_MAX:
            self._kinds.clear()
        self._kinds[type, source, tenant, severity, depth] = found
        return found


def _too_large(size: int) -> TooLarge:
    return TooLarge("payload.too-large", f"The event has {size:,} bytes.", pointer="/data")
