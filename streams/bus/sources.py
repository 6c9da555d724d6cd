"""Where a subscription's records come from: partitions assigned by hand, or a consumer group.

Both give raw Kafka records in order per partition, judged by the reader's rule on log topics. They differ in where they
begin and in what an acknowledgement does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias

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

from streams.bus.publisher import partitions_on_broker, translated
from streams.bus.validate import parse_time
from streams.codec.avro import Codec
from streams.errors import InvalidInput
from streams.kafka import Kafka, start
from streams.log.reader import epoch_at
from streams.log.rule import ReadersRule, Verdict
from streams.records import to_micros
from streams.topics import BY_NAME

Since: TypeAlias = Literal["now", "beginning"] | datetime

#: How long acknowledgements of a busy group member may wait to be committed together, seconds.
COMMIT_INTERVAL_S = 0.1
#: A member that is silent for so long loses its partitions, milliseconds.
SESSION_TIMEOUT_MS = 10_000
#: A member that has not asked for the next record for so long loses its partitions although it lives, milliseconds.
HANDLING_MS_MAX = 3600 * 1000
_POLL_MS = 1000

_log = structlog.get_logger("streams.bus")


def parse_since(value: str | datetime) -> Since:
    """`now`, `beginning`, or a time (RFC 3339 with offset). Raises `InvalidInput` (`since.invalid`)."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if value == "now":
        return "now"
    if value == "beginning":
        return "beginning"
    try:
        return parse_time(value)
    except InvalidInput as error:
        raise InvalidInput("since.invalid", "A start is `now`, `beginning` or an RFC 3339 time with an offset.") from error


class Source(Protocol):
    """Raw records of a topic."""

    async def open(self) -> None:
        """Connects and fixes the positions. Raises `NotFound` (`topic.unknown`), `Unavailable`."""

    async def fetch(self) -> Sequence[Any] | None:
        """The next records (aiokafka's), waiting for them; None at the end or when closed."""

    async def learn(self, raw: Any) -> None:
        """To be called before `counts` for a record of which `knows` is false: finds the epoch in force where it lies."""

    def knows(self, raw: Any) -> bool:
        """Whether the epoch in force at the record is known."""

    def counts(self, raw: Any) -> bool:
        """Whether the record counts by the reader's rule; to be asked for every record, in order."""

    async def acknowledge(self, raw: Any) -> None:
        """Says that the record and all before it in its partition are done."""

    async def close(self) -> None:
        """Disconnects; what is acknowledged is committed first."""


class _Judged:
    """The reader's rule per partition of one topic; the epoch of a partition entered in the middle is looked up."""

    def __init__(self, kafka: Kafka, codec: Codec, topic: str) -> None:
        known = BY_NAME.get(topic)
        self._is_log = known is not None and known.log
        self._kafka, self._codec, self._topic = kafka, codec, topic
        self._rules: dict[int, ReadersRule] = {}

    async def begin(self, partition: int, offset: int) -> None:
        """From `offset` on: finds the epoch in force there."""
        if self._is_log:
            epoch = await epoch_at(self._kafka, self._codec, self._topic, partition, offset) if offset > 0 else 0
            self._rules[partition] = ReadersRule(epoch)

    def forget(self) -> None:
        """After a rebalance: positions may be others now."""
        self._rules.clear()

    def knows(self, partition: int) -> bool:
        """See `Source.knows`."""
        return not self._is_log or partition in self._rules

    def counts(self, raw: Any) -> bool:
        """See `Source.counts`."""
        return not self._is_log or self._rules[raw.partition].judge_headers(raw.headers) is Verdict.VALID


