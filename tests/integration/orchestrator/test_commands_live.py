"""Signals, children, retry, fork and past states on a real broker: families in several partitions, a change of owners."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.view import fold
from streams.bus import Bus
from streams.codec.avro import Codec
from streams.errors import Refused
from streams.kafka import Kafka
from streams.records import new_id
from streams.topics import COMMANDS, partition_of
from tests.integration.orchestrator.cores import core

pytestmark = pytest.mark.broker

ASK: dict[str, Any] = {"id": "ask", "name": "ask", "steps": [{"id": "s", "type": "signal", "name": "go"}]}
FAMILY: dict[str, Any] = {
    "id": "family",
    "name": "family",
    "steps": [{"id": f"c{n}", "type": "workflow", "workflow": ASK} for n in range(6)],
}
FAILING: dict[str, Any] = {
    "id": "f",
    "name": "f",
    "steps": [
        {"id": "a", "type": "transform", "value": "1"},
        {"id": "s", "type": "signal", "name": "go", "dependencies": ["a"]},
        {"id": "t", "type": "transform", "value": "steps['s'].result.x", "dependencies": ["s"]},
    ],
}


async def view(bus: Bus, execution_id: str, **moment: Any) -> dict[str, Any]:
    return fold([transition async for transition in bus.transitions(execution_id, **moment)])


async def test_children_in_other_partitions_outlive_the_owner_of_both(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        parent = await bus.start_workflow(FAMILY)
        steps = (await view(bus, parent))["steps"]
        children = {name: step["child"]["execution_id"] for name, step in steps.items()}
        partitions = await bus.publisher.partitions(COMMANDS)
        assert len({partition_of(child, partitions) for child in children.values()}) > 1
        for name in ("c0", "c1", "c2"):
            done = await bus.command(children[name], "signal", {"name": "go", "data": name})
            assert done.status == "completed", "the status after the command, not its first record's"
    async with core(kafka, codec, "two"):
        for name in ("c3", "c4", "c5"):
            await bus.command(children[name], "signal", {"name": "go", "data": name})
        last = [transition async for transition in bus.transitions(parent, follow=True)][-1]
    assert (last.status, last.data["output"]["c5"]) == ("completed", {"s": "c5"})


async def test_a_cancelled_parent_takes_its_children_along(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        parent = await bus.start_workflow(FAMILY)
        children = [step["child"]["execution_id"] for step in (await view(bus, parent))["steps"].values()]
        cancelled = await bus.command(parent, "cancel", {"by": "ann"})
        assert (cancelled.type, cancelled.status) == ("execution.cancelled", "cancelled")
        for child in children:
            last = [transition async for transition in bus.transitions(child, follow=True)][-1]
            assert last.status == "cancelled"


async def test_retry_fork_and_the_past(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "one"):
        execution = await bus.start_workflow(FAILING)
        failed = await bus.command(execution, "signal", {"name": "go", "data": {}})
        retried = await bus.command(execution, "retry", {"by": "ann"})
        fork = await bus.fork_workflow(execution, "s", by="ann")
        again = await bus.fork_workflow(execution, "s", fork_id=fork)
        other = new_id()
        await bus.command(fork, "signal", {"name": "go", "data": {"x": 5}}, command_id=other)
        repeated = await bus.command(fork, "signal", {"name": "go", "data": {"x": 5}}, command_id=other)
        with pytest.raises(Refused) as refused:
            await bus.command(fork, "retry")
        followed = [transition.type async for transition in bus.transitions(execution, follow=True)]
    assert (failed.status, retried.status) == ("failed", "failed")
    assert (again, repeated.status, refused.value.code) == (fork, "completed", "execution.wrong-state")
    assert followed.count("execution.failed") == 2, "an end that was retried is not the end"
    now = await view(bus, fork)
    assert (now["output"], now["forked_from"]["execution_id"]) == ({"a": 1, "s": {"x": 5}, "t": 5}, execution)
    assert (await view(bus, execution, sequence=1))["steps"] == {}
    whole = [transition async for transition in bus.transitions(execution)]
    waited = next(transition for transition in whole if transition.type == "step.waiting")
    then = await view(bus, execution, until=waited.time)
    assert (then["status"], then["steps"]["s"]["status"]) == ("running", "waiting")
