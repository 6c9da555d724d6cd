"""Topics read again, piece by piece, as the rows that the sink makes of them: for what compares tables with topics or makes them anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.history import erase_log
from services.history.blocks import Span
from services.history.erasures import Building
from services.history.pieces import Cutter
from services.history.retention import Retained
from services.history.rows import Raw, Rows, SeenIds, Source
from services.history.store import History
from services.history.verify_sums import Range
from streams.codec.avro import Codec
from streams.errors import Refused
from streams.kafka import Kafka, start
from streams.log.kafka_log import RANGE_OPTIONS
from streams.log.reader import epoch_at
from streams.parsed import hand_out_as_parsed

#: Records that are taken over at once; the event loop is busy meanwhile.
FETCH_RECORDS_MAX = 5_000
FETCH_TIMEOUT_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some offsets of a partition: their records, and the rows that they are."""

    span: Span
    records: Sequence[Raw]
    rows: Rows
    source: Source
    seen: SeenIds


class Replay:
    """Reads partitions (topics by their names on the broker), one at a time, over one connection."""

    def __init__(self, kafka: Kafka, codec: Codec, history: History, retained: Retained | None = None) -> None:
        """`retained`: rows that are beyond retention are left out."""
        self._retained = retained or Retained()
        self._kafka, self._codec, self._history = kafka, codec, history
        self._consumer: AIOKafkaConsumer | None = None
        self._build = Building(history.erasures, kafka.names)

    async def close(self) -> None:
        """Ends the connection."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    def erased(self, span: Span) -> Collection[int]:
        """The offsets of a piece whose rows have lost their payloads."""
        of = Range(first=span.first, end=span.end)
        return self._history.erasures.among(self._kafka.names.logical(span.topic), span.partition, of)

    async def pieces(self, topic: str, partition: int, source: Source, of: Range, ends: Sequence[int] = ()) -> AsyncIterator[Piece]:
        """The offsets of a range, as far as the topic still has them; a piece ends at each of `ends` (ascending) that it meets.

        An offset that the topic has no record of is a row of kind `gap`. Raises `Unavailable`, and `Refused` (`history.topic-changed`)
        if the topic ends before the range does.
        """
        tp = TopicPartition(topic, partition)
        if self._consumer is None:
            consumer = self._kafka.new_consumer(**RANGE_OPTIONS)
            await start(consumer)
            self._consumer = consumer
            await erase_log.refresh(self._kafka, self._codec, self._history.erasures, consumer)
        first = max(of.first, int((await self._consumer.beginning_offsets([tp]))[tp]))
        if first >= of.end:
            return
        epoch = 0
        if first and source.catalogue is not None and source.is_log:
            epoch = await epoch_at(self._kafka, self._codec, source.catalogue.name, partition, first)
        seen = SeenIds(await self._history.tables.recent_ids(topic, partition, first) if first else ())
        span = Span(topic=topic, partition=partition, first=first, end=first, epoch_before=epoch)
        async for end, records in _pieces(self._consumer, tp, Range(first=first, end=of.end), ends):
            span = replace(span, first=span.end, end=end)
            rows = await asyncio.to_thread(self._build, span, records, source, self._codec, seen)
            rows = self._retained.left(rows)
            yield Piece(span=replace(span, epoch_after=rows.epoch_after), records=records, rows=rows, source=source, seen=seen)
            seen.trim(end)
            span = replace(span, epoch_before=rows.epoch_after)

    async def strictly(self, piece: Piece) -> Rows:
        """The rows of a piece that ClickHouse could not read: every body is decoded here, and what is none becomes `log_records`."""
        piece.seen.forget_from(piece.span.first)
        rows = await asyncio.to_thread(self._build, piece.span, piece.records, piece.source, self._codec, piece.seen, strict=True)
        return self._retained.left(rows)


async def _pieces(
    consumer: AIOKafkaConsumer, tp: TopicPartition, of: Range, ends: Sequence[int]
) -> AsyncIterator[tuple[int, list[ConsumerRecord]]]:
    """Where each piece ends, and its records."""
    consumer.assign([tp])
    consumer.seek(tp, of.first)
    cutter: Cutter[ConsumerRecord] = Cutter(of, ends)
    while int(await consumer.position(tp)) < of.end:
        hand_out_as_parsed(consumer)
        fetched = (await consumer.getmany(tp, timeout_ms=FETCH_TIMEOUT_MS, max_records=FETCH_RECORDS_MAX)).get(tp, [])
        for record in fetched:
            for piece in cutter.take(record):
                yield piece
        if not fetched and int((await consumer.end_offsets([tp]))[tp]) < of.end:
            raise Refused("history.topic-changed", f"{tp.topic}/{tp.partition} ends before offset {of.end}: it was cut off or made anew.")
    for piece in cutter.rest():
        yield piece
