"""What owners know, compared with the log by somebody who reads it: the same after a takeover from checkpoints, and else not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.processes.modules_log import ModulesLog
from streams.bus import Bus
from streams.codec.avro import Codec
from streams.kafka import Kafka
from tests.integration.modules.hosts import serving

pytestmark = pytest.mark.broker


async def test_the_log_tells_whether_owners_know_what_they_are_to_know(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    resting = Kafka(kafka.settings.model_copy(update={"live_state_bytes": 0, "checkpoint_interval_ms": 200}))
    async with serving(resting, codec, "one"):
        calls = [bus.call_module("context", "create-context", {"name": f"room {number}"}, home=f"home-{number}") for number in range(12)]
        created = [each["contextId"] for each in await asyncio.gather(*calls)]
    async with serving(kafka, codec, "two") as host:
        await bus.call_module("context", "update-context", {"contextId": created[0], "name": "hall"})
        log = await ModulesLog.begin(bus)
        known = await bus.call_module("hub", "checksum")
        rows = await log.compare(known["checksums"])
        assert known["complete"]
        assert all(row["same"] for row in rows), rows
        assert sum(row["aggregates"] for row in rows if row["module"] == "context") == 12
        # given an owner whose memory is wrong
        lane = next(
            lane
            for runner in host._runners.values()
            for lane in [runner._owned.lanes["modules"]]
            if created[0] in lane.fold.view.aggregates
        )
        lane.fold.view.aggregates[created[0]] = replace(lane.fold.view.aggregates[created[0]], name="cellar")
        log = await ModulesLog.begin(bus)
        rows = await log.compare((await bus.call_module("hub", "checksum"))["checksums"])
        assert [(row["partition"], row["module"]) for row in rows if not row["same"]] == [(lane.fold.view.partition, "context")]
