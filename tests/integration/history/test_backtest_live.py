"""A backtest of what is stored says what the worker said live."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import orjson
import pytest

from services.history.store import History
from streams.bus.bus import Bus
from streams.codec.avro import Codec, to_json
from streams.correlation import control
from streams.correlation.backtest import Columns
from streams.correlation.backtesting import Running, chosen
from streams.correlation.workers import living
from streams.kafka import Kafka
from streams.records import CompositeEvent, SystemEvent, now
from streams.settings import Settings
from tests.integration.history.helpers import caught_up, sinking
from tests.integration.streams.workers import composites, worker

pytestmark = pytest.mark.broker

RULES = [
    {
        "id": "failing",
        "events": {"failed": {"type": "order.failed", "where": "data.amount > 3"}},
        "correlation": {"type": "event_count", "group-by": ["data.customer"], "timespan": "12s", "grace": "2m", "condition": {"gte": 3}},
        "suppress": "9s",
    },
    {
        "id": "spent",
        "events": {"paid": {"type": "order.paid"}},
        "correlation": {
            "type": "value_sum", "group-by": ["data.customer"], "window": "tumbling", "timespan": "6s", "grace": "2m",
            "condition": {"field": "data.amount", "gte": 20},
        },
    },
    {
        "id": "unpaid",
        "events": {"failed": {"type": "order.failed"}, "paid": {"type": "order.paid"}},
        "correlation": {"type": "absence", "events": ["failed", "paid"], "group-by": ["data.customer"], "timespan": "5s", "grace": "2m"},
    },
]  # fmt: skip


class Stored:
    """The history's columns without a gateway in between."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def columns(self, sql: str, parameters: Mapping[str, Any], *, stale: bool = True) -> Columns:
        found: Columns = orjson.loads(await self._history.columns(sql, parameters))
        return found


def said(found: list[CompositeEvent]) -> dict[str, dict[str, Any]]:
    """By id what stands after all revisions, without where and as which revision it was said."""
    last: dict[str, CompositeEvent] = {}
    for composite in found:
        last[composite.id] = composite
    of_logs = {"aggregate_id", "sequence", "epoch", "input", "revision"}
    return {
        composite.id: {name: value for name, value in to_json(composite).items() if name not in of_logs}
        for composite in last.values()
        if not composite.retracted
    }


async def test_a_backtest_says_what_was_said_live(settings: Settings, bus: Bus, kafka: Kafka, codec: Codec) -> None:
    chance = random.Random(11)
    # Nothing is late, though the events of the rules' changes are of now; then event time goes on behind all deadlines.
    begin = now() - timedelta(seconds=100)
    times = sorted(begin + timedelta(milliseconds=chance.randrange(60_000)) for _ in range(300))
    events = [
        SystemEvent(
            type=chance.choice(["order.failed", "order.paid", "order.seen"]), source="shop", subject=f"s{number % 7}", time=time,
            data={"customer": chance.choice(["ann", "bob", 7]), "amount": chance.randint(1, 9)},
        )
        for number, time in enumerate(times)
    ]  # fmt: skip
    async with History(settings) as history, sinking(kafka, codec, history) as sink, worker(settings):
        await control.apply(bus, RULES, who="test")
        await bus.publish(events)
        counted = sum(1 for event in events if event.type == "order.paid")
        async with asyncio.timeout(180):
            while (tally := (await living(bus))[1].get("spent")) is None or tally.matched < counted:
                await asyncio.sleep(0.5)
        await bus.publish(SystemEvent(type="end", source="shop", subject="end", time=now() + timedelta(minutes=4)))
        await caught_up(sink)
        rules, silent = chosen([], [rule["id"] for rule in RULES], await control.list_rules(bus))
        running = Running(Stored(history), rules, begin, times[-1] + timedelta(seconds=6), silent=silent)
        tested = said([composite async for composite in running.composites()])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(180):
                while said(await composites(bus)) != tested:
                    await asyncio.sleep(0.5)
        late = {rule_id: tally.late for rule_id, tally in (await living(bus))[1].items()}
        live = said(await composites(bus))
    assert late == {"failing": 0, "spent": 0, "unpaid": 0}, "late records would explain a difference"
    assert {what["rule_id"] for what in tested.values()} == {"failing", "spent", "unpaid"}
    assert tested == live
    assert running.summary.read == sum(1 for event in events if event.type != "order.seen")