class AssignedSource:
    """All partitions of a topic (or some), from a point on, optionally only to the end as it was at the start."""

    def __init__(
        self,
        kafka: Kafka,
        codec: Codec,
        topic: str,
        since: Since,
        *,
        partitions: Iterable[int] | None = None,
        until_end: bool = False,
        offsets: Mapping[int, int] | None = None,
    ) -> None:
        """`offsets` fixes where single partitions begin, instead of `since`."""
        self._kafka, self._topic, self._since = kafka, topic, since
        self._only = None if partitions is None else set(partitions)
        self._until_end = until_end
        self._offsets = dict(offsets or {})
        self._judged = _Judged(kafka, codec, topic)
        self._consumer: AIOKafkaConsumer | None = None
        self._ends: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        """See `Source.open`."""
        consumer, numbers = await _started(self._kafka, self._topic)
        self._consumer = consumer
        physical = self._kafka.names.physical(self._topic)
        places = [TopicPartition(physical, number) for number in numbers if self._only is None or number in self._only]
        consumer.assign(places)
        starts = await start_offsets(consumer, places, self._since)
        starts.update({tp: self._offsets[tp.partition] for tp in places if tp.partition in self._offsets})
        if self._until_end:
            self._ends = {tp: int(end) for tp, end in (await consumer.end_offsets(places)).items()}
            # A partition that is read to its end already needs no fetch.
            done = [tp for tp in places if starts[tp] >= self._ends[tp]]
            for tp in done:
                del self._ends[tp]
        for tp in places:
            consumer.seek(tp, starts[tp])
        await asyncio.gather(*(self._judged.begin(tp.partition, starts[tp]) for tp in places))

    async def fetch(self) -> Sequence[Any] | None:
        """See `Source.fetch`."""
        while (consumer := self._consumer) is not None:
            if self._until_end and not await self._remaining(consumer):
                return None
            try:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
            except ConsumerStoppedError:
                return None
            except KafkaError as error:
                raise translated(error, self._topic) from error
            if self._until_end:
                fetched = {tp: [raw for raw in batch if raw.offset < self._ends.get(tp, 0)] for tp, batch in fetched.items()}
            records = [raw for batch in fetched.values() for raw in batch]
            if records:
                return records
        return None

    async def _remaining(self, consumer: AIOKafkaConsumer) -> bool:
        for tp, end in list(self._ends.items()):
            if await consumer.position(tp) >= end:
                del self._ends[tp]
                consumer.pause(tp)
        return bool(self._ends)

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
        """Nothing: without a group nobody remembers."""

    async def close(self) -> None:
        """See `Source.close`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


class GroupSource:
    """A member of a consumer group. `since` says where the group begins in partitions that it never committed."""

    def __init__(self, kafka: Kafka, codec: Codec, topic: str, group: str, since: Since) -> None:
        self._kafka, self._topic, self._group, self._since = kafka, topic, group, since
        self._judged = _Judged(kafka, codec, topic)
        self._consumer: AIOKafkaConsumer | None = None
        self._done: dict[TopicPartition, int] = {}  # what to commit: next offset per partition
        self._committed_at = 0.0
        self.generation = 0  #: grows with every rebalance; records of an older one may belong to another member by now

    async def open(self) -> None:
        """See `Source.open`."""
        consumer, _ = await _started(
            self._kafka,
            self._topic,
            group_id=self._group,
            auto_offset_reset="none",
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
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
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


async def _started(kafka: Kafka, topic: str, **options: Any) -> tuple[AIOKafkaConsumer, list[int]]:
    """A started consumer and the topic's partitions. Raises `NotFound` (`topic.unknown`) and `Unavailable`."""
    consumer = kafka.new_consumer(**options)
    await start(consumer)
    try:
        numbers = await partitions_on_broker(consumer._client, kafka, topic)
    except KafkaError as error:
        await consumer.stop()
        raise kafka.unreachable(error) from error
    except BaseException:
        await consumer.stop()
        raise
    return consumer, numbers


async def start_offsets(consumer: AIOKafkaConsumer, places: Sequence[TopicPartition], since: Since) -> dict[TopicPartition, int]:
    """The offset at which each partition is begun: its end, its beginning, or the first record with that Kafka timestamp or a later one."""
    if not places:
        return {}
    if since == "beginning":
        return {tp: int(offset) for tp, offset in (await consumer.beginning_offsets(places)).items()}
    ends = {tp: int(offset) for tp, offset in (await consumer.end_offsets(places)).items()}
    if since == "now":
        return ends
    time_ms = max(0, -(-to_micros(since) // 1000))
    found = await consumer.offsets_for_times(dict.fromkeys(places, time_ms))
    return {tp: int(at.offset) if (at := found.get(tp)) is not None else end for tp, end in ends.items()}
