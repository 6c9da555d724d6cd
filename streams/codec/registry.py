"""The schema registry: a topic in Confluent's record layout (`_schemas`, unless the settings name another one), or any
Confluent-compatible registry by URL.

Writers of the topic exclude each other with the broker's help: whoever wants to write initialises the transactional id
`<topic>-writer`, which fences every earlier holder, then reads the topic to its end and writes what is missing in one transaction.
A writer that was overtaken cannot commit; it begins again and finds what the other wrote. So no id is ever given twice and no version
is overwritten. A registry of Confluent's own does not know this protocol: when one serves the topic, set its URL and write through it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed

from streams.codec.avro import Codec, SchemaIds, local_schemas, schema_text
from streams.codec.compatibility import violations
from streams.codec.store import FULL_TRANSITIVE, SchemaStore, SchemaVersion, config_record
from streams.codec.subjects import registrations
from streams.errors import InvalidInput, Refused, TooLarge, Unavailable
from streams.kafka import Kafka, observe_fencing, start

T = TypeVar("T")

_ATTEMPTS = 20
_READ_TIMEOUT_S = 30.0

Writes = Sequence[tuple[bytes, bytes | None]]


async def read_store(kafka: Kafka) -> SchemaStore:
    """The whole topic of the schemas; empty if there is none. Raises `Unavailable` (`kafka.unreachable`, `schema.unreadable`)."""
    async with closing_follower(kafka) as follower:
        return await follower.current()


class SchemaFollower:
    """Keeps a store up to date with the topic: each `current` reads on to the topic's end. One caller reads at a time."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._topic = kafka.settings.schemas_topic
        self._store = SchemaStore()
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()

    async def current(self) -> SchemaStore:
        """The store as of now. Raises `Unavailable` (`kafka.unreachable`, `schema.unreadable`); the next call then begins anew."""
        async with self._turn:
            try:
                async with asyncio.timeout(_READ_TIMEOUT_S):
                    await self._read_on()
            except TimeoutError as error:
                await self.close()
                raise Unavailable(
                    "schema.unreadable", f"The topic {self._topic} could not be read to its end in {_READ_TIMEOUT_S:.0f} s."
                ) from error
            except KafkaError as error:
                await self.close()
                raise self._kafka.unreachable(error) from error
            except BaseException:
                await self.close()
                raise
            return self._store

    async def _read_on(self) -> None:
        partition = TopicPartition(self._topic, 0)
        if self._consumer is None:
            consumer = self._kafka.new_consumer(isolation_level="read_committed", fetch_max_wait_ms=20)
            await start(consumer)
            self._consumer, self._store = consumer, SchemaStore()
            # A consumer that asks for a topic which is not there would make the broker create it, with its own defaults.
            if self._topic not in await consumer.topics():
                await self.close()
                return
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
        consumer = self._consumer
        end = (await consumer.end_offsets([partition]))[partition]
        if await consumer.position(partition) >= end:
            return
        consumer.resume(partition)
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(partition, timeout_ms=200)).get(partition, ()):
                self._store.apply(record.key, record.value)
        # A fetch that waits for news at the broker holds up every later request of its connection.
        consumer.pause(partition)

    async def close(self) -> None:
        """Gives the connection back; a later `current` reads everything again."""
        consumer, self._consumer, self._store = self._consumer, None, SchemaStore()
        if consumer is not None:
            await consumer.stop()


@asynccontextmanager
async def closing_follower(kafka: Kafka) -> AsyncIterator[SchemaFollower]:
    """A follower that is closed at the end."""
    follower = SchemaFollower(kafka)
    try:
        yield follower
    finally:
        await follower.close()


async def change_store(kafka: Kafka, decide: Callable[[SchemaStore], tuple[Writes, T]]) -> T:
    """Reads the topic, lets `decide` say what to write, writes it, with no other writer in between; returns what `decide` says besides.

    `decide` is called again on the newer content when another writer came first, so it must be free of effects.
    Raises `Unavailable` (`schema.busy` if that happens too often, `schema.not-written` without the rights).
    """
    overtaken: KafkaError | None = None
    topic = kafka.settings.schemas_topic
    for attempt in range(_ATTEMPTS):
        writes, result = decide(await read_store(kafka))
        if not writes:  # nobody is disturbed for nothing
            return result
        try:
            async with kafka.producer(transactional_id=f"{topic}-writer") as producer:  # holding it is the right to write the topic
                writes, result = decide(await read_store(kafka))
                written = await _write(producer, topic, writes)
            await kafka.until_visible(topic, 0, written)
            return result
        except (TransactionalIdAuthorizationFailed, TopicAuthorizationFailedError) as error:
            raise Unavailable("schema.not-written", f"The topic {topic} cannot be written: {error}") from error
        except KafkaError as error:
            # Fenced, or one of the many names that a broker has for it while another writer's transaction ends. Whatever became
            # of the write, the next round reads what is there before it writes. The waits differ, or contenders would overtake
            # each other for ever.
            overtaken = error
            await asyncio.sleep(random.uniform(0, min(4.0, 0.2 * 2**attempt)))
    raise Unavailable("schema.busy", f"The topic {topic} could not be written: {overtaken}", advice="Try again.") from overtaken


