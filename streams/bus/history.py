"""Looking back without a database: the event topics are read and what matches is put in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from streams import topics as catalogue
from streams.bus.selection import Selection
from streams.bus.sources import AssignedSource, Since
from streams.bus.subscription import Decoder, Delivered, Subscription
from streams.codec.avro import Codec
from streams.errors import InvalidInput
from streams.kafka import Kafka
from streams.limits import AHEAD_MS_MAX
from streams.records import Record, from_micros, to_micros

#: Where records that tell a story lie.
EVENT_TOPICS = (catalogue.SYSTEM_EVENTS, catalogue.COMPOSITES, catalogue.TRANSITIONS, catalogue.MESSAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Some records, oldest first, and where the next page begins."""

    records: list[Record]
    next: str | None  #: to be given as `after`; None: there are no more


#: Where a record stands in the order of history: its time (microseconds), topic, partition and offset.
_Place: TypeAlias = tuple[int, str, int, int]


async def page(
    kafka: Kafka, codec: Codec, decoder: Decoder, topics: Sequence[str], selection: Selection, limit: int, after: str | None = None
) -> HistoryPage:
    """The first `limit` records that match and stand behind the cursor `after`. Raises `InvalidInput` (`cursor.invalid`)."""
    behind = None if after is None else _place_of(after)
    if behind is not None:
        since = from_micros(behind[0])
        selection = replace(selection, since=since if selection.since is None else max(since, selection.since))
    found = await collect(kafka, codec, decoder, topics, selection, limit + 1, behind)
    return HistoryPage(
        records=[delivered.record for delivered in found[:limit]], next=_cursor(found[limit - 1]) if len(found) > limit else None
    )


def _cursor(delivered: Delivered) -> str:
    time_us, topic, partition, offset = _place(delivered)
    return f"{time_us}/{partition}/{offset}/{topic}"


def _place(delivered: Delivered) -> _Place:
    return to_micros(delivered.record.time), delivered.topic, delivered.partition, delivered.offset


def _place_of(cursor: str) -> _Place:
    numbers, topic = cursor.split("/", 3)[:3], cursor.split("/", 3)[3:]
    if not topic or not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):
        raise InvalidInput("cursor.invalid", "A cursor is the `next` of an earlier page.")
    time_us, partition, offset = map(int, numbers)
    return time_us, topic[0], partition, offset


async def collect(
    kafka: Kafka, codec: Codec, decoder: Decoder, topics: Sequence[str], selection: Selection, limit: int, behind: _Place | None = None
) -> list[Delivered]:
    """The first `limit` records that match, by time, then by place. A record that is there twice (same id) counts once."""
    selection.check()
    found: list[Delivered] = []
    for topic in dict.fromkeys(topics):
        source = AssignedSource(kafka, codec, topic, _begin(selection), until_end=True)
        async with Subscription(source, decoder, topic, selection, lambda delivered: delivered) as subscription:
            async for delivered in subscription:
                if behind is not None and _place(delivered) <= behind:
                    continue
                found.append(delivered)
                # Never more in memory than twice what is asked for.
                if len(found) >= 2 * limit + 1000:
                    found = _earliest(found, limit)
    return _earliest(found, limit)


def _earliest(found: list[Delivered], limit: int) -> list[Delivered]:
    found.sort(key=lambda delivered: (delivered.record.time, delivered.topic, delivered.partition, delivered.offset))
    once = {(delivered.topic, delivered.record.id): delivered for delivered in reversed(found)}
    return [delivered for delivered in found if once[delivered.topic, delivered.record.id] is delivered][:limit]


def _begin(selection: Selection) -> Since:
    """Records are written after they happened, but for clocks that run ahead: nothing earlier by Kafka's time can be meant."""
    return "beginning" if selection.since is None else selection.since - timedelta(milliseconds=AHEAD_MS_MAX)
