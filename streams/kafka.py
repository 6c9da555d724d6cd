"""Kafka clients from settings: the one place that knows addresses, TLS and SASL. An unreachable broker is `kafka.unreachable`."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from streams import limits
from streams.concurrency import closed
from streams.errors import Unavailable
from streams.settings import Settings

#: How long the end of a transaction may take to reach the partitions, and the pause between two looks, seconds.
VISIBLE_S = 10.0
_LOOK_S = 0.01
#: How long a broker may say that there is no broker before it is called unreachable, and the pause between two questions, seconds.
NO_BROKER_S = 5.0
_ASK_AGAIN_S = 0.1


class Kafka:
    """Makes clients; holds no connection itself."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = settings.names

    def client_options(self) -> dict[str, Any]:
        """Options that every aiokafka client takes: servers and security."""
        settings = self.settings
        options: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap_servers(),
            "security_protocol": settings.kafka_security_protocol,
        }
        if settings.kafka_security_protocol.endswith("SSL"):
            options["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ca_file or None)
        if settings.kafka_security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": settings.kafka_sasl_mechanism,
                "sasl_plain_username": settings.kafka_sasl_username,
                "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
            }
        return options

    def new_producer(self, **options: Any) -> AIOKafkaProducer:
        """A producer, not started: idempotent, `acks=all`, no lingering, large enough for one log batch."""
        defaults: dict[str, Any] = {
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": 0,
            "max_request_size": limits.LOG_MESSAGE_BYTES_MAX,
            "max_batch_size": 1024 * 1024,
            "request_timeout_ms": 30_000,
        }
        return AIOKafkaProducer(**{**self.client_options(), **defaults, **options})

    def new_consumer(self, *topics: str, **options: Any) -> AIOKafkaConsumer:
        """A consumer of physical topics, not started: no group unless given, no automatic commits, fetches fit a log batch."""
        defaults: dict[str, Any] = {
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "max_partition_fetch_bytes": limits.LOG_MESSAGE_BYTES_MAX,
            "fetch_max_bytes": 4 * limits.LOG_MESSAGE_BYTES_MAX,
            "fetch_max_wait_ms": 200,
        }
        return AIOKafkaConsumer(*topics, **{**self.client_options(), **defaults, **options})

    @asynccontextmanager
    async def producer(self, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
        """A started producer, stopped at the end."""
        producer = self.new_producer(**options)
        await start(producer)
        try:
            yield producer
        finally:
            await closed(producer.stop())

    @asynccontextmanager
    async def consumer(self, *topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
        """A started consumer, stopped at the end."""
        consumer = self.new_consumer(*topics, **options)
        await start(consumer)
        try:
            yield consumer
        finally:
            await closed(consumer.stop())

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A started admin client, closed at the end."""
        admin = AIOKafkaAdminClient(**self.client_options())
        try:
            await admin.start()
        except (KafkaConnectionError, KafkaError, OSError) as error:
            await admin.close()
            raise self.unreachable(error) from error
        try:
            yield admin
        finally:
            await closed(admin.close())

    async def until_visible(self, topic: str, partition: int, offset: int) -> None:
        """Returns when readers of what is committed see the record at `offset` of a topic (name on the broker), at once for -1.

        It waits for `VISIBLE_S` at most.
        A broker acknowledges the end of a transaction before it has told the partitions: who reads at once may see nothing of it.
        """
        if offset < 0:
            return
        place = TopicPartition(topic, partition)
        async with self.consumer(isolation_level="read_committed") as consumer:
            with suppress(TimeoutError):
                async with asyncio.timeout(VISIBLE_S):
                    while True:
                        if int((await consumer.end_offsets([place]))[place]) > offset:
                            return
                        await asyncio.sleep(_LOOK_S)

    def unreachable(self, error: Exception) -> Unavailable:
        """The error that says that this broker does not answer."""
        return _unreachable(self.settings.bootstrap_servers(), error)


async def start(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Starts a client; one that cannot reach its broker is closed and `Unavailable` (`kafka.unreachable`) is raised."""
    try:
        await client.start()
    except (KafkaConnectionError, OSError) as error:
        await closed(client.stop())
        raise _unreachable("the configured servers", error) from error
    except BaseException:
        await closed(client.stop())
        raise


async def cluster_metadata(client: Any) -> Any:
    """All topics and partitions (`aiokafka.cluster.ClusterMetadata`) from a started client; asking for all topics never creates one.

    A broker that stood still for longer than its controller waits (a laptop that slept, a machine that is too busy) says until its next
    heartbeat that there is no broker, not even itself: it is asked again for `NO_BROKER_S`. Raises `KafkaError`.
    """
    until = time.monotonic() + NO_BROKER_S
    while True:
        try:
            return await client.fetch_all_metadata()
        except KafkaError:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(_ASK_AGAIN_S)


async def is_deleted(kafka: Kafka, physical: str) -> bool:
    """Whether a topic (its name on the broker) that was there is gone; False if the broker does not say. Raises `Unavailable`."""
    async with kafka.consumer() as consumer:
        try:
            return physical not in (await cluster_metadata(consumer._client)).topics()
        except KafkaError:
            return False


def observe_fencing(producer: AIOKafkaProducer) -> None:
    """Looks at two futures that aiokafka leaves alone when a producer is fenced: of the batch's way out and of the transaction's end.

    Python would report them as never retrieved whenever they are collected, long after the other writer was waited for.
    """
    futures = [batch._drain_waiter for batches in producer._message_accumulator._batches.values() for batch in batches]
    for future in (*futures, producer._txn_manager.wait_for_transaction_end()):
        future.add_done_callback(lambda done: done.cancelled() or done.exception())


def _unreachable(servers: str | Sequence[str], error: Exception) -> Unavailable:
    return Unavailable(
        "kafka.unreachable",
        f"Kafka at {servers} does not answer ({type(error).__name__}).",
        advice="Start it with `mplp up`, or set MPLP_KAFKA_BOOTSTRAP.",
    )
