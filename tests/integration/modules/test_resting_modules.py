"""Contexts that nobody ends leave the memory of their owners, and nobody notices: lists, searches, changes, checksums, a successor."""

from __future__ import annotations

import asyncio

import pytest

from streams.bus import Bus
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.log.host import Host
from tests.integration.modules.hosts import serving

pytestmark = pytest.mark.broker

COUNT = 60
PATIENCE_S = 180.0


def in_memory(host: Host) -> int:
    """Contexts in the memory of a host."""
    lanes = [runner._owned.lanes["modules"] for runner in host._runners.values() if "modules" in runner._owned.lanes]
    return sum(type(state).__name__ == "Context" for lane in lanes for state in lane.fold.view.aggregates.values())


async def until_at_rest(host: Host) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while in_memory(host):
            await asyncio.sleep(0.05)


async def all_pages(bus: Bus, operation: str, **given: object) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = await bus.call_module("context", operation, {"limit": 25, "after": after, **given})
        assert page["complete"]
        found += [each["contextId"] for each in page["contexts"]]
        if page["next"] is None:
            assert len(found) == page["total"]
            return found
        after = page["next"]


async def test_what_rests_is_listed_changed_and_found_as_ever(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    settings = kafka.settings.model_copy(update={"live_state_bytes": 0, "checkpoint_interval_ms": 200})
    small, usual = Kafka(settings), kafka
    # given contexts at many homes, none of them in memory any more
    async with serving(small, codec, "one") as host:
        created = await asyncio.gather(
            *(
                bus.call_module("context", "create-context", {"name": f"room {number % 3}"}, home=f"home-{number}")
                for number in range(COUNT)
            )
        )
        contexts = sorted(each["contextId"] for each in created)
        before = await bus.call_module("hub", "checksum", {"module": "context"})
        await until_at_rest(host)
        # then they are listed and searched, page by page, over all partitions
        assert await all_pages(bus, "list-contexts") == contexts
        assert len(await all_pages(bus, "search-contexts", text="ROOM 1")) == COUNT // 3
        assert await bus.call_module("hub", "checksum", {"module": "context"}) == before
        # and one that changes is in memory until the next checkpoint, and known anew to all
        changed = await bus.call_module("context", "update-context", {"contextId": contexts[7], "name": "hall", "expectedVersion": 1})
        assert changed["version"] == 2
        assert await all_pages(bus, "search-contexts", text="hall") == [contexts[7]]
        await bus.call_module("context", "delete-context", {"contextId": contexts[8], "reason": "no room"})
        await until_at_rest(host)
        left = await bus.call_module("hub", "checksum", {"module": "context"})
    # a successor that keeps everything in memory knows the same
    async with serving(usual, codec, "two") as host:
        assert in_memory(host) == 0, "it begins with what was in memory"
        assert await all_pages(bus, "list-contexts") == [each for each in contexts if each != contexts[8]]
        assert await bus.call_module("hub", "checksum", {"module": "context"}) == left
        assert (await bus.call_module("context", "get-context", {"contextId": contexts[7]}))["name"] == "hall"
        # and so does one that is told to forget it, and to fold the log
        asked = await bus.call_module("hub", "rebuild", {"reason": "to be sure"})
        assert (asked["complete"], [each["partition"] for each in asked["partitions"]]) == (True, [0, 1, 2, 3])
        async with asyncio.timeout(PATIENCE_S):
            while not (again := await bus.call_module("hub", "checksum", {"module": "context"}))["complete"]:
                await asyncio.sleep(0.1)
        assert again == left
        assert in_memory(host) == COUNT - 1
