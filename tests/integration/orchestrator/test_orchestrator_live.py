"""The orchestrator on a real broker: definitions on the control topic, the example to its end, a new owner in the middle."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.orchestrator.definitions import definition_hash
from services.orchestrator.view import fold
from streams.bus import Bus
from streams.codec.avro import Codec
from streams.errors import InvalidDocument, Refused
from streams.kafka import Kafka
from streams.records import ControlRecord
from streams.topics import CONTROL_WORKFLOWS, module_requests
from streams.topics_apply import WantedTopic, create_topics
from tests.integration.orchestrator.cores import core

pytestmark = pytest.mark.broker

EXAMPLE: dict[str, Any] = json.loads((Path(__file__).resolve().parents[3] / "examples" / "multi-agent-collaboration.json").read_text())
ASK = {
    "id": "ask",
    "name": "ask",
    "steps": [
        {"id": "question", "type": "approval", "title": "Go on?"},
        {"id": "context", "type": "module-operation", "module": "context", "operation": "create-context", "dependencies": ["question"],
         "parameters": {"name": "${question.result.by}", "type": "t"}},
    ],
}  # fmt: skip


async def test_the_example_completes_and_its_log_tells_the_whole_story(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        result = await bus.run_workflow(EXAMPLE)
        transitions = [transition async for transition in bus.transitions(result["execution_id"])]
    assert result["status"] == "completed"
    assert result["output"]["plan-creation"]["planId"]
    assert [transition.sequence for transition in transitions] == list(range(1, len(transitions) + 1))
    view = fold(transitions)
    assert view["output"] == result["output"]
    assert {step["status"] for step in view["steps"].values()} == {"completed"}


async def test_the_definition_is_on_the_control_topic_before_it_runs(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        await asyncio.gather(*(bus.start_workflow(ASK) for _ in range(3)))
    records = [delivered.record async for delivered in bus.read(CONTROL_WORKFLOWS, until_end=True)]
    assert [record.id for record in records if isinstance(record, ControlRecord)] == [f"ask@{definition_hash(ASK)}"]
    assert json.loads(records[0].content) == ASK


async def test_a_new_owner_goes_on_where_the_old_one_stopped(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        execution = await bus.start_workflow(ASK)
    async with core(kafka, codec, "two") as keeper:
        assert definition_hash(ASK) in keeper.store
        await bus.command(execution, "answer", {"step": "question", "choice": "approve", "by": "ann"})
        last = [transition async for transition in bus.transitions(execution, follow=True)][-1]
        with pytest.raises(Refused) as caught:
            await bus.command(execution, "answer", {"step": "question", "choice": "approve", "by": "bob"})
    assert last.status == "completed"
    assert last.data["output"]["context"]["name"] == "ann"
    assert caught.value.code == "approval.already-answered"


async def test_a_module_is_known_as_soon_as_it_has_a_topic(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    step = {"id": "s", "type": "module-operation", "module": "bakery", "operation": "bake"}
    document = {"id": "baking", "name": "baking", "steps": [step]}
    async with core(kafka, codec, "one"):
        with pytest.raises(InvalidDocument) as caught:
            await bus.start_workflow(document)
        assert [(fault.code, fault.pointer) for fault in caught.value.violations] == [("module.unknown", "/steps/0/module")]
        async with kafka.admin() as admin:
            topic = kafka.names.physical(module_requests("bakery"))
            await create_topics(admin, [WantedTopic(name=topic, partitions=4, replication=1, config={})])
        execution = await bus.start_workflow(document)
        await bus.command(execution, "cancel", {"by": "ann"})
        last = [transition async for transition in bus.transitions(execution, follow=True)][-1]
    assert last.status == "cancelled"
