"""`Rebuilder` against a real broker and a real ClickHouse: new tables equal to the topics, the sink going on, a death at any moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from services.history import rebuild_sql, rebuild_swap
from services.history.blocks import Span
from services.history.rebuild import RebuildAsk, Rebuilder, Rebuilt
from services.history.rebuild_tables import RebuildTables
from services.history.sink import Sink
from services.history.store import History
from services.history.tables import all_tables
from services.history.verify import Ask, Place, Verifier
from services.processes.gateway_history import Pausable
from streams.codec.avro import Codec
from streams.errors import Refused
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.integration.history.helpers import encoded, offsets_in_kafka, produce, value_of
from tests.integration.history.odd import changed, events, log_with_a_zombie

pytestmark = pytest.mark.broker


class Running:
    """A history with its sink and what looks after it, as the gateway has them."""

    def __init__(self, kafka: Kafka, codec: Codec, history: History) -> None:
        self.kafka, self.codec, self.history = kafka, codec, history
        self.sink = Sink(kafka, codec, history)
        self.sinking = Pausable(self.sink.run)
        self.rebuilder = Rebuilder(kafka, codec, history, self.reached, self.paused)

    async def reached(self, ends: Mapping[Place, int], timeout: float) -> Mapping[Place, int]:
        assert await self.sink.wait_until(None, 60) == 0, self.sink.status()
        return ends

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        async with self.sinking.paused():
            await self.history.inserts_ended()
            yield

    async def send(self, number: int) -> None:
        await produce(self.kafka, SYSTEM_EVENTS, [encoded(self.codec, event, event.subject) for event in events(number)])

    async def verdict(self, ask: Ask | None = None) -> tuple[str, Any]:
        report = await Verifier(self.kafka, self.codec, self.history, self.reached).run(ask or Ask())
        return report.verdict, report.to_dict()["differences"]


@contextlib.asynccontextmanager
async def running(kafka: Kafka, codec: Codec, settings: Settings) -> AsyncIterator[Running]:
    async with History(settings) as history:
        found = Running(kafka, codec, history)
        task = asyncio.create_task(found.sinking.run())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def tables_of(history: History) -> set[str]:
    connections = history.connections("test", size=1)
    rows = await connections.run(
        lambda client: client.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND NOT is_temporary").result_rows
    )
    await connections.close()
    return {str(name) for (name,) in rows}


async def test_what_was_lost_and_changed_is_as_in_the_topics_again(kafka: Kafka, codec: Codec, settings: Settings) -> None:
    async with running(kafka, codec, settings) as product:
        await product.send(300)
        await log_with_a_zombie(kafka, codec)
        assert (await product.verdict())[0] == "exact"
        await changed(
            product.history,
            "ALTER TABLE system_events ADD COLUMN number Int64 MATERIALIZED data.n.:Int64",
            "DELETE FROM system_events WHERE subject = 's7'",
            "ALTER TABLE system_events UPDATE severity = 'error' WHERE subject = 's8'",
            "INSERT INTO log_records SELECT * FROM log_records WHERE kind = 'void'",
        )
        assert (await product.verdict())[0] == "differs"
        before = await tables_of(product.history)
        times = "SELECT subject, _inserted_at FROM system_events ORDER BY ALL"
        inserted_at = dict((await product.history.query(times)).rows())
        done = await product.rebuilder.run(RebuildAsk())
        assert {"s7", *inserted_at} == {f"s{n}" for n in range(300)}
        again = dict((await product.history.query(times)).rows())
        assert again.pop("s7") > max(inserted_at.values()), "what was lost came in just now"
        assert again == inserted_at, "and the others when they did"
        assert await product.verdict() == ("exact", [])
        assert await tables_of(product.history) == before, "nothing is left behind"
        assert set(done.tables) == set(all_tables())
        assert done.rows == sum((await offsets_in_kafka(kafka)).values())
        assert await value_of(product.history, "SELECT sum(n) FROM (SELECT n FROM (SELECT count() AS n FROM executions))") == 1
        connections = product.history.connections("test", size=1)
        promoted = await connections.run(lambda client: client.query("SELECT max(number) FROM system_events").result_rows)
        await connections.close()
        assert promoted[0][0] == 299, "a promoted column is there, with its values"
        await product.send(50)
        assert await product.verdict() == ("exact", [])
        # One topic, and the old tables are kept.
        await changed(product.history, "DELETE FROM system_events WHERE subject = 's7'", "TRUNCATE TABLE workflow_transitions")
        done = await product.rebuilder.run(RebuildAsk(topics=(SYSTEM_EVENTS,), keep=True))
        assert (set(done.tables), done.topics) == ({"system_events", "log_records"}, (SYSTEM_EVENTS,))
        assert len(done.kept) == 2
        assert set(done.kept) <= await tables_of(product.history)
        verdict, places = await product.verdict()
        assert (verdict, {place["topic"] for place in places}) == ("differs", {"mplp.workflow.transitions"})


async def test_while_events_flow_nothing_is_lost_and_nothing_is_twice(kafka: Kafka, codec: Codec, settings: Settings) -> None:
    async with running(kafka, codec, settings) as product:
        await product.send(200)
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                await product.send(20)

        loading = asyncio.create_task(load())
        results = await asyncio.gather(*(product.rebuilder.run(RebuildAsk()) for _ in range(2)), return_exceptions=True)
        assert [type(each) for each in results] == [Rebuilt, Refused]
        assert isinstance(results[1], Refused)
        assert results[1].code == "history.busy"
        done.set()
        await loading
        assert await product.verdict() == ("exact", [])


async def test_what_the_topics_have_no_more_is_taken_over(kafka: Kafka, codec: Codec, settings: Settings) -> None:
    async with running(kafka, codec, settings) as product:
        await product.send(200)
        assert (await product.verdict())[0] == "exact"
        tps = [TopicPartition(kafka.names.physical(SYSTEM_EVENTS), number) for number in range(4)]
        async with kafka.consumer() as consumer:
            ends = await consumer.end_offsets(tps)
        async with kafka.admin() as admin:
            await admin.delete_records({tp: RecordsToDelete(before_offset=end // 2) for tp, end in ends.items()})
        done = await product.rebuilder.run(RebuildAsk())
        assert done.copied == sum(end // 2 for end in ends.values())
        assert await product.verdict() == ("exact", [])
        assert await value_of(product.history, "SELECT count() FROM system_events") == 200


async def test_a_block_that_another_sink_inserts_late_changes_nothing(kafka: Kafka, codec: Codec, settings: Settings) -> None:
    """A decided block that is not known to be inserted is filled in by its own token: who inserts it after the swap changes nothing."""
    async with running(kafka, codec, settings) as product:
        await product.send(40)
        assert (await product.verdict())[0] == "exact"
        tables = RebuildTables(product.history, list(all_tables()))
        await tables.create()
        span = Span(topic=kafka.names.physical(SYSTEM_EVENTS), partition=0, first=0, end=5)
        await tables.copy_block(span, swapped=False)
        await tables.copy_block(span, swapped=False)
        # As an engine that is killed between noting the token and having the rows leaves it.
        await changed(product.history, f"DELETE FROM system_events{rebuild_sql.SUFFIX} WHERE _offset IN (2, 3)")
        await tables.copy_block(span, swapped=False)
        await tables.swap()
        await tables.copy_block(span, swapped=True)
        await tables.copy_block(replace(span, first=5, end=8), swapped=True)
        await tables.create()
        await changed(product.history, "ALTER TABLE system_events ADD COLUMN number Int64 MATERIALIZED data.n.:Int64")
        with pytest.raises(Refused) as refused:
            await tables.check_shapes()
        assert refused.value.code == "history.schema-changed", "a column that is promoted meanwhile would be lost"
        await tables.drop()
        await tables.close()
        offsets = "SELECT count(), uniqExact(_offset), max(_offset) FROM system_events WHERE _partition = 0"
        assert (await product.history.query(offsets)).rows() == [[8, 8, 7]]


class TestCutOff:
    async def test_before_the_swap_the_old_tables_are_untouched(
        self, kafka: Kafka, codec: Codec, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running(kafka, codec, settings) as product:
            await product.send(100)
            assert (await product.verdict())[0] == "exact"
            before = await tables_of(product.history)
            shapes = RebuildTables.check_shapes

            async def dies(self: RebuildTables) -> None:
                await shapes(self)
                raise OSError("killed")

            monkeypatch.setattr(RebuildTables, "check_shapes", dies)
            with pytest.raises(OSError, match="killed"):
                await product.rebuilder.run(RebuildAsk())
            monkeypatch.undo()
            assert await tables_of(product.history) == before
            assert await product.verdict() == ("exact", [])
            await product.rebuilder.run(RebuildAsk())
            assert await product.verdict() == ("exact", [])

    async def test_in_the_middle_of_the_swap_it_is_finished_by_who_opens_the_history_next(
        self, kafka: Kafka, codec: Codec, settings: Settings
    ) -> None:
        async with running(kafka, codec, settings) as product:
            await product.send(100)
            assert (await product.verdict())[0] == "exact"
        async with History(settings) as history:
            # As a process leaves it that is killed when the first of eight pairs is swapped; the rest of the old tables is worthless.
            tables = RebuildTables(history, list(all_tables()))
            await tables.create()
            for topic in {topic for topic, _ in await offsets_in_kafka(kafka)}:
                await tables.copy(topic, {number: rebuild_sql.Range(first=0, end=10**6) for number in range(4)})
            rows = await tables._rows(rebuild_sql.uuids([table + rebuild_sql.SUFFIX for table in tables.tables]))
            noted = rebuild_sql.note_swap({str(name).removesuffix(rebuild_sql.SUFFIX): str(uuid) for name, uuid in rows})
            truncated = [f"TRUNCATE TABLE {table}" for table in tables.tables if table != "system_events"]
            await changed(history, rebuild_sql.create_journal(), noted, rebuild_sql.exchange("system_events"), *truncated)
            await tables.close()
        async with running(kafka, codec, settings) as product:
            assert await product.verdict() == ("exact", [])
            assert not [name for name in await tables_of(product.history) if name.endswith(rebuild_sql.SUFFIX)]
            assert rebuild_sql.JOURNAL not in await tables_of(product.history)

    async def test_a_swap_that_is_not_noted_is_not_made(self, settings: Settings) -> None:
        async with History(settings) as history:
            connections = history.connections("test", size=1)
            assert await connections.run(lambda client: rebuild_swap.settle(client, "")) == []
            await connections.close()
