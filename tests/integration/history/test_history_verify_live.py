"""`Verifier` while events flow, and while retention takes what was sunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from services.history.sink import Sink
from services.history.store import History
from services.history.verify import Ask, Place, Verifier
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.integration.history.helpers import caught_up, encoded, produce, sinking
from tests.integration.history.odd import changed, events, kinds

pytestmark = pytest.mark.broker


def reached_by(sink: Sink) -> Callable[[Mapping[Place, int], float], Awaitable[Mapping[Place, int]]]:
    async def reached(ends: Mapping[Place, int], timeout: float) -> Mapping[Place, int]:
        assert await sink.wait_until(ends, timeout) == 0
        return ends

    return reached


async def test_while_events_flow_and_retention_takes_them(kafka: Kafka, codec: Codec, settings: Settings) -> None:
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            await produce(kafka, SYSTEM_EVENTS, [encoded(codec, event, event.subject) for event in events(50)])

    async with History(settings) as history, sinking(kafka, codec, history) as sink:
        loading = asyncio.create_task(load())
        verifier = Verifier(kafka, codec, history, reached_by(sink))
        for _ in range(2):
            report = await verifier.run(Ask())
            assert report.verdict == "exact", report.to_dict()
        done.set()
        await loading
        tps = [TopicPartition(kafka.names.physical(SYSTEM_EVENTS), number) for number in range(4)]
        async with kafka.consumer() as consumer:
            ends = await consumer.end_offsets(tps)
        await caught_up(sink)
        async with kafka.admin() as admin:
            await admin.delete_records({tp: RecordsToDelete(before_offset=end // 2) for tp, end in ends.items()})
        said = (await verifier.run(Ask(topics=(SYSTEM_EVENTS,)))).to_dict()
        assert said["verdict"] == "exact"
        assert said["rows"] + said["log_records"] == said["offsets"] == sum(ends.values())
        assert said["compared"] == sum(end - end // 2 for end in ends.values())
        await changed(history, "DELETE FROM system_events WHERE _partition = 0 AND _offset = 1")
        assert kinds(await verifier.run(Ask(quick=True))) == [("missing", SYSTEM_EVENTS, 1)], "also what only the history has"
