"""Published definitions on a real broker: applied, started by id, a newer one, a version, deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.modules.catalogue import OPERATIONS
from services.orchestrator.shell import DefinitionKeeper
from streams.bus import Bus
from streams.bus.stories import start_command
from streams.codec.avro import Codec
from streams.errors import InvalidDocument, InvalidInput, NotFound
from streams.kafka import Kafka
from streams.topics import CONTROL_WORKFLOWS, SYSTEM_EVENTS
from tests.integration.orchestrator.cores import core

pytestmark = pytest.mark.broker


def document(version: str) -> dict[str, Any]:
    return {"id": "w", "name": "w", "version": version, "steps": [{"id": "s", "type": "transform", "value": f'"{version}"'}]}


async def test_what_is_applied_is_started_by_its_id(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        with pytest.raises(NotFound) as unknown:
            await bus.run_workflow("w")
        (first,) = await bus.apply_workflow(document("1"), by="ann", why="begin")
        old = await bus.run_workflow("w")
        (again,) = await bus.apply_workflow(document("1"))
        (second,) = await bus.apply_workflow({"workflow": document("2")}, by="bob")
        new = await bus.run_workflow("w")
    assert unknown.value.code == "workflow.unknown"
    assert [(each.revision, each.changed) for each in (first, again, second)] == [(1, True), (1, False), (2, True)]
    assert [old["output"], new["output"]] == [{"s": "1"}, {"s": "2"}]
    (stored,) = await bus.workflows()
    assert (stored.id, stored.version, stored.revision, stored.who, stored.definition) == ("w", "2", 2, "bob", document("2"))


async def test_what_is_deleted_is_not_started_any_more_and_what_runs_goes_on(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    asking = {**document("1"), "steps": [{"id": "s", "type": "approval"}]}
    async with core(kafka, codec, "one"):
        await bus.apply_workflow(asking)
        execution = await bus.start_workflow("w")
        gone = await bus.delete_workflow("w", by="ann")
        with pytest.raises(NotFound) as unknown:
            await bus.start_workflow("w")
    async with core(kafka, codec, "two"):
        await bus.command(execution, "answer", {"step": "s", "choice": "approve", "by": "ann"})
        last = [transition async for transition in bus.transitions(execution, follow=True)][-1]
    assert (gone.revision, unknown.value.code, last.status) == (2, "workflow.unknown", "completed")
    assert await bus.workflows() == []
    for action in (bus.workflow("w"), bus.delete_workflow("w")):
        with pytest.raises(NotFound):
            await action


async def test_a_core_that_has_not_read_it_waits_for_it(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    keeper = DefinitionKeeper(kafka, codec, operations=OPERATIONS)
    await keeper.start()
    await bus.apply_workflow(document("1"))
    reading = asyncio.create_task(keeper.run())
    try:
        await keeper.prepare(start_command("w", {}, execution_id=None, idempotency_key=None, by=""))
        assert keeper.store.latest("w") is not None
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await keeper.stop()


async def test_a_faulty_one_is_refused_with_its_faults_when_it_is_started(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        await bus.apply_workflow({**document("1"), "steps": []})
        with pytest.raises(InvalidDocument) as caught:
            await bus.start_workflow("w")
    assert [(fault.code, fault.pointer) for fault in caught.value.violations] == [("schema.minItems", "/steps")]
    with pytest.raises(InvalidInput) as nameless:
        await bus.apply_workflow({"name": "w"})
    assert (nameless.value.code, nameless.value.pointer) == ("workflow.invalid", "/id")


async def test_every_change_is_an_event(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    await bus.apply_workflow(document("1"), by="ann", why="begin")
    await bus.delete_workflow("w", by="bob")
    told = [delivered.record async for delivered in bus.read(SYSTEM_EVENTS, until_end=True)]
    assert [(event.type, event.data["who"], event.data["revision"]) for event in told] == [
        ("workflow.applied", "ann", 1),
        ("workflow.deleted", "bob", 2),
    ]
    keys = [delivered.record.id async for delivered in bus.read(CONTROL_WORKFLOWS, until_end=True)]
    assert keys[1:] == ["w@version:1", "w", "w@version:1", "w"]
