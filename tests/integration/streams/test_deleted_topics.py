"""Topics that are deleted while somebody looks at them: in the moment between the listing and the questions about what was listed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streams.bus import Bus
from streams.kafka import Kafka, cluster_metadata
from streams.routing import control, dlq, lag, retry_topic
from streams.routing.retry_topic import RetryTopic
from streams.routing.selection import LetterSelection
from streams.topics_apply import WantedTopic, create_topics
from tests.chaos.redrive import bury

pytestmark = pytest.mark.broker

#: How long a client asks for the end of what is gone, milliseconds.
PATIENCE = {"request_timeout_ms": 2000}


def deleting(kafka: Kafka, topic: str) -> Callable[[Any], Awaitable[Any]]:
    """Lists the topics, and deletes one before it says what it has found, once."""
    left = [kafka.names.physical(topic)]

    async def listed(client: Any) -> Any:
        found = await cluster_metadata(client)
        while left:
            async with kafka.admin() as admin:
                await admin.delete_topics([left.pop()])
        async with asyncio.timeout(60):
            while kafka.names.physical(topic) in (await cluster_metadata(client)).topics():
                await asyncio.sleep(0.05)
        return found

    return listed


async def created(kafka: Kafka, topic: str) -> None:
    async with kafka.admin() as admin:
        await create_topics(admin, [WantedTopic(name=kafka.names.physical(topic), partitions=2, replication=1, config={})])


async def stored(bus: Bus, topic: str) -> None:
    await bus.publish({"type": "order.paid", "source": "shop", "data": {}}, topic)


async def test_of_a_retry_topic_that_is_deleted_meanwhile_nothing_is_settled(
    bus: Bus, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(bus, 3)
    (first, *_) = [letter async for letter in dlq.letters(bus, LetterSelection())]
    await dlq.purge(bus, LetterSelection(ids=frozenset({first.id})), who="test")
    topic = RetryTopic(bus, first.place[0])
    await topic.look()
    assert topic.what(first) == "purged"
    monkeypatch.setattr(retry_topic, "RANGE_OPTIONS", {**retry_topic.RANGE_OPTIONS, **PATIENCE})
    monkeypatch.setattr(retry_topic, "cluster_metadata", deleting(kafka, topic.topic))

    late = RetryTopic(bus, first.place[0])
    await late.look()

    assert late.what(first) is None


async def test_the_lag_of_a_route_is_known_though_one_of_its_topics_is_deleted_meanwhile(
    bus: Bus, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic in ("mplp.kept", "mplp.doomed"):
        await created(kafka, topic)
    routes = [
        {"id": topic, "match": {"topic": f"mplp.{topic}"}, "destination": {"topic": "mplp.taken"}, "retry": {"max-retries": 0}}
        for topic in ("doomed", "kept")
    ]
    await control.apply(bus, routes, who="test")
    for topic in ("mplp.kept", "mplp.doomed"):
        await stored(bus, topic)
    assert {name: found.records for name, found in (await lag.lags(bus)).items()} == {"doomed": 1, "kept": 1}
    monkeypatch.setattr(lag, "_OPTIONS", {**lag._OPTIONS, **PATIENCE})
    monkeypatch.setattr(lag, "cluster_metadata", deleting(kafka, "mplp.doomed"))

    assert {name: found.records for name, found in (await lag.lags(bus)).items()} == {"doomed": 0, "kept": 1}
