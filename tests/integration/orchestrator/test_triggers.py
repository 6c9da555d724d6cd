"""Triggers on the real stack: events that start published workflows, once, from their publication to their end."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from streams import limits
from streams.bus import Bus
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.records import SystemEvent, WorkflowTransition
from streams.settings import Settings
from streams.topics import COMMANDS, MESSAGES, SYSTEM_EVENTS, TRANSITIONS
from streams.triggers import execution_for_event
from tests.integration.orchestrator.cores import core
from tests.integration.streams.workers import worker

pytestmark = pytest.mark.broker


def document(*triggers: Any, id: str = "w", **fields: Any) -> dict[str, Any]:
    return {
        "id": id, "name": id, "triggers": list(triggers),
        "steps": [{"id": "s", "type": "transform", "value": "event == null ? 'none' : event.data.order"}], **fields,
    }  # fmt: skip


async def publish(bus: Bus, type: str = "order.paid", **data: Any) -> str:
    event = SystemEvent(type=type, source="shop", subject=str(data.get("order", "")), data=data)
    await bus.publish(event)
    return event.id


async def ended(bus: Bus, execution_id: str) -> WorkflowTransition:
    """The last transition of an execution."""
    async with asyncio.timeout(180):
        async for transition in bus.read(TRANSITIONS, since="beginning", where=f'execution_id == "{execution_id}"'):
            if transition.record.type in ("execution.completed", "execution.failed"):
                return transition.record
    raise AssertionError("the topic has no end")


async def started(bus: Bus) -> list[WorkflowTransition]:
    """All executions that have begun."""
    return [each.record async for each in bus.read(TRANSITIONS, type="execution.started", since="beginning", until_end=True)]


PAID = {"event": "order.*", "where": "data.total > 100.0", "input": {"order": "${event.data.order}", "text": "no ${event.data.order}"}}


async def test_an_event_starts_a_published_workflow_once(kafka: Kafka, codec: Codec, bus: Bus, settings: Settings) -> None:
    async with worker(settings), core(kafka, codec, "one"):
        before = await publish(bus, order="before", total=500)
        (applied,) = await bus.apply_workflow(document(PAID, output={"got": "${s.result}", "from": "${input}", "type": "${event.type}"}))
        assert applied.missing == ()
        await publish(bus, order="cheap", total=5)
        event_id = await publish(bus, order="o-1", total=101)
        last = await ended(bus, execution_for_event("w", 0, event_id))
        assert last.data["output"] == {"got": "o-1", "from": {"order": "o-1", "text": "no o-1"}, "type": "order.paid"}
        await bus.delete_workflow("w")
        await publish(bus, order="after", total=500)
        await bus.apply_workflow(document({"event": "bill.sent"}))
        second = await publish(bus, "bill.sent", order="b-1")
        await ended(bus, execution_for_event("w", 0, second))
        begun = await started(bus)
    commands = [each.record async for each in bus.read(COMMANDS, since="beginning", until_end=True)]
    orders = {transition.data["event"]["id"]: transition.data["event"]["data"]["order"] for transition in begun}
    assert orders == {event_id: "o-1", second: "b-1"}
    assert sorted(command.causation_id for command in commands) == sorted([event_id, second])
    assert before not in (event_id, second)


async def test_what_a_worker_reads_again_starts_nothing_twice(kafka: Kafka, codec: Codec, bus: Bus, settings: Settings) -> None:
    async with core(kafka, codec, "one"):
        async with worker(settings) as first:
            await bus.apply_workflow(document({"event": "order.*"}))
            ids = [await publish(bus, order=str(number)) for number in range(20)]
            await ended(bus, execution_for_event("w", 0, ids[-1]))
            await first.kill()  # before it has committed what it has read
        later = [await publish(bus, order=f"later {number}") for number in range(5)]
        async with worker(settings, "worker-2"):
            await ended(bus, execution_for_event("w", 0, later[-1]))
            for event_id in ids + later:
                await ended(bus, execution_for_event("w", 0, event_id))
            begun = await started(bus)
    assert sorted(transition.data["event"]["id"] for transition in begun) == sorted(ids + later)


async def test_a_workflow_that_starts_itself_comes_to_an_end(kafka: Kafka, codec: Codec, bus: Bus, settings: Settings) -> None:
    again = {"id": "s", "type": "emit", "event": {"type": "ping", "data": {"order": "again"}}}
    async with worker(settings), core(kafka, codec, "one"):
        await bus.apply_workflow({**document({"event": "ping"}), "steps": [again]})
        await publish(bus, "ping", order="first")
        async with asyncio.timeout(180):
            async for each in bus.read(SYSTEM_EVENTS, type="trigger.refused", since="beginning"):
                refused = each.record
                break
        begun = await started(bus)
    assert refused.data["code"] == "trigger.loop"
    assert sorted(transition.data["trigger_depth"] for transition in begun) == list(range(1, limits.TRIGGER_DEPTH_MAX + 1))


async def test_a_schedule_starts_an_execution_at_its_time_and_a_successor_starts_none_again(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        step = {"id": "s", "type": "transform", "value": "event.time == input.at"}
        minutely = {"cron": "* * * * *", "input": {"at": "${event.time}"}}
        await bus.apply_workflow({**document(minutely), "steps": [step], "output": {"at": "${input.at}", "same": "${s.result}"}})
        async with asyncio.timeout(180):
            async for each in bus.read(TRANSITIONS, type="execution.started", since="beginning"):
                first = each.record
                break
        last = await ended(bus, first.execution_id)
    async with core(kafka, codec, "two"):
        await bus.delete_workflow("w")
        async with asyncio.timeout(180):
            async for each in bus.read(MESSAGES, type="schedule.set", since="beginning"):
                if not each.record.data["planned"]:
                    break
        begun = await started(bus)
        commands = [each.record async for each in bus.read(COMMANDS, since="beginning", until_end=True)]
    assert datetime.fromisoformat(last.data["output"]["at"]).second == 0
    assert first.data["event"]["type"] == "schedule.fired"
    # Another minute may have come meanwhile, but each comes once.
    times = [transition.data["event"]["time"] for transition in begun]
    assert len(times) == len(set(times)) == len(commands)
