"""What the end of the log of blocks says: where each partition's last block ends, and which blocks are not known to be inserted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.history import blocks
from services.history.blocks import Progress, Span
from streams.codec.avro import Codec
from streams.kafka import Kafka, cluster_metadata
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.log.reader import epoch_at
from streams.log.rule import ReadersRule, Verdict
from streams.records import Block
from streams.topics import BLOCKS

#: Records that are read of each partition. What they do not speak of was inserted long ago.
TAIL_RECORDS = 20_000

Place = tuple[str, int]  #: topic (name on the broker), partition


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTail:
    """What the log said, and where it ended."""

    progress: Mapping[Place, Progress]
    decided: Mapping[Place, list[Span]]  #: the blocks that were decided in what was read, in order
    ends: Mapping[int, int]  #: of the log's partitions


async def read_tail(kafka: Kafka, codec: Codec, history: str, since: Mapping[int, int] | None = None) -> BlockTail:
    """Reads the end of every partition of the log, or what is behind `since` (partition → offset). `history`: identity of the tables."""
    topic = kafka.names.physical(BLOCKS)
    progress: dict[Place, Progress] = {}
    decided: dict[Place, list[Span]] = {}
    async with kafka.consumer(**RANGE_OPTIONS) as consumer:
        cluster = await cluster_metadata(consumer._client)
        tps = [TopicPartition(topic, number) for number in cluster.partitions_for_topic(topic) or ()]
        firsts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp in tps:
            end = int(ends[tp])
            start = max(int(firsts[tp]), end - TAIL_RECORDS) if since is None else since.get(tp.partition, 0)
            await _fold(kafka, codec, history, consumer, tp, start, end, progress, decided)
    return BlockTail(progress=progress, decided=decided, ends={tp.partition: int(ends[tp]) for tp in tps})


async def _fold(
    kafka: Kafka, codec: Codec, history: str, consumer: AIOKafkaConsumer, tp: TopicPartition, start: int, end: int,
    progress: dict[Place, Progress], decided: dict[Place, list[Span]],
) -> None:  # fmt: skip
    rule = ReadersRule(await epoch_at(kafka, codec, BLOCKS, tp.partition, start) if start else 0)
    async for stored in read_range(consumer, tp.topic, tp.partition, start, end):
        if rule.judge_headers(stored.headers) is not Verdict.VALID or stored.value is None:
            continue
        record = codec.decode(stored.value)
        blocks.fold(progress, record, history)
        if isinstance(record, Block) and blocks.is_of(record, history):
            span = Span(topic=record.topic, partition=record.partition, first=record.first_offset, end=record.end_offset)
            decided.setdefault((record.topic, record.partition), []).append(span)
