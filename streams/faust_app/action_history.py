"""What is known as done: the deliveries of the last minutes tell a successor which actions need not be performed again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.bus.publisher import translated
from streams.codec.avro import Codec
from streams.errors import InvalidInput
from streams.kafka import Kafka
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.topics import DELIVERIES

#: How far back deliveries are read, milliseconds. What is older and not in a checkpoint is performed again.
LOOK_BACK_MS = 10 * 60 * 1000
#: How far apart the clocks of those who say composites and those who tell deliveries may be, milliseconds.
_SKEW_MS = 60_000
#: Statuses after which an action is over.
_OVER = frozenset({"delivered", "dead"})


class Done:
    """Keys of actions that were performed or given up, by whichever worker; shared by the partitions of this one."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        self._kafka = kafka
        self._codec = codec
        self._topic = kafka.names.physical(DELIVERIES)
        self._reading = asyncio.Lock()
        self._since_ms: int | None = None
        self._read_to: dict[int, int] = {}  # partition → next offset
        self._keys: set[str] = set()

    async def since(self, time_ms: int, partitions: int) -> Collection[str]:
        """The keys that deliveries tell from this moment on (Unix time, at most `LOOK_BACK_MS` ago) until now.

        `partitions`: of the deliveries. Raises `BackboneError`.
        """
        since_ms = max(time_ms - _SKEW_MS, time.time_ns() // 1_000_000 - LOOK_BACK_MS)
        async with self._reading:
            try:
                async with self._kafka.consumer(**RANGE_OPTIONS) as consumer:
                    await self._read(consumer, since_ms, [TopicPartition(self._topic, number) for number in range(partitions)])
            except (KafkaError, OSError) as error:
                raise translated(error, DELIVERIES) from error
        return self._keys

    async def _read(self, consumer: AIOKafkaConsumer, since_ms: int, partitions: Sequence[TopicPartition]) -> None:
        ends = await consumer.end_offsets(partitions)
        if self._since_ms is None or since_ms < self._since_ms:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            self._read_to = {tp.partition: int(ends[tp]) if found.get(tp) is None else int(found[tp].offset) for tp in partitions}
            self._since_ms = since_ms
        for tp in partitions:
            start = self._read_to.get(tp.partition, 0)
            async for stored in read_range(consumer, self._topic, tp.partition, start, int(ends[tp])):
                self._take(stored.value)
            self._read_to[tp.partition] = max(start, int(ends[tp]))

    def _take(self, value: bytes | None) -> None:
        try:
            name, plain = self._codec.decode_raw(value)
            key = orjson.loads(plain["data"]).get("key") if name == "Delivery" and plain["status"] in _OVER else None
        except (InvalidInput, ValueError, KeyError, AttributeError):
            return  # of another writer, or another version: it says nothing about our keys
        if isinstance(key, str):
            self._keys.add(key)
