"""A topic that is deleted and made again under its name is another topic: its records and those of the earlier one are never mixed."""

from __future__ import annotations

import asyncio

import pytest

from services.history.store import History
from services.history.verify import Ask, Verifier
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from streams.topics_apply import apply_topics
from tests.integration.history.helpers import caught_up, encoded, produce, sinking, value_of
from tests.integration.history.odd import all_there

pytestmark = pytest.mark.broker


async def send(kafka: Kafka, codec: Codec, name: str, count: int) -> None:
    sent = [SystemEvent(type=name, subject=f"s{n}", data={"n": n}) for n in range(count)]
    await produce(kafka, SYSTEM_EVENTS, [encoded(codec, event, event.subject) for event in sent])


async def made_again(kafka: Kafka) -> None:
    topic = kafka.names.physical(SYSTEM_EVENTS)
    async with kafka.admin() as admin:
        await admin.delete_topics([topic])
        async with asyncio.timeout(180):
            while topic in await admin.list_topics():
                await asyncio.sleep(0.1)
    await apply_topics(kafka)


async def counts(history: History) -> dict[tuple[str, str], int]:
    """Rows by type and topic."""
    topic = "splitByChar('@', _topic)[1] || if(position(_topic, '@') > 0, '@', '') AS topic"
    sql = f"SELECT type, {topic}, count() AS n FROM system_events GROUP BY ALL"
    return {(row["type"], row["topic"]): row["n"] for row in (await history.query(sql)).objects()}


async def test_rows_of_an_earlier_topic_are_set_aside_whether_the_sink_was_there_or_not(
    kafka: Kafka, codec: Codec, settings: Settings
) -> None:
    async with History(settings) as history:
        async with sinking(kafka, codec, history) as sink:
            await send(kafka, codec, "first", 120)
            await caught_up(sink)
            # Fewer records than before; the sink is at an offset that the new topic does not have.
            await made_again(kafka)
            await send(kafka, codec, "second", 60)
            async with asyncio.timeout(180):
                while await counts(history) != {("first", SYSTEM_EVENTS + "@"): 120, ("second", SYSTEM_EVENTS): 60}:
                    await asyncio.sleep(0.2)
        # As many as before, while no sink runs: every place of the earlier topic has a record of the new one.
        await made_again(kafka)
        await send(kafka, codec, "third", 60)
        async with sinking(kafka, codec, history) as sink:
            await caught_up(sink)
            assert await counts(history) == {
                ("first", SYSTEM_EVENTS + "@"): 120,
                ("second", SYSTEM_EVENTS + "@"): 60,
                ("third", SYSTEM_EVENTS): 60,
            }
            await send(kafka, codec, "third", 60)
            await caught_up(sink)
        names = "SELECT uniqExact(_topic) FROM system_events"
        assert await value_of(history, names) == 3, "each earlier topic has a name of its own"
        lag = "SELECT max(dateDiff('second', _timestamp, _inserted_at)) FROM system_events WHERE type = 'first'"
        assert await value_of(history, lag) < 30, "a row keeps the time when it was first inserted"
        report = await Verifier(kafka, codec, history, all_there).run(Ask())
        assert report.verdict == "exact", report.to_dict()
        assert sum(each.rows for each in report.absent) == 180, "what only the history has is told"


async def test_a_block_of_the_new_topic_is_not_taken_for_the_same_one_of_the_earlier(
    kafka: Kafka, codec: Codec, settings: Settings
) -> None:
    """The same places in one block each: the tables remember the inserts of the earlier topic."""
    async with History(settings) as history:
        for name in ("first", "second"):
            if name == "second":
                await made_again(kafka)
            await send(kafka, codec, name, 40)
            async with sinking(kafka, codec, history) as sink:
                await caught_up(sink)
        assert {each: n for (each, _), n in (await counts(history)).items()} == {"first": 40, "second": 40}
