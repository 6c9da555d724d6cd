"""The routes of a worker in this process, without Faust: a test says when partitions come and go; the broker is the real one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from aiokafka import TopicPartition

from streams.codec.avro import Codec
from streams.faust_app.prefix import Chunk
from streams.faust_app.route_part import RoutePart
from streams.kafka import Kafka
from streams.topics import SYSTEM_EVENTS

_LOOK_S = 0.05


class Part:
    """A worker that does routes and nothing else."""

    def __init__(self, kafka: Kafka, codec: Codec, topic: str = SYSTEM_EVENTS) -> None:
        self.failed: list[BaseException] = []
        self.part = RoutePart(kafka, codec, enabled=True, failed=self.failed.append, next_offset=lambda *_: sys.maxsize)
        self._kafka = kafka
        self._topic = topic
        self._held: set[int] = set()

    async def holds(self, partitions: set[int], generation: int) -> None:
        """The group has shared the partitions anew: these are this worker's, and it has them."""
        await self.part.tenure.end()
        await self.part.revoked()
        self._held = partitions
        self.part.tenure.begin(generation)
        self.part.tenure.heard(monotonic())
        self.part.assigned({(self._topic, number) for number in partitions})
        assert self.part.stage is not None
        async with asyncio.timeout(180):
            while {partition.place.partition for partition, _ in self.part.stage.runners} != partitions:
                await asyncio.sleep(0.01)

    async def run(self) -> None:
        """Says what is live, as Faust would: here everything is read from the log."""
        physical = self._kafka.names.physical(self._topic)
        async with self._kafka.consumer() as consumer:
            while True:
                self.part.tenure.heard(monotonic())
                places = [TopicPartition(physical, number) for number in self._held]
                for place, end in (await consumer.end_offsets(places)).items() if places else ():
                    if end:
                        await self.part.take(Chunk(physical, place.partition, end, end, (), 0))
                await asyncio.sleep(_LOOK_S)


@asynccontextmanager
async def part(kafka: Kafka, codec: Codec) -> AsyncIterator[Part]:
    """Until the end of the block, at which it writes down how far it is."""

    async def nothing() -> None:
        pass

    made = Part(kafka, codec)
    await made.part.read()
    await made.part.open(())
    tasks = [asyncio.create_task(made.part.follow(nothing)), asyncio.create_task(made.run())]
    try:
        yield made
        await made.part.retire()
        assert made.failed == []
        assert [task.exception() for task in tasks if task.done()] == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await made.part.close()
