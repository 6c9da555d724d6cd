"""Sends records: everything is checked before anything is sent, explicit batches per partition, an idempotent producer.

`publish` returns when the broker has it all. Facts of aiokafka that shape this: an idempotent batch never expires, so a call
has a time-out of its own; a sequence number does not roll back after a failed batch, so the producer is replaced after any
failure; `BatchBuilder.append` answers None when the batch is full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from aiokafka.protocol.produce import ProduceRequest

from streams.bus.outgoing import Headers, Outgoing, event_outgoing, outgoing
from streams.bus.record_batches import batches_of
from streams.bus.validate import check_record, fields_of, parse_event, parse_fields, pointer
from streams.codec.avro import Codec
from streams.errors import BackboneError, Defect, Denied, InvalidInput, NotFound, TooLarge, Unavailable
from streams.kafka import Kafka, cluster_metadata, start
from streams.log.kafka_log import abandon
from streams.records import Record, SystemEvent
from streams.topics import BY_NAME, SYSTEM_EVENTS

#: How long the broker may take to acknowledge one call's records, seconds.
PUBLISH_TIMEOUT_S = 60.0
#: Bytes of a batch: large enough to be cheap, small enough to be fetched at once with others.
BATCH_BYTES = 256 * 1024
#: Records for one partition up to which a call shares batches with others.
SHARED_RECORDS_MAX = 8
#: A topic that was created a moment ago is not yet known to every broker: pauses before one is called unknown, seconds.
_CREATION_SPREADS_S = (0.1, 0.4, 0.0)
#: Records between two turns of the event loop while a call's records are checked and encoded.
SLICE_RECORDS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where a record lies. `offset` is -1 if the broker had it already from an earlier attempt and did not say where."""

    topic: str  #: logical name
    partition: int
    offset: int


