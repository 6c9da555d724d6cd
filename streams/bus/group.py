"""A member of a consumer group as a source of records: where the group begins, acknowledgements, rebalances."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from streams.bus.publisher import translated
from streams.bus.sources import POLL_MS, Judged, Since, silent_partitions, start_offsets, started
from streams.codec.avro import Codec
from streams.errors import InvalidInput
from streams.kafka import Kafka

#: How long acknowledgements of a busy group member may wait to be committed together, seconds.
COMMIT_INTERVAL_S = 0.1
#: A member that is silent for so long loses its partitions, milliseconds.
SESSION_TIMEOUT_MS = 10_000
#: A member that has not asked for the next record for so long loses its partitions although it lives, milliseconds.
HANDLING_MS_MAX = 3600 * 1000

_log = structlog.get_logger("streams.bus")


class GroupSource:
    """A member of a consumer group. `since` says where the group begins in partitions that it never committed."""

    def __init__(self, kafka: Kafka, codec: Codec, topic: str, group: str, since: Since) -> None:
        """Raises `InvalidInput` (`group.invalid`)."""
        if not group:
            raise InvalidInput("group.invalid", "A consumer group has a name.")
        self._kafka, self._topic, self._group, self._since = kafka, topic, group, since
        self._judged = Judged(kafka, codec, topic)
        self._consumer: AIOKafkaConsumer | None = None
        self._done: dict[TopicPartition, int] = {}  # what to commit: next offset per partition
        self._committed_at = 0.0
        self.generation = 0  #: grows with every rebalance; records of an older one may belong to another member by now

    async def open(self) -> None:
        """See `Source.open`."""
        consumer, _ = await started(
            self._kafka,
            self._topic,
            group_id=self._group,
            auto_offset_reset="none",
            isolation_level="read_committed",  # what nobody has committed is no record
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 5,
            rebalance_timeout_ms=SESSION_TIMEOUT_MS,
            max_poll_interval_ms=HANDLING_MS_MAX,
        )
        self._consumer = consumer
        consumer.subscribe([self._kafka.names.physical(self._topic)], listener=_Rebalances(self))

    async def fetch(self) -> Sequence[Any] | None:
        """See `Source.fetch`."""
        while (consumer := self._consumer) is not None:
            await self.commit()
            try:
                fetched = await consumer.getmany(timeout_ms=POLL_MS)
            except ConsumerStoppedError:
                return None
            except NoOffsetForPartitionError:
                await self._begin(consumer)
                continue
            except OffsetOutOfRangeError as error:
                await self._to_earliest(consumer, error)
                continue
            except KafkaError as error:
                raise translated(error, self._topic) from error
            records = [raw for batch in fetched.values() for raw in batch]
            if records:
                return records
        return None

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        """The group is new in some of our partitions: fixes where it begins there, for its other members and later ones too."""
        try:
            fresh = [tp for tp in consumer.assignment() if await consumer.committed(tp) is None]
            starts = await start_offsets(consumer, fresh, self._since)
            for tp, offset in starts.items():
                consumer.seek(tp, offset)
            if starts:
                await consumer.commit(starts)
        except (CommitFailedError, IllegalStateError):
            pass  # rebalanced meanwhile: whoever has the partitions now begins them

    async def _to_earliest(self, consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> None:
        lost = [tp for tp in (error.args[0] if error.args else ()) if tp in consumer.assignment()]
        _log.warning(
            "group.offset-lost", code="offset.out-of-range", group=self._group, topic=self._topic, partitions=[tp.partition for tp in lost]
        )
        for tp, offset in (await consumer.beginning_offsets(lost)).items():
            consumer.seek(tp, offset)

    async def learn(self, raw: Any) -> None:
        """See `Source.learn`."""
        await self._judged.begin(raw.partition, raw.offset)

    def knows(self, raw: Any) -> bool:
        """See `Source.knows`."""
        return self._judged.knows(raw.partition)

    def counts(self, raw: Any) -> bool:
        """See `Source.counts`."""
        return self._judged.counts(raw)

    async def acknowledge(self, raw: Any) -> None:
        """See `Source.acknowledge`. Committed at once when idle, together with others every `COMMIT_INTERVAL_S` when busy."""
        self._done[TopicPartition(raw.topic, raw.partition)] = raw.offset + 1
        if time.monotonic() - self._committed_at >= COMMIT_INTERVAL_S:
            await self.commit()

    def done_to(self, partition: int, offset: int) -> None:
        """Says that everything before the offset is done; committed with the next fetch or `commit`."""
        self._done[TopicPartition(self._kafka.names.physical(self._topic), partition)] = offset

    async def commit(self) -> None:
        """Commits what is acknowledged. Of a partition that was taken away meanwhile nothing is committed: it comes again elsewhere."""
        if not self._done or self._consumer is None:
            return
        done, self._done = self._done, {}
        self._committed_at = time.monotonic()
        assigned = self._consumer.assignment()
        try:
            await self._consumer.commit({tp: offset for tp, offset in done.items() if tp in assigned})
        except (CommitFailedError, IllegalStateError):
            _log.info("group.rebalanced", group=self._group, topic=self._topic)
        except KafkaError as error:
            raise translated(error, self._topic) from error

    def rebalanced(self) -> None:
        """What was fetched or done before belongs to whoever gets the partitions now."""
        self.generation += 1
        self._done.clear()
        self._judged.forget()

    def unanswered(self) -> int:
        """See `Source.unanswered`."""
        return silent_partitions(self._consumer)

    async def close(self) -> None:
        """See `Source.close`."""
        consumer = self._consumer
        if consumer is not None:
            try:
                await self.commit()
            finally:
                self._consumer = None
                await consumer.stop()


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Commits before partitions go, forgets after."""

    def __init__(self, source: GroupSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if revoked:
            await self._source.commit()
        self._source.rebalanced()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing: positions come from the group, or from `_begin`."""
