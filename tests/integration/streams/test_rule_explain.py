"""`rules explain` on real topics: the state that the workers hold, seen from outside, whether they run or not."""

from __future__ import annotations

import asyncio
import signal

import pytest

from streams.bus.bus import Bus
from streams.correlation import control
from streams.correlation.explaining import Explanation, explain
from streams.errors import InvalidInput, NotFound
from streams.records import SystemEvent
from streams.settings import Settings
from tests.integration.streams.workers import count_rule, wait_for_composites, worker

pytestmark = pytest.mark.broker


#: The group of a composite, as its payload has it.
GROUP = 'data.group["data.customer"]'
ABOVE = {
    "id": "above",
    "events": {"composite": {"rule": "count"}},
    "correlation": {"type": "event_count", "group-by": [GROUP], "timespan": "1h", "condition": {"gte": 2}},
}


def failed(customer: object) -> SystemEvent:
    return SystemEvent(type="order.failed", source="shop", subject="s", data={"customer": customer})


async def explained(bus: Bus, customer: str, count: int) -> Explanation:
    """When `count` records have been seen of the customer."""
    async with asyncio.timeout(180):
        while True:
            found = await explain(bus, "count", {"data.customer": customer})
            if found.standings and found.standings[0].count >= count:
                return found
            await asyncio.sleep(0.2)


async def test_why_and_why_not_with_and_without_a_worker(settings: Settings, bus: Bus) -> None:
    async with worker(settings) as process:
        await control.apply(bus, [count_rule(), count_rule("other"), ABOVE], who="test")
        events = [failed("ann") for _ in range(5)]
        await bus.publish([*events, failed(7)])
        await wait_for_composites(bus, 2)

        live = await explained(bus, "ann", 2)
        (standing,) = live.standings
        assert (live.known, live.version, standing.count) == (True, 1, 2)
        assert [seen.id for seen in standing.seen] == [event.id for event in events[3:]]
        assert standing.missing == ("1 more of failed",)
        assert standing.until is not None
        assert "Missing: 1 more of failed before" in standing.sentences[0]
        assert live.last is not None
        assert set(live.last.event_ids) == {event.id for event in events[:3]}
        assert (await explained(bus, "7", 1)).standings[0].group == {"data.customer": "7"}

        async with asyncio.timeout(180):
            while not (above := await explain(bus, "above", {GROUP: "ann"})).known:
                await asyncio.sleep(0.2)
        assert [seen.type for seen in above.standings[0].seen] == ["composite.count"]
        assert above.standings[0].missing == ("1 more of composite",)

        unknown = await explain(bus, "count", {"data.customer": "anne"})
        assert (unknown.known, unknown.groups, unknown.standings[0].count) == (False, 2, 0)
        assert unknown.nearest == ({"data.customer": "ann"},)
        listed = await explain(bus, "count")
        assert {each.group["data.customer"] for each in listed.standings} == {"ann", "7"}

        process.signal(signal.SIGTERM)  # writes a checkpoint
        assert await process.wait() == 0
        await bus.publish([failed("ann")])
        without = await explain(bus, "count", {"data.customer": "ann"})
        assert without.standings[0].seen == standing.seen
        assert any("No worker is running" in hint for hint in without.hints)

    changed = await control.apply(bus, [{**count_rule(), "enabled": False}], who="bob", why="too loud")
    assert (changed.reached, changed.missing) == ((), ())  # the worker has said that it ends
    disabled = await explain(bus, "count", {"data.customer": "ann"})
    assert [("disabled since" in hint, "by bob: too loud" in hint) for hint in disabled.hints] == [(True, True)]
    with pytest.raises(InvalidInput, match=r"groups by data\.customer"):
        await explain(bus, "count", {"customer": "ann"})
    with pytest.raises(NotFound):
        await explain(bus, "none")