class Publisher:
    """One producer, started when first needed, shared by all calls, replaced after a failure."""

    def __init__(self, kafka: Kafka, codec: Codec, guard: Callable[[], None] | None = None) -> None:
        """`guard` is asked right before records leave the process: what it raises (a `KafkaError`, not retriable) keeps them here."""
        self._kafka = kafka
        self._codec = codec
        self._guard = guard
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()
        self._known: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def publish(
        self, events: Record | Mapping[str, Any] | Iterable[Record | Mapping[str, Any]], topic: str, headers: Headers
    ) -> list[Published]:
        """See `Bus.publish`."""
        single = isinstance(events, (Record, Mapping))
        if not single and (isinstance(events, (str, bytes)) or not isinstance(events, Iterable)):
            raise InvalidInput("event.not-object", f"Publish an event or an iterable of events, not {type(events).__name__}.")
        given: Iterable[Any] = [events] if isinstance(events, (Record, Mapping)) else events
        refuse_unwritable(topic)
        partitions = await self.partitions(topic)
        ready: list[Outgoing] = []
        for index, item in enumerate(given):
            try:
                ready.append(self._prepared(item, topic, partitions, headers))
            except BackboneError as error:
                raise error if single else located(error, index) from error
            if index % SLICE_RECORDS == SLICE_RECORDS - 1:
                await asyncio.sleep(0)
        return await self.send(topic, ready)

    async def publish_one(self, topic: str, key: str, record: Record, headers: Headers) -> Published:
        """See `Bus.send`."""
        refuse_unwritable(topic)
        check_given(record, topic)
        ready = outgoing(self._codec, record, await self.partitions(topic), key=key, headers=headers)
        return (await self.send(topic, [ready]))[0]

    def prepare(self, line: bytes | Mapping[str, Any], partitions: int) -> Outgoing:
        """A line of NDJSON or a mapping as an event ready for `send`. Raises `InvalidInput` and `TooLarge` as `parse_event`."""
        return event_outgoing(self._codec, parse_fields(line), partitions)

    def _prepared(self, item: Any, topic: str, partitions: int, headers: Headers) -> Outgoing:
        if isinstance(item, Mapping):
            if not takes_events(topic):
                check_given(parse_event(item), topic)  # refuses
            return event_outgoing(self._codec, parse_fields(item), partitions, headers)
        if type(item) is SystemEvent and item.aggregate_id is None and item.input is None and item.epoch is None and item.sequence is None:
            if not takes_events(topic):
                check_given(item, topic)  # refuses
            return event_outgoing(self._codec, fields_of(item), partitions, headers)
        check_given(item, topic)
        return outgoing(self._codec, item, partitions, headers=headers)

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic (logical name) has. Raises `NotFound` (`topic.unknown`)."""
        producer = await self._started()
        physical = self._kafka.names.physical(topic)
        if physical not in self._known:
            try:
                await partitions_on_broker(producer.client, self._kafka, topic)
            except (KafkaError, OSError) as error:
                raise self._kafka.unreachable(error) from error
            self._known.add(physical)
        try:
            return len(await producer.partitions_for(physical))
        except KafkaError as error:
            self._known.discard(physical)
            raise translated(error, topic) from error

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[Published]:
        """Sends records in order (per partition) and waits for the broker. Raises `Unavailable`, `TooLarge`, `NotFound`."""
        if not records:
            return []
        producer = await self._started()
        by_partition: dict[int, list[int]] = {}
        for index, record in enumerate(records):
            by_partition.setdefault(record.partition, []).append(index)
        offsets = [-1] * len(records)
        physical = self._kafka.names.physical(topic)
        async with self._sending(producer, topic):
            if len(by_partition) == 1:
                await send_partition(producer, physical, *by_partition.popitem(), records, offsets)
            else:
                async with asyncio.TaskGroup() as group:
                    for partition, indices in by_partition.items():
                        group.create_task(send_partition(producer, physical, partition, indices, records, offsets))
        return [Published(topic=topic, partition=record.partition, offset=offset) for record, offset in zip(records, offsets, strict=True)]

    async def send_rendered(self, topic: str, records: Mapping[int, Sequence[bytes]]) -> None:
        """As `send`, of rendered records (`streams.bus.rendering`) by partition."""
        producer = await self._started()
        physical, now_ms = self._kafka.names.physical(topic), time.time_ns() // 1_000_000
        async with self._sending(producer, topic):
            acknowledged = []
            # A batch waits for the one before it in its partition, not for those of others.
            waiting = [(partition, batches_of(bodies, now_ms, BATCH_BYTES)) for partition, bodies in records.items()]
            while waiting:
                further = []
                for partition, batches in waiting:
                    if (batch := next(batches, None)) is not None:
                        acknowledged.append(await producer.send_batch(batch, physical, partition=partition))
                        further.append((partition, batches))
                waiting = further
            await asyncio.gather(*acknowledged)

    @asynccontextmanager
    async def _sending(self, producer: AIOKafkaProducer, topic: str) -> AsyncIterator[None]:
        """What goes wrong inside replaces the producer, and is told in the product's words."""
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                yield
        except TimeoutError as error:
            await self._discard(producer)
            raise Unavailable(
                "kafka.timeout",
                f"The broker did not acknowledge within {PUBLISH_TIMEOUT_S:.0f} s; some records may be there.",
                advice="Send the same records again: readers ignore an id that they have seen.",
            ) from error
        except BaseExceptionGroup as errors:
            await self._discard(producer)
            raise translated(errors.exceptions[0], topic) from errors
        except Exception as error:
            await self._discard(producer)
            raise translated(error, topic) from error

    async def settle_down(self) -> None:
        """After a failure: returns when nothing of what has failed can reach the broker any more."""
        if self._closing:
            await asyncio.wait(self._closing)

    async def close(self) -> None:
        """Stops the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon(producer)
        await self.settle_down()

    async def _started(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                producer = self._kafka.new_producer(max_batch_size=BATCH_BYTES)
                try:
                    await start(producer)
                except KafkaError as error:
                    raise self._kafka.unreachable(error) from error
                if self._guard is not None:
                    _guarded(producer, self._guard)
                self._producer = producer
            return self._producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
        task = asyncio.create_task(abandon(producer))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _guarded(producer: AIOKafkaProducer, guard: Callable[[], None]) -> None:
    """Nothing is awaited between the guard's answer and the write to the socket but what is there already."""
    client = producer.client
    send = client.send

    async def guarded(node_id: int, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT) -> Any:
        if isinstance(request, ProduceRequest):
            await client.ready(node_id, group=group)
            guard()
        return await send(node_id, request, group=group)

    client.send = guarded


