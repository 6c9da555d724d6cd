"""Which units of the work are ours: all of them, or those that a consumer group gives us."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from streams.kafka import Kafka, start
from streams.topics import BLOCKS

log = structlog.get_logger(__name__)


class Everything:
    """`ports.Membership` of the only sink of a history."""

    def __init__(self, count: int) -> None:
        self.units: frozenset[int] | None = frozenset(range(count))

    async def run(self, changed: Callable[[], None]) -> None:
        """See `ports.Membership`."""
        await asyncio.get_running_loop().create_future()


class Group(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """`ports.Membership` by a consumer group that has the log of blocks as its topic; of that only the assignment is used.

    Whose a unit is in truth, its log says: a fence. The group only decides who claims it.
    """

    def __init__(self, kafka: Kafka, name: str) -> None:
        """`name`: of the group."""
        self._kafka, self._name = kafka, name
        self._topic = kafka.names.physical(BLOCKS)
        self._changed: Callable[[], None] = lambda: None
        self._consumer: AIOKafkaConsumer | None = None
        self.units: frozenset[int] | None = None

    async def run(self, changed: Callable[[], None]) -> None:
        """See `ports.Membership`."""
        self._changed = changed
        timeout_ms = self._kafka.settings.group_session_timeout_ms
        consumer = self._consumer = self._kafka.new_consumer(
            group_id=self._name,
            session_timeout_ms=timeout_ms,
            heartbeat_interval_ms=max(300, timeout_ms // 10),
            rebalance_timeout_ms=10_000,
        )
        await start(consumer)
        try:
            consumer.subscribe([self._topic], listener=self)
            while True:
                await consumer.getmany(timeout_ms=1000)
        finally:
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), 5)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins. What is ours stays so until somebody else claims it."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """A rebalance ended."""
        assert self._consumer is not None
        self._consumer.pause(*assigned)
        self.units = frozenset(tp.partition for tp in assigned)
        log.info("history.units", units=sorted(self.units))
        self._changed()
