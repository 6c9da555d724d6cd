"""Readers of logs: the epoch in force where one begins, and the rule per partition from there on.

A reader that starts at the beginning knows epoch 0 is in force; one that resumes keeps the epoch beside its position; one
that starts in the middle asks `epoch_at`, which reads the index of fences that owners keep in the snapshots topic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from weakref import WeakKeyDictionary

from aiokafka import TopicPartition

from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.log.kafka_log import RANGE_OPTIONS, SNAPSHOTS_OF, read_range
from streams.log.rule import FENCED, ReadersRule, Verdict, type_and_epoch
from streams.records import Fence
from streams.topics import BY_NAME, INTERNAL_SNAPSHOTS


class LogReader:
    """The reader's rule over many partitions. Topics that are no logs always count."""

    def __init__(self, kafka: Kafka, epochs: Mapping[tuple[str, int], int] | None = None) -> None:
        """`epochs`: epoch in force at the starting position, per (topic on the broker, partition); missing: 0."""
        self._names = kafka.names
        self._rules = {place: ReadersRule(epoch) for place, epoch in (epochs or {}).items()}

    def judge(self, topic: str, partition: int, headers: Iterable[tuple[str, bytes]]) -> Verdict:
        """The verdict on the next record of a partition."""
        known = BY_NAME.get(self._names.logical(topic))
        if known is None or not known.log:
            return Verdict.VALID
        rule = self._rules.get((topic, partition))
        if rule is None:
            rule = self._rules[topic, partition] = ReadersRule()
        return rule.judge_headers(headers)

    def epoch(self, topic: str, partition: int) -> int:
        """The epoch in force at the reader's position."""
        rule = self._rules.get((topic, partition))
        return rule.epoch if rule is not None else 0


class FenceIndex:
    """The index of fences of one partition of a topic of snapshots: read once, then only what has been added since.

    The topic also holds snapshots; they are skipped by their headers. Every owner writes the fences that it has read to the index
    before its first event, so the index is complete for every event; an entry never changes and is never deleted.
    """

    def __init__(self, snapshots: str, partition: int) -> None:
        self._at = TopicPartition(snapshots, partition)
        self._read_to = 0
        self._reading = asyncio.Lock()
        self._fences: dict[str, dict[int, int]] = {}  # log → epoch → offset

    async def epoch_at(self, kafka: Kafka, codec: Codec, log: str, offset: int) -> int:
        """The epoch in force before `offset` of a log (name on the broker) whose fences lie here."""
        async with self._reading:
            await self._read_on(kafka, codec)
        return max((epoch for epoch, at in self._fences.get(log, {}).items() if at < offset), default=0)

    async def _read_on(self, kafka: Kafka, codec: Codec) -> None:
        async with kafka.consumer(**RANGE_OPTIONS) as consumer:
            end = int((await consumer.end_offsets([self._at]))[self._at])
            async for stored in read_range(consumer, self._at.topic, self._at.partition, self._read_to, end):
                if stored.value is None or type_and_epoch(stored.headers)[0] != FENCED:
                    continue
                fence = codec.decode(stored.value)
                if isinstance(fence, Fence) and fence.partition == self._at.partition:
                    self._fences.setdefault(fence.log, {})[fence.epoch] = fence.offset or 0
            self._read_to = max(self._read_to, end)


#: A process reads each index once. They go with the `Kafka` that they were read by.
_INDEXES: WeakKeyDictionary[Kafka, dict[tuple[str, int], FenceIndex]] = WeakKeyDictionary()


async def epoch_at(kafka: Kafka, codec: Codec, topic: str, partition: int, offset: int) -> int:
    """The epoch in force before `offset` of a log partition (logical topic name); 0 if it was never fenced."""
    snapshots = kafka.names.physical(SNAPSHOTS_OF.get(topic, INTERNAL_SNAPSHOTS))
    indexes = _INDEXES.setdefault(kafka, {})
    index = indexes.get((snapshots, partition))
    if index is None:
        index = indexes[snapshots, partition] = FenceIndex(snapshots, partition)
    return await index.epoch_at(kafka, codec, kafka.names.physical(topic), offset)