async def send_partition(
    producer: AIOKafkaProducer, physical: str, partition: int, indices: Sequence[int], records: Sequence[Outgoing], offsets: list[int]
) -> None:
    """Batches one partition's records, in order; fills in their offsets when all batches are acknowledged.

    `indices` are the partition's among `records`. Raises what the client raises.
    """
    # The client's own `send` refuses a record with neither key nor value, which is one all the same: a dead letter may be.
    if len(indices) <= SHARED_RECORDS_MAX and all((records[index].key, records[index].value) != (None, None) for index in indices):
        await _send_shared(producer, physical, partition, records, indices, offsets)
        return
    sent: list[tuple[asyncio.Future[Any], list[int]]] = []
    batch, within = producer.create_batch(), list[int]()
    for index in indices:
        record = records[index]
        if batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is None:
            sent.append((await producer.send_batch(batch, physical, partition=partition), within))
            batch, within = producer.create_batch(), []
            if batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is None:
                raise MessageSizeTooLargeError(f"{len(record.value or b'')} bytes do not fit into a batch")
        within.append(index)
    sent.append((await producer.send_batch(batch, physical, partition=partition), within))
    for future, places in sent:
        metadata = await future
        if metadata.offset is not None and metadata.offset >= 0:
            for distance, index in enumerate(places):
                offsets[index] = metadata.offset + distance


async def _send_shared(
    producer: AIOKafkaProducer, physical: str, partition: int, records: Sequence[Outgoing], indices: Sequence[int], offsets: list[int]
) -> None:
    """Sends a few records in batches that concurrent calls share.

    Explicit batches wait for each other per partition, and aiokafka's time-out of that wait runs out the sooner the more wait.
    """
    sent = []
    for index in indices:
        record = records[index]
        sent.append(await producer.send(physical, key=record.key, value=record.value, headers=list(record.headers), partition=partition))
    for index, future in zip(indices, sent, strict=True):
        metadata = await future
        if metadata.offset is not None and metadata.offset >= 0:
            offsets[index] = metadata.offset


async def partitions_on_broker(client: Any, kafka: Kafka, topic: str) -> list[int]:
    """The partitions of a topic (logical name), from any client of aiokafka. Raises `NotFound` (`topic.unknown`)."""
    physical = kafka.names.physical(topic)
    for pause in _CREATION_SPREADS_S:
        # Asking for all topics never creates one, asking for one may.
        numbers = (await cluster_metadata(client)).partitions_for_topic(physical)
        if numbers:
            return sorted(numbers)
        await asyncio.sleep(pause)
    raise unknown_topic(topic)


def refuse_unwritable(topic: str) -> None:
    """Logs belong to their owners: a record without an epoch would be void for every reader."""
    known = BY_NAME.get(topic)
    if known is not None and known.log:
        raise InvalidInput("topic.log", f"{topic} is a log: only its owner writes to it.", advice=f"Publish events to {SYSTEM_EVENTS}.")


def takes_events(topic: str) -> bool:
    """Whether system events may lie in a topic: of the catalogue's those that say so, of users' own all."""
    known = BY_NAME.get(topic)
    return known is None or SystemEvent in known.records


def check_given(record: Any, topic: str) -> None:
    """Refuses what is no record, does not belong into a topic of the catalogue, or is malformed."""
    if not isinstance(record, Record):
        raise InvalidInput("event.not-object", f"An event is a SystemEvent or a mapping, not {type(record).__name__}.", pointer="")
    known = BY_NAME.get(topic)
    if known is not None and known.records and type(record) not in known.records:
        names = ", ".join(cls.__name__ for cls in known.records)
        raise InvalidInput("record.unexpected", f"{topic} takes {names}, not {type(record).__name__}.", pointer="")
    check_record(record)


def located(error: BackboneError, index: int) -> BackboneError:
    """The same error with the place of the event in the list: `/events/<index>` before its pointer."""
    return type(error)(error.code, error.message, pointer=pointer("", "events", index) + (error.pointer or ""), advice=error.advice)


def unknown_topic(topic: str) -> NotFound:
    """The error for a topic that the broker does not have."""
    advice = "Run `mplp topics apply`." if topic in BY_NAME else "Create it first; `mplp topics apply` makes the topics of the catalogue."
    return NotFound("topic.unknown", f"There is no topic {topic}.", advice=advice)


def translated(error: BaseException, topic: str) -> BackboneError:
    """A client's error in the product's words."""
    match error:
        case BackboneError():
            return error
        case MessageSizeTooLargeError():
            return TooLarge("payload.too-large", f"The broker refuses a record of this size for {topic}: {error}")
        case UnknownTopicOrPartitionError():
            return unknown_topic(topic)
        case TopicAuthorizationFailedError():
            return Denied("kafka.denied", f"Kafka does not allow this for {topic}.")
        case KafkaError() | OSError():
            return Unavailable("kafka.failed", f"Kafka refused or lost the request for {topic}: {type(error).__name__}: {error}")
        case _:
            return Defect("bus.defect", f"{type(error).__name__}: {error}")
