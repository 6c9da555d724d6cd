"""`<topic>.retry`: what was put back of the letters of a topic, and what is no longer wanted; read by all, written by one at a time.

A letter is settled by a record of this topic that names it. Whoever settles letters does so in transactions whose id all writers of the
topic share: who begins ends what any other has begun and not finished, then reads what is settled, and only then goes on. So a letter
is put back once, whoever is killed in the middle, and however many commands meet; the one that was overtaken looks again and
does what is left. All who read the topic read what is committed, and nothing else.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
)

from streams import limits
from streams.bus.outgoing import Outgoing
from streams.bus.publisher import send_partition, translated
from streams.errors import BackboneError, InvalidInput, NotFound
from streams.kafka import cluster_metadata, is_deleted, observe_fencing, start
from streams.log.kafka_log import RANGE_OPTIONS, abandon, read_range
from streams.routing.letters import REDRIVE, Letter, place_of, resolved_by
from streams.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX, letters_topic
from streams.topics_apply import WantedTopic, create_topics

if TYPE_CHECKING:
    from streams.bus.bus import Bus

#: A writer that died in the middle holds up readers no longer than this, milliseconds.
TRANSACTION_MS = 10_000
#: First and longest pause of who was overtaken, seconds; they differ by chance, or two would overtake each other for ever.
_PAUSE_S = 0.1
_PAUSE_S_MAX = 5.0
#: Times in a row that a batch is begun anew before that is an error: more than a minute.
_ATTEMPTS_MAX = 30
#: What another attempt does not mend.
_FINAL = (
    MessageSizeTooLargeError, TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed, UnknownTopicOrPartitionError,
)  # fmt: skip

_log = structlog.get_logger("dlq")


@dataclass(frozen=True, slots=True)
class Settling:
    """A letter, and the record that settles it."""

    letter: Letter
    record: Outgoing
    source: tuple[str, Outgoing] | None = None  #: what besides goes back to its own topic (logical name)


class RetryTopic:
    """See the module. One command's; `mark` is the id of what it does (a redrive, a purge)."""

    def __init__(self, bus: Bus, dead_letters: str, mark: str = "") -> None:
        self.topic = dead_letters.removesuffix(DEAD_LETTER_SUFFIX) + RETRY_SUFFIX
        self._dead_letters = dead_letters
        self._bus = bus
        self._mark = mark.encode()
        self._read_to: dict[int, int] = {}
        # Partition → offsets of letters.
        self._redriven: dict[int, set[int]] = defaultdict(set)
        self._purged: dict[int, set[int]] = defaultdict(set)
        self._mine: dict[int, set[int]] = defaultdict(set)
        self._producer: AIOKafkaProducer | None = None
        self._overtaken = 0

    # --- what is settled ---

    async def look(self) -> None:
        """Reads what was settled since the last look. Raises `BackboneError`."""
        kafka = self._bus.kafka
        physical = kafka.names.physical(self.topic)
        try:
            async with kafka.consumer(**RANGE_OPTIONS, isolation_level="read_committed") as consumer:
                # Asking for all topics never creates one. If it is not there, nothing was ever settled.
                cluster = await cluster_metadata(consumer._client)
                places = [TopicPartition(physical, number) for number in sorted(cluster.partitions_for_topic(physical) or ())]
                ends = await consumer.end_offsets(places) if places else {}
                for tp in places:
                    begin, end = self._read_to.get(tp.partition, 0), int(ends[tp])
                    async for stored in read_range(consumer, physical, tp.partition, begin, end):
                        self._take(stored.headers)
                    self._read_to[tp.partition] = max(begin, end)
        except KafkaError as error:
            if await is_deleted(kafka, physical):
                return  # deleted since its partitions were asked for: in what is gone nothing is settled
            raise translated(error, self.topic) from error

    def _take(self, headers: Sequence[tuple[str, bytes]]) -> None:
        settled = resolved_by(headers)
        if settled is None:
            return
        try:
            topic, partition, offset = place_of(settled[0])
        except InvalidInput:
            return  # somebody else's
        if topic != self._dead_letters:
            return
        (self._purged if settled[1] else self._redriven)[partition].add(offset)
        if (REDRIVE + "id", self._mark) in headers:
            self._mine[partition].add(offset)

    def what(self, letter: Letter) -> str | None:
        """What became of a letter: `redriven` or `purged`; None: it is not settled."""
        _, partition, offset = letter.place
        if offset in self._purged[partition]:
            return "purged"
        return "redriven" if offset in self._redriven[partition] else None

    # --- settling ---

    async def settle(self, batch: Sequence[Settling]) -> int:
        """Settles the letters of the batch that are not, all of them or none; how many of the batch were settled by this command.

        The others were settled by somebody else since they were listed. Raises `BackboneError`; then it is open what became of the batch,
        and doing it again is safe.
        """
        if not batch:
            return 0
        for attempt in range(_ATTEMPTS_MAX):
            try:
                producer = await self._begun()
                await self._write(producer, [each for each in batch if self.what(each.letter) is None])
                return sum(each.letter.place[2] in self._mine[each.letter.place[1]] for each in batch)
            except KafkaError as error:
                # Overtaken by another command, for which a broker has many names, or an outcome that nobody knows: look what became of it.
                await self.close()
                if isinstance(error, _FINAL) or attempt == _ATTEMPTS_MAX - 1:
                    raise translated(error, self.topic) from error
                _log.info("dlq.overtaken", topic=self.topic, error=type(error).__name__)
                self._overtaken += 1
                await asyncio.sleep(random.uniform(0.0, min(_PAUSE_S_MAX, _PAUSE_S * 2 ** min(self._overtaken, 10))))
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Stops the producer, if there is one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon(producer)

    async def _begun(self) -> AIOKafkaProducer:
        """The producer; a new one has ended whatever others were writing, and knows what they have written."""
        if self._producer is None:
            await self._ensure()
            kafka = self._bus.kafka
            self._producer = kafka.new_producer(
                transactional_id=f"{kafka.names.physical(self.topic)}.writer", transaction_timeout_ms=TRANSACTION_MS,
                max_batch_size=limits.LETTER_MESSAGE_BYTES_MAX,
            )  # fmt: skip
            await start(self._producer)
            await self._producer.begin_transaction()  # ends what any other writer has begun
            await self.look()
        return self._producer

    async def _write(self, producer: AIOKafkaProducer, left: Sequence[Settling]) -> None:
        if not left:
            return
        sources = [each.source for each in left if each.source is not None]
        for topic in dict.fromkeys(topic for topic, _ in sources):
            # Not in the transaction: history accounts for every offset of these topics. A repeat has the same id.
            await self._bus.publisher.send(topic, [record for each, record in sources if each == topic])
        if not producer._txn_manager.is_in_transaction():
            await producer.begin_transaction()
        try:
            await self._send(producer, [each.record for each in left])
            observe_fencing(producer)
            await producer.commit_transaction()
        except (asyncio.CancelledError, BackboneError):
            with suppress(KafkaError):
                await asyncio.shield(producer.abort_transaction())  # readers need not wait until it times out
            raise
        for each in left:
            self._take(each.record.headers)

    async def _send(self, producer: AIOKafkaProducer, records: Sequence[Outgoing]) -> None:
        by_partition: dict[int, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            by_partition[record.partition].append(index)
        physical = self._bus.kafka.names.physical(self.topic)
        for partition, indices in by_partition.items():
            await send_partition(producer, physical, partition, indices, records, [-1] * len(records))

    async def _ensure(self) -> None:
        """Makes the topic if it is missing: as many partitions as that of the letters."""
        try:
            await self._bus.publisher.partitions(self.topic)
        except NotFound:
            kafka = self._bus.kafka
            partitions = await self._bus.publisher.partitions(self._dead_letters)
            wanted = WantedTopic(
                name=kafka.names.physical(self.topic), partitions=partitions, replication=kafka.settings.replication_factor,
                config=letters_topic(self.topic).config(),
            )  # fmt: skip
            async with kafka.admin() as admin:
                await create_topics(admin, [wanted])
