"""Readers of logs: the epoch in force where one begins, and the rule per partition from there on.

A reader that starts at the beginning knows epoch 0 is in force; one that resumes keeps the epoch beside its position; one
that starts in the middle asks `epoch_at`, which reads the index of fences that owners keep in the snapshots topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiokafka import TopicPartition

from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.log.kafka_log import SNAPSHOTS_OF, read_range
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


async def epoch_at(kafka: Kafka, codec: Codec, topic: str, partition: int, offset: int) -> int:
    """The epoch in force before `offset` of a log partition (logical topic name); 0 if it was never fenced.

    Every owner writes the fences that it has read to the index before its first event, so the index is complete for every
    event. It is compacted and short: one entry per takeover.
    """
    snapshots = kafka.names.physical(SNAPSHOTS_OF.get(topic, INTERNAL_SNAPSHOTS))
    log = kafka.names.physical(topic)
    epoch = 0
    async with kafka.consumer() as consumer:
        tp = TopicPartition(snapshots, partition)
        end = int((await consumer.end_offsets([tp]))[tp])
        async for stored in read_range(consumer, snapshots, partition, 0, end):
            if stored.value is None or type_and_epoch(stored.headers)[0] != FENCED:
                continue
            fence = codec.decode(stored.value)
            if isinstance(fence, Fence) and (fence.log, fence.partition) == (log, partition) and (fence.offset or 0) < offset:
                epoch = max(epoch, fence.epoch)
    return epoch
