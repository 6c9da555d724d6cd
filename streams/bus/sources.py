"""Where a subscription's records come from: here partitions assigned by hand; `group` has consumer groups.

Both give raw Kafka records in order per partition, judged by the reader's rule on log topics. They differ in where they
begin and in what an acknowledgement does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaError,
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

#: How long a fetch waits before it looks whether it should still go on, milliseconds.
POLL_MS = 1000
#: How long the broker holds a fetch of a follower that finds nothing, milliseconds.
FOLLOW_WAIT_MS = 2000


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

    def unanswered(self) -> int:
        """Partitions of which the broker has told nothing since they were begun: what lies there is not known; 0 when closed."""

    async def close(self) -> None:
        """Disconnects; what is acknowledged is committed first."""


class Judged:
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
        self._judged = Judged(kafka, codec, topic)
        self._consumer: AIOKafkaConsumer | None = None
        self._ends: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        """See `Source.open`."""
        # Who follows asks the broker nothing but for records: a fetch that finds none may wait long, and costs less the longer it waits.
        options = {} if self._until_end else {"fetch_max_wait_ms": FOLLOW_WAIT_MS}
        consumer, numbers = await started(self._kafka, self._topic, **options)
        self._consumer = consumer
        physical = self._kafka.names.physical(self._topic)
        places = [TopicPartition(physical, number) for number in numbers if self._only is None or number in self._only]
        # Offsets are asked for before anything is assigned: a fetch that waits holds up every other request on its connection.
        starts = await start_offsets(consumer, places, self._since)
        starts.update({tp: self._offsets[tp.partition] for tp in places if tp.partition in self._offsets})
        if self._until_end:
            self._ends = {tp: int(end) for tp, end in (await consumer.end_offsets(places)).items()}
            # A partition that is read to its end already needs no fetch.
            done = [tp for tp in places if starts[tp] >= self._ends[tp]]
            for tp in done:
                del self._ends[tp]
        consumer.assign(places)
        for tp in places:
            consumer.seek(tp, starts[tp])
        await asyncio.gather(*(self._judged.begin(tp.partition, starts[tp]) for tp in places))

    async def fetch(self) -> Sequence[Any] | None:
        """See `Source.fetch`."""
        while (consumer := self._consumer) is not None:
            if self._until_end and not await self._remaining(consumer):
                return None
            try:
                fetched = await consumer.getmany(timeout_ms=POLL_MS)
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

    def unanswered(self) -> int:
        """See `Source.unanswered`."""
        return silent_partitions(self._consumer)

    async def close(self) -> None:
        """See `Source.close`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


def silent_partitions(consumer: AIOKafkaConsumer | None) -> int:
    """How many of a consumer's partitions have not answered a single fetch."""
    return 0 if consumer is None else sum(consumer.highwater(tp) is None for tp in consumer.assignment())


async def started(kafka: Kafka, topic: str, **options: Any) -> tuple[AIOKafkaConsumer, list[int]]:
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
