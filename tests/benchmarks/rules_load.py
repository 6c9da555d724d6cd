"""What the benchmarks of rules read, and what they must find: topics that are full before the clock starts, and counts made beforehand."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import NewTopic

from streams.codec.avro import Codec, headers_of
from streams.faust_app.batches import Raw, send_batches
from streams.kafka import Kafka
from streams.records import SystemEvent, derived_id, from_micros
from streams.topics import partition_of

PARTITIONS = 4
SECOND_US = 1_000_000
WINDOW_US = 10 * SECOND_US
GRACE_US = 10 * SECOND_US
CUSTOMERS = 1000
#: Event time between two events: ten of each customer fall into a window, and it passes far faster than the clock on the wall (Bytewax adds
#: the time that passes there to its watermark).
STEP_US = 1000
THRESHOLD = 16
#: Events before the first window can be judged: its own, and those of the grace.
LEAD = (WINDOW_US + GRACE_US) // STEP_US

Window = tuple[str, int]  #: customer, start in milliseconds


def orders(count: int, begin_us: int) -> Iterator[SystemEvent]:
    """Events of customers drawn by a seed, in order of time."""
    draw = random.Random(7).randrange
    for number in range(count):
        customer = draw(CUSTOMERS)
        yield SystemEvent(
            id=derived_id("order", number), type="order.failed", source="shop", subject=f"customer-{customer}",
            time=from_micros(begin_us + number * STEP_US), correlation_id=derived_id("story", number),
            data={"customer": customer, "order": number, "total": number % 1000 / 4, "currency": "EUR"},
        )  # fmt: skip


def windows(count: int, begin_us: int, least: int) -> dict[Window, int]:
    """Customers' counts per window that reach `least`, of the windows that are over before the last event less the grace."""
    draw = random.Random(7).randrange
    counts: Counter[Window] = Counter()
    for number in range(count):
        start_us = (begin_us + number * STEP_US) // WINDOW_US * WINDOW_US
        counts[str(draw(CUSTOMERS)), start_us // 1000] += 1
    over_us = begin_us + (count - 1) * STEP_US - GRACE_US
    return {window: number for window, number in counts.items() if number >= least and window[1] * 1000 + WINDOW_US < over_us}


def begin_us() -> int:
    """Begin of event time: long enough ago that no event is ahead, at the begin of a window."""
    return (time.time_ns() // 1000 - 3600 * SECOND_US) // WINDOW_US * WINDOW_US


async def create(kafka: Kafka, *topics: str) -> None:
    """Topics for a benchmark, with the broker's clock as time of what is appended."""
    config = {"message.timestamp.type": "LogAppendTime"}
    async with kafka.admin() as admin:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=config) for topic in topics])


async def fill(kafka: Kafka, codec: Codec, topic: str, events: Iterable[SystemEvent]) -> None:
    """Writes the events as `bus.publish` would, keyed by their subject."""
    async with kafka.producer() as producer:
        batches: dict[int, list[Raw]] = {}
        for number, event in enumerate(events, 1):
            key = event.subject.encode()
            batches.setdefault(partition_of(key, PARTITIONS), []).append((key, codec.encode(event), headers_of(event)))
            if number % 10_000 == 0:
                await send_batches(producer, topic, batches)
                batches = {}
        await send_batches(producer, topic, batches)


async def read_all(kafka: Kafka, topic: str) -> list[Any]:
    """Everything that lies in a topic now."""
    partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    found: list[Any] = []
    async with kafka.consumer() as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    return found


async def wait_for(kafka: Kafka, topic: str, count: int, timeout_s: float, ended: Sequence[Any] = ()) -> int:
    """Waits until a topic has so many records, or `timeout_s` is over, or a process has ended; how many there are then."""
    partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    until = time.monotonic() + timeout_s
    async with kafka.consumer() as consumer:
        while True:
            over = time.monotonic() > until or any(process.poll() is not None for process in ended)
            found = sum((await consumer.end_offsets(partitions)).values())
            if found >= count or over:
                return found
            await asyncio.sleep(0.1)
