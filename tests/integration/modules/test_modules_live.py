"""Plans that run, people who decide, workflows as a module and traces, with the orchestrator and the modules on a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streams.bus import Bus
from streams.codec.avro import Codec
from streams.errors import Refused
from streams.kafka import Kafka
from tests.integration.orchestrator.cores import core

pytestmark = pytest.mark.broker

PATIENCE_S = 180.0


async def until(bus: Bus, module: str, operation: str, given: dict[str, Any], status: str) -> dict[str, Any]:
    """What an operation answers as soon as it has this status."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await bus.call_module(module, operation, given))["status"] != status:
            await asyncio.sleep(0.05)
    answer: dict[str, Any] = found
    return answer


async def test_a_plan_runs_its_tasks_as_a_workflow_and_a_trace_tells_of_it(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    async with core(kafka, codec, "core-1"):
        context = (await bus.call_module("context", "create-context", {"name": "room"}))["contextId"]
        tasks = [
            {"taskId": "note", "module": "context", "operation": "create-context", "parameters": {"name": "inner"}},
            {"taskId": "look", "dependencies": ["note"], "module": "context", "operation": "get-context",
             "parameters": {"contextId": "${note.result.contextId}"}},
            {"taskId": "agree", "dependencies": ["look"], "assignee": "ada"},
        ]  # fmt: skip
        plan = (await bus.call_module("plan", "create-plan", {"contextId": context, "tasks": tasks}))["planId"]
        trace = (await bus.call_module("trace", "start-monitoring", {"planId": plan}))["traceId"]
        with pytest.raises(Refused, match="conflict"):
            await bus.call_module("plan", "run-plan", {"planId": plan})
        await bus.call_module("plan", "approve-plan", {"planId": plan})
        begun = await bus.call_module("plan", "run-plan", {"planId": plan})
        # a task without an operation is put to its assignee
        async with asyncio.timeout(PATIENCE_S):
            while not (asked := (await bus.call_module("confirm", "list", {"status": "pending"}))["confirmations"]):
                await asyncio.sleep(0.05)
        assert asked[0]["approvers"] == ["ada"]
        await bus.call_module("confirm", "approve", {"confirmId": asked[0]["confirmId"], "by": "ada"})
        done = await until(bus, "plan", "get-plan", {"planId": plan}, "completed")
        assert {task["taskId"]: task["status"] for task in done["tasks"]} == dict.fromkeys(("note", "look", "agree"), "completed")
        assert done["progress"] == 1.0
        assert (await until(bus, "core", "get-workflow-status", {"executionId": begun["executionId"]}, "completed"))["progress"] == 1.0
        records = (await bus.call_module("trace", "get-trace", {"traceId": trace}))["records"]
        assert [each["type"] for each in records if each["name"] == "look"] == ["start", "completion"]


async def test_a_trace_collects_an_execution_and_core_is_a_module(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    steps = [
        {"id": "first", "type": "transform", "value": "1"},
        {"id": "hold", "type": "signal", "name": "go", "dependencies": ["first"]},
        {"id": "last", "type": "transform", "value": "steps['first'].result", "dependencies": ["hold"]},
    ]
    definition = {"id": "three", "name": "three", "version": "1.0.0", "steps": steps}
    async with core(kafka, codec, "core-1"):
        kept = (await bus.call_module("core", "create-workflow", {"definition": definition}))["workflowId"]
        execution = (await bus.call_module("core", "execute-workflow", {"workflowId": kept, "executionId": "mine"}))["executionId"]
        trace = (await bus.call_module("trace", "start-monitoring", {"executionId": execution}))["traceId"]
        await until(bus, "core", "pause", {"executionId": execution}, "paused")
        await until(bus, "core", "resume", {"executionId": execution}, "running")
        await bus.command(execution, "signal", {"name": "go"})
        ended = await until(bus, "core", "get-workflow-status", {"executionId": execution}, "completed")
        assert [(step["stepId"], step["status"]) for step in ended["steps"]] == [(name, "completed") for name in ("first", "hold", "last")]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await bus.call_module("trace", "get-trace", {"traceId": trace})
                names = [(each["name"], each["type"]) for each in found["records"]]
                if ("last", "completion") in names:
                    break
                await asyncio.sleep(0.05)
        assert ("hold", "completion") in names
        analysis = await bus.call_module("trace", "analyze-trace", {"traceId": trace})
        assert analysis["records"] >= len(names)
        other = (await bus.call_module("core", "execute-workflow", {"workflowId": kept}))["executionId"]
        assert (await until(bus, "core", "cancel", {"executionId": other, "reason": "no need"}, "cancelled"))["executionId"] == other


async def test_who_does_not_decide_is_escalated_and_expires_by_timers(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    asked = {"title": "Ship it?", "approvers": ["ada"], "escalation": [{"after": "300ms", "to": ["eve"]}]}
    async with core(kafka, codec, "core-1"):
        confirm = (await bus.call_module("confirm", "create", {**asked, "expiresIn": "1h"}))["confirmId"]
        lapsing = (await bus.call_module("confirm", "create", {**asked, "expiresIn": "600ms"}))["confirmId"]
        found = await until(bus, "confirm", "get", {"confirmId": confirm}, "in_review")
        assert (found["approvers"], found["escalated"]) == (["ada", "eve"], 1)
        assert (await bus.call_module("confirm", "approve", {"confirmId": confirm, "by": "eve"}))["status"] == "approved"
        await until(bus, "confirm", "get", {"confirmId": lapsing}, "expired")
        with pytest.raises(Refused, match="conflict"):
            await bus.call_module("confirm", "approve", {"confirmId": lapsing, "by": "ada"})


async def test_an_approval_of_a_workflow_is_a_confirmation_that_answers_it(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    step = {"id": "ask", "type": "approval", "title": "Go on?", "assignees": ["ada"]}
    definition = {"id": "asking", "name": "asking", "version": "1.0.0", "steps": [step]}
    async with core(kafka, codec, "core-1"):
        execution = (await bus.call_module("core", "execute-workflow", {"definition": definition}))["executionId"]
        async with asyncio.timeout(PATIENCE_S):
            while not (asked := (await bus.call_module("confirm", "list", {"executionId": execution}))["confirmations"]):
                await asyncio.sleep(0.05)
        await bus.call_module("confirm", "approve", {"confirmId": asked[0]["confirmId"], "by": "ada", "comment": "yes"})
        await until(bus, "core", "get-workflow-status", {"executionId": execution}, "completed")