async def _write(producer: AIOKafkaProducer, topic: str, writes: Writes) -> int:
    """All of it in one transaction, in as few batches as it fits in; the greatest offset, -1 if there is nothing to write."""
    if not writes:
        return -1
    written = -1
    async with producer.transaction():
        waiting = list(writes)
        while waiting:
            batch = producer.create_batch()
            while waiting and batch.append(key=waiting[0][0], value=waiting[0][1], timestamp=None) is not None:
                del waiting[0]
            if not batch.record_count():
                raise TooLarge("schema.too-large", "The schema does not fit into a record.")
            batch.close()
            sent = await producer.send_batch(batch, topic, partition=0)
            observe_fencing(producer)
            written = max(written, int((await sent).offset))
    return written


async def register(kafka: Kafka, wanted: Sequence[tuple[str, str]]) -> list[SchemaVersion]:
    """Registers (subject, schema text) pairs that are not yet there; gives the version of each, in order.

    Raises `Refused` (`schema.incompatible`), `InvalidInput` (`schema.invalid`); then nothing is written.
    """
    return await change_store(kafka, lambda store: plan_registration(store, wanted))


def plan_registration(store: SchemaStore, wanted: Sequence[tuple[str, str]]) -> tuple[Writes, list[SchemaVersion]]:
    """What `register` writes, and the versions that it gives (pure, on a store of its own)."""

    writes: list[tuple[bytes, bytes | None]] = []
    result: list[SchemaVersion] = []
    if store.own_compatibility(None) is None:
        writes.append(config_record(FULL_TRANSITIVE))
        store.apply(*writes[-1])
    for subject, text in wanted:
        schema = orjson.loads(text)
        entry = store.find(subject, schema)
        if entry is None:
            found = violations(text, [version.schema for version in store.versions(subject)], store.compatibility(subject))
            if found:
                raise Refused("schema.incompatible", f"{subject}: {found[0]}")
            entry = store.next_version(subject, schema, text)
            writes.append((entry.key(), entry.value()))
            store.apply(*writes[-1])
        result.append(entry)
    return writes, result


async def load_schemas(kafka: Kafka) -> SchemaIds:
    """All schemas by id, and the ids under which our records are written.

    Raises `Unavailable` if the registry cannot be read.
    """
    if kafka.settings.schema_registry_url:
        from streams.codec.remote import RemoteRegistry  # brings an HTTP client, which few need

        async with RemoteRegistry(kafka.settings.schema_registry_url) as remote:
            return await remote.load(registrations(kafka.names))
    return ids_of(await read_store(kafka))


def ids_of(store: SchemaStore) -> SchemaIds:
    """What a codec needs from a store."""
    schemas = {number: entry.parsed for number, entry in store.ids().items() if isinstance(entry.parsed, dict)}
    own = {name: store.id_of(schema) for name, schema in local_schemas().items()}
    return SchemaIds(schemas=schemas, record_ids={name: number for name, number in own.items() if number is not None})


async def connect_codec(kafka: Kafka) -> Codec:
    """A codec ready for all our records. Raises `Unavailable`, or `InvalidInput` (`schema.unregistered`) before `mplp topics apply` ran."""
    ids = await load_schemas(kafka)
    missing = sorted(set(local_schemas()) - set(ids.record_ids))
    if missing:
        raise InvalidInput(
            "schema.unregistered", f"The registry lacks the schemas of {', '.join(missing)}.", advice="Run `mplp topics apply`."
        )  # fmt: skip
    return Codec(ids)


async def register_schemas(kafka: Kafka) -> Mapping[str, SchemaVersion]:
    """Registers every record of the catalogue under its subjects; subject → version. Repeating it changes nothing."""
    wanted = [(subject, schema_text(local_schemas()[name])) for subject, name in registrations(kafka.names)]
    if kafka.settings.schema_registry_url:
        from streams.codec.remote import RemoteRegistry  # brings an HTTP client, which few need

        async with RemoteRegistry(kafka.settings.schema_registry_url) as remote:
            return {subject: await remote.register(subject, text) for subject, text in wanted}
    versions = await register(kafka, wanted)
    return {version.subject: version for version in versions}
