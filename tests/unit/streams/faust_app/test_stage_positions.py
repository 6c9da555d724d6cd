"""Where the stages stand when somebody else had their partition in between; the broker is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from streams.codec.avro import Codec, SchemaIds
from streams.faust_app.correlate_stage import Owner
from streams.faust_app.match_stage import MatchStage
from streams.faust_app.prefix import Chunk
from streams.kafka import Kafka
from streams.log.ports import Stored
from streams.settings import Settings
from streams.testing.simulation.stages.clients import Record, SimulatedBatch, record_of
from streams.topics import MATCHES, SYSTEM_EVENTS

KAFKA = Kafka(Settings())
CODEC = Codec(SchemaIds.local())


class Producer:
    """Acknowledges at once, and keeps what was sent to each partition."""

    def __init__(self) -> None:
        self.sent: dict[int, list[bytes]] = {}

    def create_batch(self) -> SimulatedBatch:
        return SimulatedBatch(1000, lambda: 0)

    async def send_batch(self, batch: SimulatedBatch, _: str, *, partition: int) -> asyncio.Future[Any]:
        stored = self.sent.setdefault(partition, [])
        place = type("Place", (), {"offset": len(stored), "timestamp": 0, "timestamp_type": 0})
        stored += [record.value or b"" for record in batch.records]
        acknowledged: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(place)
        return acknowledged


class Consumer:
    """Reads one partition of matches; some at a time."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records, self._at = records, 0

    async def beginning_offsets(self, places: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(places, self._records[0].offset)

    def assign(self, _: Sequence[TopicPartition]) -> None:
        """There is one partition."""

    def seek(self, _: TopicPartition, offset: int) -> None:
        self._at = offset

    async def position(self, _: TopicPartition) -> int:
        return self._at

    async def getmany(self, tp: TopicPartition, **_: Any) -> Mapping[TopicPartition, Sequence[Record]]:
        await asyncio.sleep(0)
        found = [record for record in self._records if record.offset >= self._at][:2]
        self._at = found[-1].offset + 1
        return {tp: found}


# --- matching ---


async def position_told(stage: MatchStage, producer: Producer, handled_to: int) -> int:
    await stage.write_watermark([(SYSTEM_EVENTS, 0, False, handled_to)], {SYSTEM_EVENTS: 1})
    (mark,) = CODEC.decode_raw(producer.sent[0][-1])[1]["marks"]
    return int(mark["offset"])


async def test_a_partition_stands_where_the_group_stands_when_others_have_matched_on() -> None:
    producer = Producer()
    stage = MatchStage(KAFKA, CODEC, cast("Any", producer), partitions=1, name="w")
    await stage.handle(Chunk(topic=KAFKA.names.physical(SYSTEM_EVENTS), partition=0, start=0, end=7, records=(), session=0))

    assert await position_told(stage, producer, handled_to=5) == 7  # acknowledged here, not yet committed
    assert await position_told(stage, producer, handled_to=12) == 12  # this process slept, others went on
    assert await position_told(stage, producer, handled_to=9) == 12


# --- correlating ---


class Applied(Owner):
    """Remembers what it applies, in order; nothing follows from it."""

    applied: list[int]

    def _apply(self, value: bytes | None, timestamp_ms: int, offset: int) -> list[Any]:
        self.applied.append(offset)
        return []

    def _checkpoint_due(self) -> bool:
        return False


def fetched(offset: int) -> Record:
    return record_of(Stored(topic=MATCHES, partition=0, offset=offset, timestamp_ms=0, key=b"k", value=b"v", headers=()))


def chunk(*offsets: int) -> Chunk:
    return Chunk(
        topic=KAFKA.names.physical(MATCHES), partition=0, start=offsets[0], end=offsets[-1] + 1, session=0,
        records=tuple(fetched(offset) for offset in offsets),
    )  # fmt: skip


@contextmanager
def log_of(records: Sequence[Record], patch: pytest.MonkeyPatch) -> Iterator[None]:
    @asynccontextmanager
    async def consumer(*_: Any, **__: Any) -> Any:
        yield Consumer(records)

    with patch.context() as context:
        context.setattr(Kafka, "consumer", consumer)
        yield


async def test_an_owner_reads_what_another_had_committed_before_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Applied(KAFKA, CODEC, cast("Any", Producer()), 0, name="w")
    owner.applied, owner._taken = [], True
    with log_of([fetched(offset) for offset in range(9)], monkeypatch):
        await owner.handle(chunk(0, 1))
        await owner.handle(chunk(5, 6))  # 2, 3 and 4 were fetched by somebody else, who committed them and said nothing
        await owner.handle(chunk(6, 7))  # fetched again after a rebalance

    assert owner.applied == [0, 1, 2, 3, 4, 5, 6, 7]
    assert owner.position == 8
