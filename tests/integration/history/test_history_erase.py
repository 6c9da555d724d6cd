"""`Eraser` against a real broker and a real ClickHouse: what told of a subject is nowhere any more, and does not come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from services.history.at import transitions_at
from services.history.erase import EraseAsk, Eraser
from services.history.erase_rows import ERASED_DATA
from services.history.erase_tables import ErasedTables
from services.history.rebuild import RebuildAsk
from services.history.store import History
from services.history.tables import all_tables
from services.history.verify import Ask, Verifier
from streams.bus.bus import Bus
from streams.codec.avro import Codec
from streams.errors import NotFound, Refused, Unavailable
from streams.kafka import Kafka
from streams.records import (
    CompositeEvent,
    Delivery,
    Insight,
    MessageError,
    ModuleMessage,
    Record,
    SystemEvent,
    WorkflowTransition,
    derived_id,
)
from streams.settings import Settings
from streams.topics import COMPOSITES, DELIVERIES, REQUESTS, SYSTEM_EVENTS, TRANSITIONS
from tests.integration.history.helpers import caught_up, encoded, produce, sinking, value_of
from tests.integration.history.test_history_rebuild import Running, running

pytestmark = pytest.mark.broker

SECRET = "ann.lee@example.org"
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def event(number: int, subject: str, text: str, **more: Any) -> SystemEvent:
    return SystemEvent(
        id=derived_id("erase", number), type="order.paid", source="shop", subject=subject, time=T0, data={"mail": text}, **more
    )


def story() -> Mapping[str, list[Record]]:
    """Two orders of Ann and one of Bob, and what quotes them."""
    first, second, other = event(1, "ann", SECRET), event(2, "ann", SECRET), event(3, "bob", "bob@example.org")
    composite = CompositeEvent(
        id=derived_id("erase", "composite"), type="burst.found", source="mplp", subject="burst", time=T0, rule_id="burst", rule_version=1,
        correlation_type="event_count", group_key={"mail": SECRET}, window_start=T0, window_end=T0, event_ids=[first.id, other.id],
        event_count=2, confidence=1.0, severity="info", insights=[Insight(type="pattern", summary=SECRET, data={})],
        explanation=f"Two orders of {SECRET}.", data={"mail": SECRET}, aggregate_id="burst", sequence=1, epoch=0,
    )  # fmt: skip
    delivery = Delivery(
        id=derived_id("erase", "delivery"), type="delivery.ended", time=T0, event_id=second.id, route_id="r", destination="topic",
        status="failed", error=f"No such customer: {SECRET}", data={"mail": SECRET},
    )  # fmt: skip
    of_composite = Delivery(
        id=derived_id("erase", "alarm"), type="delivery.ended", time=T0, event_id=composite.id, route_id="alarms", destination="topic",
        status="delivered", data={"mail": SECRET},
    )  # fmt: skip
    message = ModuleMessage(
        id=derived_id("erase", "message"), type="plan.requested", kind="response", source_module="plan", operation="create-plan",
        subject="ann", status="error", error=MessageError(code="plan.bad", message=SECRET, retryable=False), data={"mail": SECRET}, time=T0,
    )  # fmt: skip
    caused = event(4, "invoice-1", SECRET, causation_id=first.id)
    begun = WorkflowTransition(
        id=derived_id("erase", "begun"), type="execution.started", execution_id="x1", workflow_id="w", subject="x1", status="running",
        aggregate_id="x1", sequence=1, epoch=0, time=T0, causation_id=caused.id,
        data={"input": {"mail": SECRET}, "definition_hash": "h"},
    )  # fmt: skip
    return {
        SYSTEM_EVENTS: [first, second, other, caused, first],  # the last one comes a second time
        COMPOSITES: [composite], DELIVERIES: [delivery, of_composite], REQUESTS: [message], TRANSITIONS: [begun],
    }  # fmt: skip


async def send(kafka: Kafka, codec: Codec, records: Mapping[str, list[Record]]) -> None:
    for topic, some in records.items():
        await produce(kafka, topic, [encoded(codec, record, record.subject or "k") for record in some])


async def dead_letter(kafka: Kafka, codec: Codec) -> None:
    key, value, headers = encoded(codec, event(2, "ann", SECRET), "ann")
    more = [("__streams.errors.topic", b"mplp.system.events"), ("__streams.errors.message", f"bad {SECRET}".encode())]
    await produce(kafka, SYSTEM_EVENTS + ".dlq", [(key, value, [*headers, *more])])
    garbage = [("ce_id", b"g"), ("ce_subject", b"ann")]
    await produce(kafka, SYSTEM_EVENTS, [(b"ann", b"no avro: " + SECRET.encode(), garbage)])


async def quoting(history: History, text: str = SECRET) -> dict[str, int]:
    """How many rows of each table have the text in any column, whatever its type."""
    found = {}
    for table in all_tables():
        sql = f"SELECT countIf(position(toString(tuple(*)), {{text:String}}) > 0) FROM {table}"
        found[table] = int(await value_of(history, sql, text=text))
    return {table: count for table, count in found.items() if count}


class Erasing:
    def __init__(self, product: Running, bus: Bus) -> None:
        self.product, self.history, self.busy = product, product.history, asyncio.Lock()
        self.eraser = Eraser(product.kafka, product.codec, product.history, self.behind, bus.publish, self.busy)

    async def behind(self, timeout_s: float) -> int:
        return await self.product.sink.wait_until(None, max(timeout_s, 30.0))

    async def erase(self, subject: str = "ann", **more: Any) -> dict[str, Any]:
        return (await self.eraser.run(EraseAsk(subject=subject, who="eve", why="asked to", **more))).to_dict()


@pytest.fixture
async def erasing(kafka: Kafka, codec: Codec, settings: Settings) -> AsyncIterator[Erasing]:
    bus = Bus(kafka, codec)
    async with running(kafka, codec, settings) as product:
        await send(kafka, codec, story())
        await dead_letter(kafka, codec)
        erasing = Erasing(product, bus)
        yield erasing
        # A sink that is just about to connect again is left to: a connection that is cancelled while it is made stays open.
        await erasing.behind(60)
    await bus.close()


async def counts(history: History) -> dict[str, int]:
    return {table: int(await value_of(history, f"SELECT count() FROM {table}")) for table in all_tables()}


async def test_nothing_tells_of_the_subject_any_more_and_every_row_is_there(erasing: Erasing) -> None:
    history = erasing.history
    assert await erasing.behind(60) == 0
    before = await counts(history)
    assert set(await quoting(history)) == set(all_tables()) - {"workflow_commands"}, "the story quotes it everywhere"

    report = await erasing.erase()

    assert report["tables"] == {
        "composite_events": 1, "dead_letters": 1, "deliveries": 2, "log_records": 2, "module_messages": 1, "system_events": 2,
    }  # fmt: skip
    assert (report["already"], report["caused"], report["rows"]) == (0, 1, 9)
    assert await quoting(history) == {"system_events": 1, "workflow_transitions": 1}, "what these caused stays, unless it is asked for"
    assert await quoting(history, "bob@example.org") == {"system_events": 1}
    assert await erasing.behind(60) == 0
    assert await counts(history) == {**before, "system_events": before["system_events"] + 1}, "the event that tells of it"
    (told,) = (await history.query("SELECT subject, data_text FROM system_events WHERE type = 'history.erased'")).objects()
    assert told["subject"] == "ann"
    assert '"who":"eve"' in told["data_text"]
    assert '"why":"asked to"' in told["data_text"]


async def test_it_does_not_come_back(erasing: Erasing, settings: Settings) -> None:
    await erasing.erase(effects=True)
    assert await quoting(erasing.history) == {}
    assert await erasing.product.verdict() == ("exact", [])

    rebuilt = await erasing.product.rebuilder.run(RebuildAsk(keep=True))

    assert rebuilt.rows > 10
    assert await quoting(erasing.history) == {}
    report = await Verifier(erasing.product.kafka, erasing.product.codec, erasing.history, erasing.product.reached).run(Ask())
    assert (report.verdict, report.to_dict()["erased"]) == ("exact", 11)
    async with (
        erasing.product.paused(),
        History(settings.model_copy(update={"clickhouse_database": "other"})) as empty,
        sinking(erasing.product.kafka, erasing.product.codec, empty) as sink,
    ):
        await caught_up(sink)
        assert await counts(empty) == await counts(erasing.history)
        assert await quoting(empty) == {}


async def test_what_caused_and_its_executions_go_when_asked_for(erasing: Erasing) -> None:
    report = await erasing.erase(effects=True)
    assert (report["tables"]["workflow_transitions"], report["caused"]) == (1, 0)
    with pytest.raises(Refused, match=r"history\.erased"):
        await transitions_at(erasing.history, "x1", datetime.now(UTC))


async def test_again_it_changes_nothing_and_what_came_later_stays(erasing: Erasing) -> None:
    first = await erasing.erase()
    again = await erasing.erase()
    # Whose the unreadable record was stood in the header that is gone with it.
    assert (again["erasure"], again["rows"], again["already"]) == (None, 0, first["rows"] - 1)
    await send(erasing.product.kafka, erasing.product.codec, {SYSTEM_EVENTS: [event(9, "ann", "new@example.org")]})
    await erasing.behind(60)
    assert await quoting(erasing.history, "new@example.org") == {"system_events": 1}
    assert (await erasing.erase(dry_run=True))["rows"] == 1
    assert await quoting(erasing.history, "new@example.org") == {"system_events": 1}
    assert (await erasing.erase())["rows"] == 1
    assert await quoting(erasing.history, "new@example.org") == {}


async def test_a_subject_that_nothing_is_about_is_an_error(erasing: Erasing) -> None:
    with pytest.raises(NotFound, match=r"subject\.unknown"):
        await erasing.erase("nobody' OR 1 = 1 --")


async def test_only_one_at_a_time(erasing: Erasing) -> None:
    async with erasing.busy:
        with pytest.raises(Refused, match=r"history\.busy"):
            await erasing.erase()


async def test_cut_off_before_the_tables_it_is_finished_by_the_next(erasing: Erasing, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("history.unavailable", "away")

    with monkeypatch.context() as patch:
        patch.setattr(ErasedTables, "erase", away)
        with pytest.raises(Unavailable):
            await erasing.erase()
    assert await quoting(erasing.history) != {}
    assert await erasing.eraser.finish()
    assert await quoting(erasing.history) == {"system_events": 1, "workflow_transitions": 1}
    assert await erasing.eraser.finish()
    await erasing.behind(60)
    assert await value_of(erasing.history, "SELECT count() FROM system_events WHERE type = 'history.erased'") == 1
    assert await value_of(erasing.history, "SELECT count() FROM system_events WHERE data_text = {t:String}", t=ERASED_DATA) == 2


async def test_kept_tables_and_promoted_columns_lose_it_too(erasing: Erasing) -> None:
    await erasing.behind(60)
    connections = erasing.history.connections("test", size=1)
    for kind in ("MATERIALIZED", "DEFAULT"):
        statement = f"ALTER TABLE system_events ADD COLUMN mail_{kind.lower()} String {kind} JSONExtractString(data_text, 'mail')"
        await connections.run(lambda client, statement=statement: client.command(statement))
    kept = (await erasing.product.rebuilder.run(RebuildAsk(keep=True))).kept
    await erasing.erase(effects=True)
    for table in ("system_events", *kept):
        columns = "toString(tuple(*)), mail_materialized" if "system_events" in table else "toString(tuple(*))"
        sql = f"SELECT countIf(position(concat({columns}), '{SECRET}') > 0) FROM {table}"
        assert await connections.run(lambda client, sql=sql: client.query(sql).result_rows) == [(0,)], table
    await connections.close()
