"""Effects that leave the partition: an outbox with a producer of its own, never the one that appends to logs.

Bounded: when the broker is slow the partition that decides waits. At least once while the process lives; what was in the
outbox of a killed process is performed again by the successor, which finds it unanswered in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import UnknownTopicOrPartitionError

from streams import topics
from streams.codec.avro import Codec, headers_of
from streams.errors import BackboneError, InvalidInput
from streams.kafka import Kafka, start
from streams.log.ports import Stored
from streams.log.types import Send
from streams.records import now

if TYPE_CHECKING:
    from streams.bus.publisher import Publisher

_log = structlog.get_logger("log.effects")

OUTBOX_MAX = 10_000
#: What dead letters of the kernel name as their route.
KERNEL_ROUTE = "kernel"


class KafkaEffects:
    """`EffectsPort` over Kafka. Start it before use; `run` ends when it is cancelled or the producer fails for good."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        self._kafka = kafka
        self._codec = codec
        self._room = asyncio.Semaphore(OUTBOX_MAX)
        self._producer: AIOKafkaProducer | None = None
        self._publisher: Publisher | None = None
        self._unacknowledged: set[asyncio.Future[object]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Connects."""
        self._producer = self._kafka.new_producer()
        await start(self._producer)

    async def stop(self) -> None:
        """Waits shortly for what is under way, then closes."""
        if self._unacknowledged:
            await asyncio.wait(list(self._unacknowledged), timeout=2)
        if self._producer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._producer.stop(), 3)
        if self._publisher is not None:
            await self._publisher.close()

    async def send(self, effect: Send) -> None:
        """See `EffectsPort.send`."""
        await self._room.acquire()
        try:
            sent = await self._put(
                self._kafka.names.physical(effect.topic),
                effect.key.encode(),
                self._codec.encode(effect.record),
                [*headers_of(effect.record), *effect.headers],
            )
            if effect.awaited:
                await sent
        except UnknownTopicOrPartitionError:
            # The module never started: its inbox does not exist. The step's time-out tells the caller.
            self._room.release()
            _log.warning("effect.no-topic", topic=effect.topic, record=effect.record.id)
        except BackboneError as error:
            self._room.release()
            _log.error("effect.invalid", topic=effect.topic, record=effect.record.id, code=error.code, message=error.message)

    async def forward(self, stored: Stored) -> None:
        """See `EffectsPort.forward`."""
        assert self._producer is not None
        headers = [*stored.headers, (topics.FORWARDED_HEADER, b"1")]
        await self._producer.send_and_wait(stored.topic, key=stored.key, value=stored.value, headers=headers)

    async def settled(self) -> None:
        """See `EffectsPort.settled`."""
        waited = list(self._unacknowledged)
        if waited:
            await asyncio.wait(waited)

    async def dead_letter(self, stored: Stored, code: str, message: str) -> None:
        """See `EffectsPort.dead_letter`."""
        from streams.bus.handling import DeadLetters  # here: the bus reads logs by this package
        from streams.bus.publisher import Publisher

        if self._publisher is None:
            self._publisher = Publisher(self._kafka, self._codec)
        letters = DeadLetters(self._kafka, self._publisher, self._kafka.names.logical(stored.topic))
        error = InvalidInput(code, message)
        await letters.write(stored, route=KERNEL_ROUTE, stage="decide", attempts=1, first_time=now(), error=error)
        _log.warning("input.dead-letter", topic=stored.topic, partition=stored.partition, offset=stored.offset, code=code)

    async def _put(self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> asyncio.Future[object]:
        assert self._producer is not None
        if not await self._exists(topic):
            raise UnknownTopicOrPartitionError(topic)
        sent: asyncio.Future[object] = await self._producer.send(topic, key=key, value=value, headers=headers)
        self._unacknowledged.add(sent)
        sent.add_done_callback(self._done)
        return sent

    def _done(self, sent: asyncio.Future[object]) -> None:
        self._unacknowledged.discard(sent)
        self._room.release()
        if sent.cancelled():
            return
        error = sent.exception()
        if error is not None and not self.failed.done():
            # Not retriable, or the producer is broken: the process ends, and its successor performs what is unanswered.
            self.failed.set_exception(error)

    async def _exists(self, topic: str) -> bool:
        assert self._producer is not None
        cluster = self._producer.client.cluster
        if cluster.partitions_for_topic(topic):
            return True
        self._producer.client.add_topic(topic)
        await self._producer.client.force_metadata_update()
        return bool(cluster.partitions_for_topic(topic))


__all__ = ["KafkaEffects"]
