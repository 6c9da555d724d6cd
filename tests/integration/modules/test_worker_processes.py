"""Processes of a user's module that are killed, told to end, silent, or work for nobody: no step is lost, none is done twice in effect."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.orchestrator import view
from streams.bus import Bus, connect
from streams.codec.avro import Codec
from streams.errors import Unavailable
from streams.kafka import Kafka
from streams.records import WorkflowTransition
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.integration.modules.diggers import given_up, module
from tests.integration.orchestrator.cores import core

pytestmark = pytest.mark.broker

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 180.0


@pytest.fixture
async def bus(settings: Settings, kafka: Kafka, codec: Codec) -> AsyncIterator[Bus]:
    """A bus beside a core."""
    async with core(kafka, codec, "core-1"), connect(settings) as bus:
        yield bus


@asynccontextmanager
async def process(settings: Settings, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of the module that takes requests; `more`: its environment."""
    environment = {
        **os.environ, "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "MPLP_GROUP_SESSION_TIMEOUT_MS": "6000", **more,
    }  # fmt: skip
    command = (sys.executable, "-m", "tests.integration.modules.diggers")
    running = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        assert await asyncio.wait_for(running.stdout.readline(), PATIENCE_S) == b"ready\n"
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


@asynccontextmanager
async def in_this_process(settings: Settings) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(module.run(settings, ready=ready.set))
    try:
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def definition(parameters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    step = {"id": "dig", "type": "module-operation", "module": "diggers", "operation": "dig", "parameters": parameters} | fields
    return {"id": "diggings", "name": "Diggings", "steps": [step]}


async def first(bus: Bus, execution_id: str, wanted: Callable[[WorkflowTransition], bool]) -> WorkflowTransition:
    """The first transition that is wanted, once it is there."""
    async with asyncio.timeout(PATIENCE_S):
        async for transition in bus.transitions(execution_id, follow=True):
            if wanted(transition):
                return transition
    raise AssertionError("the execution has ended without it")


async def to_the_end(bus: Bus, execution_id: str) -> tuple[dict[str, Any], list[WorkflowTransition]]:
    """The execution when it has ended, and its transitions."""
    async with asyncio.timeout(PATIENCE_S):
        transitions = [each async for each in bus.transitions(execution_id, follow=True)]
    return view.fold(transitions), transitions


def at_row(row: int) -> Callable[[WorkflowTransition], bool]:
    return lambda each: each.type == "heartbeat.received" and each.data.get("details", {}).get("row", 0) >= row


async def test_a_killed_process_costs_no_step_and_the_next_one_goes_on_where_it_was(settings: Settings, bus: Bus) -> None:
    async with process(settings) as killed:
        started = await bus.run_workflow(definition({"rows": 30}), wait=False)
        beaten = await first(bus, started["execution_id"], at_row(5))
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
    async with in_this_process(settings):
        execution, transitions = await to_the_end(bus, started["execution_id"])
        assert execution["status"] == "completed"
        result = execution["output"]["dig"]
        assert (result["rows"], result["pid"]) == (30, os.getpid())
        assert 5 <= beaten.data["details"]["row"] <= result["begun_at"] < 30
    # It is the same request that came again: there is no retry policy, so nothing else could have saved the step.
    assert [each.type for each in transitions if each.step_id and each.type != "heartbeat.received"] == ["step.started", "step.completed"]
    begun = await bus.history(type="dig.begun")
    assert len({event.id for event in begun}) == 1, "the event of the repeated request has the same id"


async def test_a_process_that_is_killed_in_blocking_functions_loses_neither_what_ran_nor_what_waited(settings: Settings, bus: Bus) -> None:
    async with process(settings, DIGGERS_BLOCK="1", MPLP_MODULE_CONCURRENCY="2") as killed:
        assert killed.stdout is not None
        asked = [asyncio.create_task(bus.call_module("diggers", "bore", timeout=PATIENCE_S)) for _ in range(5)]
        blocked = [(await asyncio.wait_for(killed.stdout.readline(), PATIENCE_S)).decode().strip() for _ in range(2)]
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
        assert await killed.stdout.read() == b"", "no more than two had begun"
    async with in_this_process(settings):
        answers = await asyncio.gather(*asked)
    assert {answer["pid"] for answer in answers} == {os.getpid()}
    done = [answer["request"] for answer in answers]
    assert len(set(done)) == 5
    assert set(blocked) < set(done), "they came again under their ids"


async def test_a_silent_operation_is_tried_again_and_the_silent_one_ends(settings: Settings, bus: Bus) -> None:
    given_up.clear()
    retrying = {"error-handling": {"retry-policy": {"max-retries": 1, "initial-interval": "10ms"}}}
    async with in_this_process(settings):
        started = await bus.run_workflow(definition({"rows": 6, "hangs_at": 3}, operation="dig-closely-watched", **retrying), wait=False)
        execution, transitions = await to_the_end(bus, started["execution_id"])
    assert execution["status"] == "completed"
    assert execution["output"]["dig"]["begun_at"] == 3
    assert given_up == [started["execution_id"]]
    (retried,) = [each for each in transitions if each.type == "step.retried"]
    assert retried.data["error"]["message"] == "The attempt gave no heartbeat for 4s."


async def test_a_process_that_is_told_to_end_finishes_what_runs_takes_no_more_and_unregisters(settings: Settings, bus: Bus) -> None:
    async with process(settings) as running:
        started = await bus.run_workflow(definition({"rows": 15}), wait=False)
        await first(bus, started["execution_id"], at_row(1))
        running.send_signal(signal.SIGTERM)
        execution, _ = await to_the_end(bus, started["execution_id"])
        assert (execution["status"], execution["output"]["dig"]["pid"]) == ("completed", running.pid)
        assert await asyncio.wait_for(running.wait(), PATIENCE_S) == 0
        found = await bus.call_module("hub", "get", {"module": "diggers"}, home="hub")
        assert (found["status"], found["instances"]) == ("silent", {})
        after = await bus.run_workflow(definition({"rows": 1}), wait=False)
    async with in_this_process(settings):
        execution, _ = await to_the_end(bus, after["execution_id"])
        assert execution["output"]["dig"]["pid"] == os.getpid()


async def test_a_cancelled_execution_ends_the_operation_that_works_for_it(settings: Settings, bus: Bus) -> None:
    async with in_this_process(settings):
        started = await bus.run_workflow(definition({"rows": 1000}), wait=False)
        await first(bus, started["execution_id"], at_row(2))
        await bus.command(started["execution_id"], "cancel")
        async with asyncio.timeout(PATIENCE_S):
            while started["execution_id"] not in given_up:
                await asyncio.sleep(0.02)
    _, transitions = await to_the_end(bus, started["execution_id"])
    assert transitions[-1].type == "execution.cancelled"


async def test_an_operation_whose_caller_is_gone_ends_at_its_deadline(settings: Settings, bus: Bus) -> None:
    async with in_this_process(settings):
        with pytest.raises(Unavailable, match=r"module\.silent"):
            await bus.call_module("diggers", "dig", {"rows": 1000}, timeout=0.5)
        async with asyncio.timeout(PATIENCE_S):
            async for event in bus.subscribe(SYSTEM_EVENTS, since="beginning", type="request.expired"):
                assert event.data["operation"] == "dig"
                break
        # The place is free again, and what is asked now is answered.
        assert (await bus.call_module("diggers", "dig", {"rows": 1}))["rows"] == 1
