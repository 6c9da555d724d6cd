"""Documents on a control topic: the newest record of each id, every version ever, and how a change is decided against both.

Under `<id>` lies what is in force; under `<id>@<version>` the same record for ever, since the topic is compacted. A change is
decided and written in a transaction whose id all writers share: who begins one ends any other, so between its look at the topic and
its commit nobody else has changed anything. Versions never repeat, and several documents change together or not at all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced, UnknownError

from streams.bus.publisher import translated
from streams.codec.avro import headers_of
from streams.control.changes import VERSION_MARK, Stock
from streams.control.kinds import Kind
from streams.errors import BackboneError, Refused
from streams.kafka import start
from streams.records import ControlRecord

if TYPE_CHECKING:
    from streams.bus.bus import Bus

#: A writer that died in the middle holds up readers no longer than this, milliseconds.
_TRANSACTION_MS = 5000
_ATTEMPTS_MAX = 50
_FETCH_MS = 500


async def read_stock(bus: Bus, kind: Kind) -> Stock:
    """The control topic to its present end. Raises `NotFound` (`topic.unknown`) and `Unavailable`."""
    await bus.publisher.partitions(kind.topic)  # unknown topics are told, not waited for
    async with bus.kafka.consumer(isolation_level="read_committed", fetch_max_wait_ms=_FETCH_MS) as consumer:
        try:
            return await _read(bus, kind, consumer)
        except KafkaError as error:
            raise translated(error, kind.topic) from error


async def _read(bus: Bus, kind: Kind, consumer: AIOKafkaConsumer) -> Stock:
    stock = Stock()
    tp = TopicPartition(bus.kafka.names.physical(kind.topic), 0)
    first = int((await consumer.beginning_offsets([tp]))[tp])
    end = int((await consumer.end_offsets([tp]))[tp])
    consumer.assign([tp])
    consumer.seek(tp, first)
    while int(await consumer.position(tp)) < end:
        for raw in (await consumer.getmany(tp, timeout_ms=_FETCH_MS)).get(tp, ()):
            record = _decoded(bus, kind, raw.value)
            if record is not None:
                stock.take(record, raw.offset)
    return stock


def _decoded(bus: Bus, kind: Kind, value: bytes | None) -> ControlRecord | None:
    """A document's record; None: what somebody else has put there, which the workers do not follow either."""
    if value is None:
        return None
    try:
        record = bus.codec.decode(value)
        return (
            record if isinstance(record, ControlRecord) and record.kind == kind.name and orjson.loads(record.content) is not None else None
        )
    except (BackboneError, ValueError):
        return None


async def change(bus: Bus, kind: Kind, decide: Callable[[Stock], Sequence[ControlRecord]]) -> int:
    """Writes what `decide` makes of the documents as they are, all or nothing; the offset of the last record, -1 if there was none.

    `decide` may be called several times, and what it raises ends the attempt. Raises `Refused` (`control.contended`), `Unavailable`.
    """
    names = bus.kafka.names
    for attempt in range(_ATTEMPTS_MAX):
        if attempt:
            await asyncio.sleep(random.uniform(0.01, 0.05 * min(attempt, 10)))  # writers that collide part
        producer = bus.kafka.new_producer(transactional_id=f"{names.prefix}.{kind.plural}", transaction_timeout_ms=_TRANSACTION_MS)
        await start(producer)
        try:
            return await _change(bus, kind, producer, decide)
        except (ProducerFenced, InvalidProducerEpoch):
            continue  # another writer has begun: look again
        except KafkaError as error:
            # Writers that fence each other at once get "unknown server error" for the end of a transaction, rarely: look what became of it.
            if not isinstance(error, UnknownError) and not isinstance(error.__cause__, UnknownError):
                raise translated(error, kind.topic) from error
        finally:
            await producer.stop()
    raise Refused("control.contended", f"Others changed the {kind.plural} {_ATTEMPTS_MAX} times meanwhile.", advice="Try again.")


async def _change(bus: Bus, kind: Kind, producer: AIOKafkaProducer, decide: Callable[[Stock], Sequence[ControlRecord]]) -> int:
    await producer.begin_transaction()  # ends what any other writer has begun
    try:
        records = decide(await read_stock(bus, kind))
    except BaseException:
        await producer.abort_transaction()
        raise
    topic = bus.kafka.names.physical(kind.topic)
    sent: list[asyncio.Future[Any]] = []
    for record in records:
        # What is in force comes last: who reads its offset has read its version too.
        for each in (replace(record, id=f"{record.id}{VERSION_MARK}{record.version}"), record):
            value = bus.codec.encode(each)
            sent.append(await producer.send(topic, value, key=each.id.encode(), partition=0, headers=headers_of(each)))
    placed = await asyncio.gather(*sent)
    await producer.commit_transaction()
    last = max((int(place.offset) for place in placed), default=-1)
    await bus.kafka.until_visible(topic, 0, last)
    return last
