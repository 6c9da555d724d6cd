"""What topics get from routes, written by hand, since it comes in masses: what routes of one recipe write alike is written once. Pure.

A test holds it against `streams.bus.outgoing` and the codec.
"""

from __future__ import annotations

from collections.abc import Sequence

from streams import limits
from streams.bus.outgoing import DEFAULT_SOURCE, NOT_IN_A_LOG, SEVERITIES_WRITTEN, avro_text, avro_time, partition_for
from streams.bus.rendering import VARINTS, Rendered, header, header_begin, sized
from streams.causation import depth_headers
from streams.codec.avro import CONTENT_TYPE, Codec
from streams.errors import TooLarge
from streams.masses import iso_of
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


class EventWriter:
    """Of one route on one source partition."""

    __slots__ = ("_frame", "_kinds", "_offset_begins")

    def __init__(self, codec: Codec, route: str, place: str) -> None:
        """`place`: logical topic and partition, `topic/partition`."""
        self._frame = b"\x00" + codec.schema_id("SystemEvent").to_bytes(4, "big") + _ID_LENGTH
        self._kinds: dict[tuple[str, str, str, str, int], tuple[bytes, bytes, bytes, bytes, bytes]] = {}
        routed = f"{route}/{place}/".encode()
        #: Digits of the offset → the header that it ends.
        self._offset_begins = [header_begin(ROUTED_HEADER, len(routed) + digits) + routed for digits in range(_DIGITS_MAX)]

    def write_all(self, tasks: Sequence[Task], partitions: int) -> dict[int, list[tuple[int, bytes]]]:
        """As `write`, of many tasks with something to deliver: by partition the offsets of what was read, and bodies.

        Raises `TooLarge` if one is.
        """
        found: dict[int, list[tuple[int, bytes]]] = {}
        begins, most = self._offset_begins, limits.TOPIC_MESSAGE_BYTES_MAX
        for task in tasks:
            made = task.outcome
            assert type(made) is Made
            written = made.written
            if written is None or not written[0]:
                partition, body = self.write(task, made, partitions)
            else:
                key, before, between, behind = written
                number = task.seen.offset
                id, offset = task.delivery_id.encode(), b"%d" % number
                body = b"".join((before, id, between, id, behind, begins[len(offset)], offset))
                if len(body) > most:
                    raise _too_large(body)
                partition = partition_for(key, partitions)
            there = found.get(partition)
            if there is None:
                there = found[partition] = []
            there.append((task.seen.offset, body))
        return found

    def write(self, task: Task, made: Made, partitions: int) -> Rendered:
        """The event for a topic of so many partitions. Raises `TooLarge` (`payload.too-large`): it is more than a topic takes."""
        text = task.delivery_id
        id = text.encode()
        written = made.written
        if written is None:
            written = self._alike(made, task.seen.depth, made.correlation_id or text)
            if made.correlation_id:
                made.written = written
        key, before, between, behind = written
        offset = b"%d" % task.seen.offset
        if key:
            body = b"".join((before, id, between, id, behind, self._offset_begins[len(offset)], offset))
        else:
            body = b"".join((_ID_LENGTH, id, before, id, between, id, behind, self._offset_begins[len(offset)], offset))
        if len(body) > limits.TOPIC_MESSAGE_BYTES_MAX:
            raise _too_large(body)
        return Rendered(partition_for(key or text, partitions), body)

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


def _too_large(body: bytes) -> TooLarge:
    return TooLarge("payload.too-large", f"The event has {len(body):,} bytes.", pointer="/data")
