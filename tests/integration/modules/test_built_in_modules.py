"""The built-in modules on the real kernel: callers from outside, homes in other partitions, a successor that knows everything."""

from __future__ import annotations

import asyncio

import pytest

from streams.bus import Bus
from streams.codec.avro import Codec
from streams.errors import InvalidInput, NotFound, Refused
from streams.kafka import Kafka
from streams.records import ModuleMessage, SystemEvent
from streams.topics import MESSAGES, home_of
from tests.integration.modules.hosts import serving

pytestmark = pytest.mark.broker


async def test_callers_reach_aggregates_in_every_partition_and_a_successor_knows_them(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    homes = [f"home-{number}" for number in range(8)]
    async with serving(kafka, codec, "one"):
        created = await asyncio.gather(*(bus.call_module("context", "create-context", {"name": home}, home=home) for home in homes))
        contexts = [each["contextId"] for each in created]
        assert [home_of(each) for each in contexts] == homes
        # A call without a home begins elsewhere, and is sent on to the aggregate's partition.
        found = await asyncio.gather(*(bus.call_module("context", "get-context", {"contextId": context}) for context in contexts))
        assert found == created
        with pytest.raises(NotFound, match="not-found"):
            await bus.call_module("context", "get-context", {"contextId": "ghost/context-1"})
        with pytest.raises(InvalidInput) as invalid:
            await bus.call_module("context", "create-context", {"name": 5})
        assert invalid.value.pointer == "/name"
        listed = await bus.call_module("context", "list-contexts", {}, home=homes[0])
        assert [each["contextId"] for each in listed["contexts"]] == sorted(contexts)
        assert (listed["complete"], listed["missingPartitions"]) == (True, [])
    async with serving(kafka, codec, "two"):
        with pytest.raises(Refused, match="conflict"):
            await bus.call_module("context", "transition-lifecycle", {"contextId": contexts[0], "status": "active"})
        roles = await bus.call_module("role", "assign-roles", {"contextId": contexts[0], "roles": ["coordinator", "executor"]})
        assert [each["role"] for each in roles["assignments"]] == ["coordinator", "executor"]


async def test_the_log_has_request_events_and_response_of_every_call_without_gaps(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with serving(kafka, codec, "one"):
        context = (await bus.call_module("context", "create-context", {"name": "room"}, home="h"))["contextId"]
        await bus.call_module("context", "update-context", {"contextId": context, "name": "hall"})
    story = [delivered.record async for delivered in bus.read(MESSAGES, until_end=True, key="h")]
    assert [record.type for record in story] == [
        "context.requested",
        "context.created",
        "context.answered",
        "context.requested",
        "context.updated",
        "context.answered",
    ]
    assert all(isinstance(record, ModuleMessage | SystemEvent) for record in story)
    assert [record.sequence for record in story] == [1, 2, 3, 4, 5, 6]
    assert {record.aggregate_id for record in story} == {context}
