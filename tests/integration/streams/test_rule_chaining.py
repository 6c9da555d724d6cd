"""Rules that read composites of others, on a real broker: whatever happens to the workers, what `rules test` says of the same records."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from streams.bus.bus import Bus
from streams.correlation import control
from streams.correlation.parse import parse_rule
from streams.correlation.trial import Trial
from streams.records import CompositeEvent, SystemEvent, derived_id, iso, now
from streams.settings import Settings
from streams.topics import partition_of
from tests.integration.streams.workers import assert_gapless, composites, worker

pytestmark = pytest.mark.broker

CUSTOMER = 'data.group["data.customer"]'
GRACE = "60s"  # far more than the disorder: how long a busy machine takes for a batch must make none late


def rule(id: str, events: dict[str, Any], /, **correlation: Any) -> dict[str, Any]:
    return {"id": id, "events": events, "correlation": {"timespan": "20s", "grace": GRACE, **correlation}}


#: Three levels. `failing` is revised and retracted by records that come in between; `calm` says what did not follow a composite.
RULES = [
    rule("failing", {"e": {"type": "order.failed"}}, type="event_count", condition={"gte": 3}, **{"group-by": ["data.customer"]}),
    rule("summed", {"e": {"type": "order.*"}}, type="value_sum", window="tumbling", condition={"field": "data.amount", "gte": 40},
         **{"group-by": ["data.customer"], "output": "final"}),
    rule("worse", {"f": {"rule": "failing"}, "s": {"rule": "summed", "where": "data.value > 50.0"}}, type="temporal",
         **{"group-by": [CUSTOMER], "timespan": "40s"}),
    rule("calm", {"f": {"rule": "failing"}, "ok": {"type": "order.paid"}}, type="absence", events=["f", "ok"],
         **{"group-by": ["c"], "aliases": {"c": {"f": CUSTOMER, "ok": "data.customer"}}}),
    rule("everywhere", {"w": {"rule": ["worse", "calm"]}}, type="event_count", condition={"gte": 4}, window="tumbling",
         **{"timespan": "1m", "after-match": "continue"}),
]  # fmt: skip


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """With the number of partitions that the test asks for."""
    return settings.model_copy(update={"partitions": request.param})


def last_month() -> datetime:
    """A full minute, so that windows lie alike in every run."""
    return (now() - timedelta(days=30)).replace(second=0, microsecond=0)


def orders(count: int, customers: int, start: datetime, chance: random.Random) -> list[SystemEvent]:
    """In an order of arrival in which none is late: each comes within grace of what is newer. No two have the same time."""
    events = [
        (
            number * 0.1 + chance.uniform(0, 10),
            SystemEvent(
                id=derived_id("order", start.isoformat(), number), type=chance.choice(["order.failed", "order.failed", "order.paid"]),
                source="shop", subject=f"s{chance.randrange(40)}", time=start + timedelta(seconds=number * 0.1),
                data={"customer": f"c{chance.randrange(customers)}", "amount": chance.randint(1, 20)},
            ),
        )
        for number in range(count)
    ]  # fmt: skip
    return [event for _, event in sorted(events, key=lambda item: item[0])]


def closing(start: datetime, partitions: int) -> list[SystemEvent]:
    """Records that no rule concerns, one in each partition, with which everything before is decided."""
    subjects = {partition_of(f"s{number}", partitions): f"s{number}" for number in range(50 * partitions)}
    assert len(subjects) == partitions
    end = start + timedelta(minutes=10)
    return [SystemEvent(type="day.ended", source="shop", subject=subject, time=end, data={}) for subject in subjects.values()]


def tried(records: Sequence[SystemEvent]) -> list[CompositeEvent]:
    """What `rules test` says."""
    trial = Trial([parse_rule(document) for document in RULES])
    said: list[CompositeEvent] = []
    for event in records:
        line = {
            "id": event.id,
            "type": event.type,
            "source": event.source,
            "subject": event.subject,
            "time": iso(event.time),
            "data": event.data,
        }
        said += trial.line(orjson.dumps(line))
    said += trial.finish()
    assert trial.summary.late == 0
    return said


def standing(said: Sequence[CompositeEvent]) -> dict[str, tuple[Any, ...]]:
    """The last revision of each composite, less the retracted; ids apart, which hold the version of the rule."""
    last: dict[str, CompositeEvent] = {}
    for composite in said:
        before = last.get(composite.id)
        assert composite.revision == (0 if before is None else before.revision + 1), composite
        last[composite.id] = composite
    return {
        of.id: (of.rule_id, dict(of.group_key), of.window_start, of.window_end, of.event_ids, of.data["value"], of.confidence,
            of.suppressed_count)
        for of in last.values()
        if not of.retracted
    }  # fmt: skip


async def wait_for_standing(bus: Bus, expected: dict[str, tuple[Any, ...]], timeout: float = 240.0) -> list[CompositeEvent]:
    """Waits until exactly this stands; fails with the difference."""
    found: list[CompositeEvent] = []
    try:
        async with asyncio.timeout(timeout):
            while True:
                found = await composites(bus)
                if standing(found) == expected:
                    return found
                await asyncio.sleep(0.5)
    except TimeoutError:
        got = standing(found)
        more = {id_: of for id_, of in got.items() if expected.get(id_) != of}
        less = {id_: of for id_, of in expected.items() if got.get(id_) != of}
        raise AssertionError(f"too much: {more}\nmissing: {less}") from None


async def publish(bus: Bus, records: Sequence[SystemEvent], *, pause_s: float = 0.0) -> None:
    """In this order, also over partitions: each batch is acknowledged before the next is sent."""
    for first in range(0, len(records), 20):
        await bus.publish(records[first : first + 20])
        await asyncio.sleep(pause_s)


@pytest.mark.parametrize("settings", [1, 12], indirect=True)
async def test_one_worker_says_what_a_trial_says_with_any_number_of_partitions(settings: Settings, bus: Bus) -> None:
    start = last_month()  # last month's events, into partitions that have been idle
    records = [*orders(250, 4, start, random.Random(1)), *closing(start, settings.partitions)]
    expected = standing(tried(records))
    async with worker(settings):
        await control.apply(bus, RULES, who="test")
        await publish(bus, records)
        found = await wait_for_standing(bus, expected)
    assert {of[0] for of in expected.values()} == {document["id"] for document in RULES}
    assert any(composite.retracted for composite in found if composite.rule_id == "failing")
    assert_gapless(found)


@pytest.mark.parametrize("settings", [4], indirect=True)
async def test_workers_that_come_and_go_and_come_back_from_the_dead_change_nothing(settings: Settings, bus: Bus) -> None:
    start, chance = last_month(), random.Random(11)
    records = [*orders(500, 6, start, chance), *closing(start, settings.partitions)]
    expected = standing(tried(records))
    short = settings.model_copy(update={"group_session_timeout_ms": 6000})
    async with worker(short, "worker-a") as first, worker(short, "worker-b") as second:
        await control.apply(bus, RULES, who="test")
        await publish(bus, records[: len(records) // 2], pause_s=0.2)
        async with asyncio.timeout(120):
            while not await composites(bus):
                await asyncio.sleep(0.2)
        await first.kill()
        await first.start()
        async with worker(short, "worker-c"):
            await asyncio.sleep(1)
            second.signal(signal.SIGSTOP)
            await publish(bus, records[len(records) // 2 :], pause_s=0.6)
            second.signal(signal.SIGCONT)  # long after its partitions went to others
            found = await wait_for_standing(bus, expected)
            await asyncio.sleep(2)  # what a former owner would still add
            found = await composites(bus)
    assert standing(found) == expected
    assert_gapless(found)
    assert len({composite.epoch for composite in found}) > 1
