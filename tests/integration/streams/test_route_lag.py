"""How far routes and groups are behind, where letters were put back: what ends a transaction takes an offset that nobody settles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition

from services.processes import status
from streams.bus import Bus
from streams.kafka import Kafka
from streams.log.kafka_log import read_range
from streams.log.ports import Stored
from streams.routing import control, dlq, lag
from streams.routing.selection import LetterSelection
from streams.topics import RETRY_SUFFIX, SYSTEM_EVENTS
from tests.chaos.redrive import bury

pytestmark = pytest.mark.broker


async def settled(bus: Bus) -> None:
    """Three letters that were purged: in `<topic>.retry` ends a transaction."""
    await bury(bus, 3)
    await dlq.purge(bus, LetterSelection(), who="test")


async def test_what_many_routes_have_before_them_is_read_once(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = [{"id": name, "match": {"topic": SYSTEM_EVENTS}, "destination": {"topic": "mplp.taken"}} for name in ("one", "three", "two")]
    await control.apply(bus, routes, who="test")
    await settled(bus)
    asked: list[tuple[str, int, int]] = []

    async def counted(consumer: Any, topic: str, partition: int, start: int, end: int) -> AsyncIterator[Stored]:
        asked.append((topic, partition, start))
        async for stored in read_range(consumer, topic, partition, start, end):
            yield stored

    monkeypatch.setattr(lag, "read_range", counted)

    found = await lag.lags(bus)

    places = [place for place in asked if place[0].endswith(RETRY_SUFFIX)]
    assert places
    assert len(places) == len(set(places))
    assert found["one"].records == found["two"].records == found["three"].records


async def test_a_group_that_has_everything_is_not_behind_by_the_end_of_a_transaction(bus: Bus, kafka: Kafka) -> None:
    await settled(bus)
    retry = SYSTEM_EVENTS + RETRY_SUFFIX
    physical = kafka.names.physical(retry)
    async with kafka.consumer(group_id="keepers") as consumer:
        places = [TopicPartition(physical, number) for number in range(await bus.publisher.partitions(retry))]
        ends = await consumer.end_offsets(places)
        for place in places:  # what the group has had: all records
            had = [stored async for stored in read_range(consumer, physical, place.partition, 0, int(ends[place]))]
            consumer.assign([place])
            await consumer.commit({place: had[-1].offset + 1 if had else 0})
            assert not had or had[-1].offset + 1 < ends[place]

    assert (await status._lag(kafka))["keepers"] == {retry: 0}
