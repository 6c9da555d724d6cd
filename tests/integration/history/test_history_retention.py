"""Lifetimes on real tables: what is dropped, what is held, and what a verification and a rebuild say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from services.history.rebuild import RebuildAsk
from services.history.retention_keeper import RetentionKeeper
from services.history.store import History
from services.history.verify import Ask, Verifier
from streams.codec.avro import Codec
from streams.errors import Refused
from streams.kafka import Kafka
from streams.records import Delivery, now
from streams.settings import Settings
from streams.topics import DAY_MS, DELIVERIES
from tests.integration.history import world
from tests.integration.history.helpers import encoded, value_of
from tests.integration.history.odd import changed
from tests.integration.history.test_history_rebuild import running


def keeper(history: History, wished: str, spans: Mapping[str, int] | None = None) -> RetentionKeeper:
    async def rules() -> Mapping[str, int]:
        return spans or {}

    history.settings = history.settings.model_copy(update={"history_retention": wished})
    return RetentionKeeper(history, rules)


async def test_lifetimes_are_set_changed_and_taken_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with History(Settings(data_dir=tmp_path_factory.mktemp("lifetimes"))) as history:
        await world.fill(history, now().replace(microsecond=0))
        assert await keeper(history, "").apply() == []
        assert await keeper(history, "deliveries=90d, system_events=400d").apply() == ["system_events", "deliveries"]
        assert await keeper(history, "deliveries=90d, system_events=400d").apply() == []
        assert await keeper(history, "deliveries=60d").apply() == ["system_events", "deliveries"]
        report = {each["table"]: each for each in (await keeper(history, "deliveries=60d").report())["tables"]}
        assert (report["deliveries"]["in_force"], report["deliveries"]["least"]) == ("60d", "7d")
        assert (report["system_events"]["in_force"], report["system_events"]["wished"]) == (None, None)
        assert await value_of(history, "SELECT count() FROM deliveries") == 3

        # A rule and an execution that has not ended (e3 waits) hold more than is wished.
        kept = keeper(history, "workflow_transitions=1d, composite_events=31d", {"slow": 40 * DAY_MS})
        assert await kept.apply() == ["workflow_transitions", "composite_events", "deliveries"]
        report = {each["table"]: each for each in (await kept.report())["tables"]}
        assert (report["workflow_transitions"]["in_force"], report["composite_events"]["in_force"]) == ("40d", "40d")
        assert report["composite_events"]["because"] == "the rule slow looks back over 40d"
        assert "e3" in (await keeper(history, "").report())["tables"][0]["because"]
        with pytest.raises(Refused, match=r"retention\.too-short.*the rule slow"):
            await kept.report("composite_events=39d")
        assert {each["wished"] for each in (await kept.report("composite_events=41d"))["tables"]} == {None, "41d"}


async def test_a_history_with_too_short_lifetimes_does_not_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(Refused, match=r"retention\.too-short"):
        async with History(Settings(data_dir=tmp_path_factory.mktemp("short"), history_retention="system_events=29d")):
            pass


@pytest.mark.broker
async def test_what_was_dropped_is_said_and_the_rest_is_exact_and_it_does_not_come_back(
    kafka: Kafka, codec: Codec, settings: Settings
) -> None:
    async with running(kafka, codec, settings) as product:
        old, young = datetime.now(UTC) - timedelta(days=80), datetime.now(UTC)
        await deliver(kafka, codec, 10, old)
        await deliver(kafka, codec, 10, young)
        await deliver(kafka, codec, 1, old)  # out of order
        await deliver(kafka, codec, 4, young)
        verifier = Verifier(kafka, codec, product.history, product.reached)
        assert (await verifier.run(Ask())).verdict == "exact"
        assert await count(product.history) == 25

        assert await keeper(product.history, "deliveries=10d").apply() == ["deliveries"]
        await changed(product.history, "OPTIMIZE TABLE deliveries FINAL")
        assert await dropped(product.history) == 14

        report = await verifier.run(Ask())
        assert (report.verdict, report.to_dict()["differences"]) == ("exact", [])
        assert report.to_dict()["expired"] == 11
        await product.rebuilder.run(RebuildAsk())
        assert await count(product.history) == 14
        assert (await verifier.run(Ask())).verdict == "exact"

        await changed(product.history, "ALTER TABLE deliveries DELETE WHERE _offset = 15")
        report = await verifier.run(Ask())
        assert [(place.kind.value, place.at.first) for part in report.partitions for place in part.differences] == [("missing", 15)]


async def deliver(kafka: Kafka, codec: Codec, number: int, at: datetime) -> None:
    async with kafka.producer() as producer:
        for _ in range(number):
            record = Delivery(type="delivery.ended", event_id="e", route_id="r", destination="d", status="delivered", time=at)
            key, value, headers = encoded(codec, record)
            topic, at_ms = kafka.names.physical(DELIVERIES), int(at.timestamp() * 1000)
            await producer.send_and_wait(topic, value, key=key, headers=headers, partition=0, timestamp_ms=at_ms)


async def count(history: History) -> int:
    return int(await value_of(history, "SELECT count() FROM deliveries"))


async def dropped(history: History) -> int:
    """How many rows are left when the old part is gone: it is dropped in the background."""
    async with asyncio.timeout(180):
        while (found := await count(history)) == 25:
            await changed(history, "OPTIMIZE TABLE deliveries FINAL")
            await asyncio.sleep(0.1)
    return found
