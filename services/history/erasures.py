"""Erasures: whose payloads were taken out of the history, and at which offsets. Pure.

An erasure names *places*: what a subject's records were is found out once, when it is asked for. So whoever reads the topics again
(a rebuild, a verification, a sink with empty tables) needs no rule and no payload to know which rows stay empty, and all do the same.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.history.blocks import Span
from services.history.erase_rows import erased
from services.history.rows import Raw, Rows, SeenIds, Source, build_rows
from services.history.verify_sums import Range
from streams.codec.avro import Codec
from streams.errors import Defect
from streams.records import SystemEvent, derived_id
from streams.topics import TopicNames

#: Type of the records that name the places.
ERASED = "history.payloads.erased"
#: Places in one record: some 8 bytes each.
PLACES_PER_RECORD = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Offsets of one partition (topic by its logical name) that lost their payloads.

    `until_ms`: no record with a later Kafka timestamp is meant, so that a topic that is made anew under its name loses nothing.
    """

    topic: str
    partition: int
    offsets: tuple[int, ...]  #: ascending
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One erasure: who wanted it, why, and what it reached."""

    id: str
    subject: str
    who: str
    why: str
    time: datetime
    places: tuple[Places, ...]

    @property
    def rows(self) -> int:
        """How many rows lost their payloads."""
        return sum(len(each.offsets) for each in self.places)


def records_of(erasure: Erasure) -> list[SystemEvent]:
    """The records that keep an erasure for ever; it counts when all of them are there."""
    parts = list(portions(erasure.places, PLACES_PER_RECORD))
    return [
        SystemEvent(
            id=derived_id("erasure", erasure.id, number), type=ERASED, source="mplp/history", subject=erasure.subject, time=erasure.time,
            data={
                "erasure": erasure.id, "part": number, "parts": len(parts), "who": erasure.who, "why": erasure.why,
                "places": [
                    {"topic": each.topic, "partition": each.partition, "until_ms": each.until_ms, "offsets": list(each.offsets)}
                    for each in part
                ],
            },
        )
        for number, part in enumerate(parts)
    ]  # fmt: skip


def key_of(record: SystemEvent) -> str:
    """The key of a record of an erasure."""
    assert isinstance(record.data, dict)
    return f"{record.data['erasure']}/{record.data['part']}"


def portions(places: Iterable[Places], most: int) -> Iterator[list[Places]]:
    """The same places in groups of at most `most` offsets."""
    portion: list[Places] = []
    room = most
    for each in places:
        rest = each.offsets
        while rest:
            taken, rest = rest[:room], rest[room:]
            portion.append(Places(topic=each.topic, partition=each.partition, offsets=taken, until_ms=each.until_ms))
            room -= len(taken)
            if not room:
                yield portion
                portion, room = [], most
    if portion:
        yield portion


def erasures_in(records: Iterable[SystemEvent]) -> list[Erasure]:
    """The erasures that records tell of, those that are whole, in the order of their first records."""
    parts: dict[str, dict[int, SystemEvent]] = defaultdict(dict)
    for record in records:
        if record.type == ERASED and isinstance(record.data, dict):
            parts[str(record.data["erasure"])][int(record.data["part"])] = record
    return [_erasure(id_, found) for id_, found in parts.items() if len(found) == _data(found)["parts"]]


def _data(parts: Mapping[int, SystemEvent]) -> dict[str, Any]:
    data = next(iter(parts.values())).data
    assert isinstance(data, dict)
    return data


def _erasure(id_: str, parts: Mapping[int, SystemEvent]) -> Erasure:
    first = _data(parts)
    places = []
    for _, record in sorted(parts.items()):
        assert isinstance(record.data, dict)
        for each in record.data["places"]:
            offsets = tuple(int(offset) for offset in each["offsets"])
            places.append(
                Places(topic=str(each["topic"]), partition=int(each["partition"]), offsets=offsets, until_ms=int(each["until_ms"]))
            )
    some = next(iter(parts.values()))
    return Erasure(id=id_, subject=some.subject, who=str(first["who"]), why=str(first["why"]), time=some.time, places=tuple(places))


class Erasures:
    """All erasures of a history, as whoever makes rows of records needs them. `replace` is seen by other threads at once, whole."""

    def __init__(self) -> None:
        self._all: tuple[Erasure, ...] = ()
        self._by_place: Mapping[tuple[str, int], Sequence[tuple[array[int], int]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Erasure]:
        return iter(self._all)

    def replace(self, erasures: Sequence[Erasure]) -> None:
        """These and no others. Raises `Defect` (`history.erasure-lost`) if one is gone: they are kept for ever."""
        lost = {each.id for each in self._all} - {each.id for each in erasures}
        if lost:
            raise Defect("history.erasure-lost", f"The topic of erasures does not have {min(lost)} any more.")
        by_place: dict[tuple[str, int], list[tuple[array[int], int]]] = defaultdict(list)
        for erasure in erasures:
            for each in erasure.places:
                by_place[each.topic, each.partition].append((array("q", each.offsets), each.until_ms))
        self._all, self._by_place = tuple(erasures), dict(by_place)

    def among(self, topic: str, partition: int, of: Range) -> dict[int, int]:
        """The erased offsets of a range (topic by its logical name), each with the latest timestamp that is meant."""
        found: dict[int, int] = {}
        for offsets, until_ms in self._by_place.get((topic, partition), ()):
            for offset in offsets[bisect_left(offsets, of.first) : bisect_left(offsets, of.end)]:
                found[offset] = max(until_ms, found.get(offset, until_ms))
        return found

    def blanked(self, topic: str, span: Span, rows: Rows) -> Rows:
        """The rows of a block (topic by its logical name) without what was erased."""
        if not self._by_place:
            return rows
        marks = self.among(topic, span.partition, Range(first=span.first, end=span.end))
        if marks:
            rows.tables = {
                table: [erased(table, row) if row[1] <= marks.get(row[0], -1) else row for row in some]
                for table, some in rows.tables.items()
            }
        return rows


@dataclass(frozen=True, slots=True)
class Building:
    """`rows.build_rows`, less what was erased."""

    erasures: Erasures
    names: TopicNames

    def __call__(
        self, span: Span, records: Iterable[Raw], source: Source, codec: Codec, seen: SeenIds, *, strict: bool = False
    ) -> Rows:  # fmt: skip
        """See `rows.build_rows`."""
        rows = build_rows(span, records, source, codec, seen, strict=strict)
        return self.erasures.blanked(self.names.logical(span.topic), span, rows)
