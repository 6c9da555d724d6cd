"""Workflows and modules through the bus, against a core process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streams.bus import Bus, connect
from streams.codec.avro import Codec
from streams.errors import InvalidDocument, InvalidInput, NotFound, Refused, Unavailable
from streams.records import WorkflowTransition, new_id
from streams.settings import Settings
from streams.topics import TRANSITIONS

pytestmark = pytest.mark.broker

SOON = 120.0
ROOT = Path(__file__).parents[3]


def workflow(steps: int = 3, **fields: Any) -> dict[str, Any]:
    """Steps one after the other, each on a built-in module."""
    return {
        "id": "three", "name": "Three contexts",
        "steps": [
            {
                "id": f"step-{number}", "type": "module-operation", "module": "context", "operation": "create-context",
                "parameters": {"name": f"context {number}"}, "dependencies": [f"step-{number - 1}"] if number else [],
            }
            for number in range(steps)
        ],
        **fields,
    }  # fmt: skip


@pytest.fixture
async def core(settings: Settings, codec: Codec) -> AsyncIterator[None]:
    environment = {
        **os.environ,
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.processes.core", env=environment, cwd=settings.data_dir.parent,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), SOON) == b"ready\n"
    yield
    process.terminate()
    await asyncio.wait_for(process.wait(), SOON)


@pytest.fixture
async def bus(settings: Settings, codec: Codec) -> AsyncIterator[Bus]:
    async with connect(settings) as bus:
        yield bus


async def test_workflows_and_modules(bus: Bus, core: None) -> None:
    """One core for all: it takes longer to start than all of this."""
    await a_run_ends_with_its_output(bus)
    await many_runs_side_by_side_are_not_confused(bus)
    await a_start_is_idempotent(bus)
    await refusals_have_codes(bus)
    await a_module_answers(bus)


async def a_run_ends_with_its_output(bus: Bus) -> None:
    seen: list[WorkflowTransition] = []

    result = await asyncio.wait_for(
        bus.run_workflow(workflow(output={"n": "input.n + 1"}), input={"n": 6}, on_transition=seen.append), SOON
    )

    assert (result["status"], result["output"]) == ("completed", {"n": 7})
    assert result["duration_ms"] >= 0
    in_log = [transition async for transition in bus.transitions(result["execution_id"])]
    assert [transition.id for transition in seen] == [transition.id for transition in in_log]
    assert [transition.sequence for transition in in_log] == list(range(1, len(in_log) + 1))
    # An id that was not generated (no time in it) is found from the beginning, and following one that has ended ends.
    assert [found.id async for found in bus.transitions(result["execution_id"], follow=True)] == [found.id for found in in_log]


async def many_runs_side_by_side_are_not_confused(bus: Bus) -> None:
    runs = [bus.run_workflow(workflow(1, output={"n": "input.n"}), input={"n": number}) for number in range(20)]
    results = await asyncio.wait_for(asyncio.gather(*runs), SOON)
    assert [result["output"] for result in results] == [{"n": number} for number in range(20)]
    assert len({result["execution_id"] for result in results}) == 20


async def a_start_is_idempotent(bus: Bus) -> None:
    first = await bus.start_workflow(workflow(), {}, idempotency_key="order-7")
    again = await bus.run_workflow(workflow(), {}, idempotency_key="order-7")
    assert (again["execution_id"], again["status"]) == (first, "completed")
    assert await bus.start_workflow(workflow(), {}, execution_id="mine") == "mine"
    assert (await asyncio.wait_for(bus.run_workflow(workflow(), {}, execution_id="mine"), SOON))["status"] == "completed"
    started = [found.record.execution_id async for found in bus.read(TRANSITIONS, until_end=True, type="execution.started")]
    assert sorted(started.count(execution_id) for execution_id in (first, "mine")) == [1, 1]


async def refusals_have_codes(bus: Bus) -> None:
    with pytest.raises(NotFound) as unknown:
        await bus.command("nobody", "cancel")
    with pytest.raises(Refused) as ended:
        await bus.command("mine", "cancel", {"by": "me"})
    with pytest.raises((Refused, InvalidDocument)) as invalid:
        await bus.run_workflow({"id": "x", "name": "x", "steps": []})
    assert [error.value.code for error in (unknown, ended, invalid)] == ["execution.unknown", "execution.wrong-state", "definition.invalid"]


async def a_module_answers(bus: Bus) -> None:
    home = new_id()
    made = await bus.call_module("context", "create-context", {"name": "mine"}, home=home)
    assert made["contextId"].startswith(f"{home}/")
    beside = await bus.call_module("context", "create-context", {"name": "beside"}, home=made["contextId"])
    assert beside["contextId"].startswith(f"{home}/"), "the home of an id is a home"
    with pytest.raises(InvalidInput) as homeless:
        await bus.call_module("context", "create-context", {"name": "nowhere"}, home="/x")
    assert homeless.value.code == "home.invalid"
    with pytest.raises(InvalidInput) as faulty:
        await bus.call_module("context", "create-context", {"name": 5, "colour": "red"})
    assert {fault.pointer for fault in faulty.value.faults} == {"/name", "/colour"}
    # A call of another story finds its way to the home of the aggregate.
    assert (await bus.call_module("context", "get-context", {"contextId": made["contextId"]}))["name"] == "mine"
    with pytest.raises(NotFound) as missing:
        await bus.call_module("context", "get-context", {"contextId": f"{home}/context-0"})
    with pytest.raises(InvalidInput) as invalid:
        await bus.call_module("context", "create-context", {})
    with pytest.raises(NotFound) as no_operation:
        await bus.call_module("context", "paint", {})
    with pytest.raises(NotFound) as no_module:
        await bus.call_module("painter", "paint", {})
    assert [error.value.code for error in (missing, invalid, no_operation, no_module)] == [
        "not-found",
        "invalid",
        "operation.unknown",
        "module.unknown",
    ]


async def test_silence_is_unavailable(bus: Bus) -> None:
    with pytest.raises(Unavailable) as orchestrator:
        await bus.command("e", "cancel", timeout=0.2)
    with pytest.raises(Unavailable) as module:
        await bus.call_module("context", "list-contexts", {}, timeout=0.2)
    assert (orchestrator.value.code, module.value.code) == ("orchestrator.silent", "module.silent")
    assert orchestrator.value.exit_code == 3
