"""Looking back without a database: the event topics are read and what matches is put in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from streams import topics as catalogue
from streams.bus.selection import Selection
from streams.bus.sources import AssignedSource, Since
from streams.bus.subscription import Decoder, Delivered, Subscription
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.limits import AHEAD_MS_MAX
from streams.records import Record

#: Where records that tell a story lie.
EVENT_TOPICS = (catalogue.SYSTEM_EVENTS, catalogue.COMPOSITES, catalogue.TRANSITIONS, catalogue.MESSAGES)


async def collect(kafka: Kafka, codec: Codec, decoder: Decoder, topics: Sequence[str], selection: Selection, limit: int) -> list[Record]:
    """The first `limit` records that match, by time, then by place. A record that is there twice (same id) counts once."""
    selection.check()
    found: list[Delivered] = []
    for topic in dict.fromkeys(topics):
        source = AssignedSource(kafka, codec, topic, _begin(selection), until_end=True)
        async with Subscription(source, decoder, topic, selection, lambda delivered: delivered) as subscription:
            async for delivered in subscription:
                found.append(delivered)
                # Never more in memory than twice what is asked for.
                if len(found) >= 2 * limit + 1000:
                    found = _earliest(found, limit)
    return [delivered.record for delivered in _earliest(found, limit)]


def _earliest(found: list[Delivered], limit: int) -> list[Delivered]:
    found.sort(key=lambda delivered: (delivered.record.time, delivered.topic, delivered.partition, delivered.offset))
    once = {(delivered.topic, delivered.record.id): delivered for delivered in reversed(found)}
    return [delivered for delivered in found if once[delivered.topic, delivered.record.id] is delivered][:limit]


def _begin(selection: Selection) -> Since:
    """Records are written after they happened, but for clocks that run ahead: nothing earlier by Kafka's time can be meant."""
    return "beginning" if selection.since is None else selection.since - timedelta(milliseconds=AHEAD_MS_MAX)
