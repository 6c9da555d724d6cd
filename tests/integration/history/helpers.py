"""What the tests of the sink share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import TopicPartition

from services.history.sink import Sink
from services.history.store import History
from services.history.tables import all_tables
from streams.codec.avro import Codec, headers_of
from streams.kafka import Kafka
from streams.records import Record
from streams.topics import COMMANDS, COMPOSITES, DELIVERIES, MESSAGES, REQUESTS, RESPONSES, SYSTEM_EVENTS, TRANSITIONS

WAIT_S = 180.0


@contextlib.asynccontextmanager
async def sinking(kafka: Kafka, codec: Codec, history: History) -> AsyncIterator[Sink]:
    sink = Sink(kafka, codec, history)
    task = asyncio.create_task(sink.run())
    try:
        yield sink
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def produce(kafka: Kafka, topic: str, values: list[tuple[bytes, bytes | None, list[tuple[str, bytes]]]]) -> None:
    async with kafka.producer(linger_ms=5) as producer:
        for future in [await producer.send(kafka.names.physical(topic), value, key=key, headers=headers) for key, value, headers in values]:
            await future


def encoded(codec: Codec, record: Record, key: str = "k") -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    return key.encode(), codec.encode(record), headers_of(record)


async def offsets_in_kafka(kafka: Kafka) -> dict[tuple[str, int], int]:
    """Number of offsets of every partition of the test's own topics that the history keeps."""
    async with kafka.consumer() as consumer:
        await consumer.topics()
        names = [COMMANDS, TRANSITIONS, MESSAGES, REQUESTS, RESPONSES, SYSTEM_EVENTS, COMPOSITES, DELIVERIES, SYSTEM_EVENTS + ".dlq"]
        tps = [TopicPartition(kafka.names.physical(name), number) for name in names for number in range(kafka.settings.partitions)]
        ends = await consumer.end_offsets(tps)
    return {(kafka.names.logical(tp.topic), tp.partition): end for tp, end in ends.items() if end}


async def rows_by_partition(history: History) -> dict[tuple[str, int], int]:
    """Number of rows per partition; fails if an offset has more than one row."""
    parts = " UNION ALL ".join(f"SELECT _topic, _partition, _offset FROM {table}" for table in all_tables())
    counts = "count() AS n, uniqExact(_offset) AS u, max(_offset) AS last"
    sql = f"SELECT _topic AS topic, _partition AS number, {counts} FROM ({parts}) GROUP BY topic, number"
    found = (await history.query(sql)).objects()
    assert all(row["n"] == row["u"] == row["last"] + 1 for row in found), found
    return {(row["topic"], row["number"]): row["n"] for row in found}


async def caught_up(sink: Sink) -> None:
    assert await sink.wait_until(timeout=WAIT_S) == 0


async def value_of(history: History, sql: str, **parameters: Any) -> Any:
    return (await history.query(sql, parameters)).rows()[0][0]
