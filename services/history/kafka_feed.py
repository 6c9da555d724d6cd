"""Kafka and threads under the sink's ports."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.history import erase_log
from services.history.erasures import Building
from services.history.membership import Everything, Group
from services.history.ports import Fetched, Membership, Place, Ports
from services.history.store import History
from streams.codec.avro import Codec
from streams.kafka import Kafka, cluster_metadata, start
from streams.log.fenced import FencedLog
from streams.log.reader import epoch_at
from streams.parsed import hand_out_as_parsed
from streams.topic_ids import topic_ids
from streams.topics import BLOCKS

#: Records that are taken over at once; the event loop is busy meanwhile.
FETCH_RECORDS_MAX = 10_000
#: A fetch waits for this many bytes, but no longer than this: a sink that is woken by every record costs more than the records do.
FETCH_BYTES_MIN, FETCH_WAIT_MS = 256 * 1024, 200
#: How often positions are asked for that moved without a record, seconds.
POSITIONS_S = 0.5


class KafkaFeed:
    """`ports.Feed` over two consumers: a broker answers a connection in order, and a fetch waits; so questions have their own."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        self._kafka, self._codec = kafka, codec
        self._consumer: AIOKafkaConsumer = kafka.new_consumer(fetch_min_bytes=FETCH_BYTES_MIN, fetch_max_wait_ms=FETCH_WAIT_MS)
        self._asker: AIOKafkaConsumer = kafka.new_consumer()
        self._asked_s = 0.0
        self._paused: frozenset[TopicPartition] = frozenset()

    async def open(self) -> KafkaFeed:
        """Connects. Raises `Unavailable` (`kafka.unreachable`)."""
        await start(self._consumer)
        try:
            await start(self._asker)
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def topics(self) -> Mapping[str, int]:
        """See `ports.Feed`."""
        # The consumer's own `topics()` has the names only; this is the request below it.
        metadata = await cluster_metadata(self._asker._client)
        return {topic: len(metadata.partitions_for_topic(topic) or ()) for topic in metadata.topics()}

    async def topic_ids(self, topics: Collection[str]) -> Mapping[str, str]:
        """See `ports.Feed`."""
        return await topic_ids(self._asker._client, sorted(topics))

    async def starts(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """See `ports.Feed`."""
        found = await self._asker.beginning_offsets([TopicPartition(*place) for place in places])
        return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}

    async def ends(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """See `ports.Feed`."""
        asked = [TopicPartition(*place) for place in places]
        found = await self._asker.end_offsets(asked) if asked else {}
        return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}

    async def epoch_at(self, topic: str, partition: int, offset: int) -> int:
        """See `ports.Feed`."""
        return await epoch_at(self._kafka, self._codec, topic, partition, offset)

    def assign(self, positions: Mapping[Place, int]) -> None:
        """See `ports.Feed`."""
        self._consumer.assign([TopicPartition(*place) for place in positions])
        for place, position in positions.items():
            self._consumer.seek(TopicPartition(*place), position)
        self._paused = frozenset()

    def pause(self, places: Collection[Place]) -> None:
        """See `ports.Feed`."""
        wanted = frozenset(TopicPartition(*place) for place in places) & self._consumer.assignment()
        if wanted != self._paused:
            self._consumer.resume(*(self._paused - wanted) & self._consumer.assignment())
            self._consumer.pause(*wanted)
            self._paused = wanted

    async def fetch(self) -> Sequence[Fetched]:
        """See `ports.Feed`. Every now and then it has positions also of partitions where nothing has arrived."""
        if not self._consumer.assignment():
            await asyncio.sleep(FETCH_WAIT_MS / 1000)
            return ()
        hand_out_as_parsed(self._consumer)
        fetched: Mapping[TopicPartition, list[Any]] = await self._consumer.getmany(timeout_ms=FETCH_WAIT_MS, max_records=FETCH_RECORDS_MAX)
        now_s = asyncio.get_running_loop().time()
        if now_s - self._asked_s < POSITIONS_S:
            return [Fetched(place=(tp.topic, tp.partition), records=records, position=0) for tp, records in fetched.items()]
        self._asked_s = now_s
        found = []
        assignment = self._consumer._subscription.subscription.assignment
        for tp in assignment.tps:
            # Markers of transactions, and what retention or compaction removed, have offsets and no record. A partition that looks
            # for its position (the topic may just have been deleted) has none; asking the client for it would wait.
            state = assignment.state_value(tp)
            position = int(state.position) if state.has_valid_position else 0
            end = int(state.highwater or 0)
            found.append(Fetched(place=(tp.topic, tp.partition), records=fetched.get(tp, ()), position=position, end=end))
        return found

    async def close(self) -> None:
        """See `ports.Feed`."""
        try:
            await self._consumer.stop()
        finally:
            await self._asker.stop()


def kafka_ports(kafka: Kafka, codec: Codec, history: History, *, shared: bool) -> Ports:
    """The sink's ports over Kafka and ClickHouse. `shared`: other sinks fill the same tables, and a group shares the work."""
    owner = f"mplp/history/{socket.gethostname()}/{os.getpid()}"

    async def open_feed() -> KafkaFeed:
        feed = await KafkaFeed(kafka, codec).open()
        try:
            await erase_log.refresh(kafka, codec, history.erasures, feed._asker)
        except BaseException:
            await feed.close()
            raise
        return feed

    def membership(count: int) -> Membership:
        return Group(kafka, f"{kafka.settings.topic_prefix}.history.{history.database}") if shared else Everything(count)

    return Ports(
        names=kafka.names,
        codec=codec,
        owner=owner,
        tables=history.tables,
        open_feed=open_feed,
        open_log=lambda number: FencedLog(kafka, codec, topic=BLOCKS, partition=number, owner=owner),
        membership=membership,
        in_thread=asyncio.to_thread,
        alone=not shared,
        build=Building(history.erasures, kafka.names),
    )
