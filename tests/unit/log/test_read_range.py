"""A range of a partition is read to its end, also where its end is no record: what ends a transaction, what was compacted away."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition

from streams.log.kafka_log import read_range

PLACE = TopicPartition("orders.retry", 0)


class EndOfTransaction:
    """A consumer of a partition whose last offset ends a transaction. As aiokafka it comes by it in silence, and waits on."""

    def __init__(self) -> None:
        self.at, self.waited_ms = 0, 0

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    def assign(self, places: list[TopicPartition]) -> None:
        assert places == [PLACE]

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at = offset

    async def getmany(self, place: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        self.waited_ms += timeout_ms
        self.at = 8
        return {}

    async def position(self, place: TopicPartition) -> int:
        return self.at


async def test_who_reads_to_the_end_of_a_transaction_does_not_wait_for_what_comes_after_it() -> None:
    consumer = EndOfTransaction()

    found = [stored async for stored in read_range(consumer, PLACE.topic, 0, 7, 8)]

    assert found == []
    assert consumer.waited_ms <= 50
