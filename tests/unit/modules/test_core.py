from __future__ import annotations

from typing import Any

import pytest

from services.modules.core.state import WAIT_US
from streams.topics import partition_of
from tests.unit.modules.world import Refused, World

SCHEMA = {"properties": {"n": {"type": "integer"}}}
ASKING: dict[str, Any] = {"id": "w", "name": "Asks", "steps": [{"id": "go", "type": "approval", "title": "?"}]}


@pytest.fixture
def world() -> World:
    return World(partitions=3)


def test_a_definition_is_checked_kept_executed_and_followed(world: World) -> None:
    created = world.call("core", "create-workflow", definition={"workflow": ASKING})
    assert created["name"] == "Asks"
    begun = world.call("core", "execute-workflow", workflowId=created["workflowId"], input={"a": 1})
    assert begun["status"] == "running"
    found = world.call("core", "get-workflow-status", executionId=begun["executionId"])
    assert (found["workflow"], found["status"], found["steps"][0]["status"], found["progress"]) == ("w", "running", "waiting", 0.0)
    assert world.call("core", "get-workflow", workflowId=created["workflowId"])["executions"] == 1
    assert world.call("core", "pause", executionId=begun["executionId"])["status"] == "paused"
    assert world.call("core", "resume", executionId=begun["executionId"])["status"] == "running"
    assert world.call("core", "cancel", executionId=begun["executionId"])["status"] == "cancelled"
    assert world.call("core", "get-workflow-status", executionId=begun["executionId"])["progress"] == 1.0


def test_a_faulty_definition_is_refused_with_all_faults(world: World) -> None:
    request = world.ask("core", "create-workflow", {"definition": {"id": "w", "name": "w", "steps": []}})
    with pytest.raises(Refused) as refused:
        world.answer_of(request)
    assert (refused.value.code, refused.value.pointer) == ("definition.invalid", "/definition/steps")
    assert world.responses[request].data["faults"][0]["pointer"] == "/definition/steps"
    assert world.call("core", "list-workflows")["total"] == 0


@pytest.mark.parametrize("operation", ["pause", "cancel", "get-workflow-status"])
def test_an_execution_that_is_not_there_is_not_found(world: World, operation: str) -> None:
    with pytest.raises(Refused) as refused:
        world.call("core", operation, executionId="ghost")
    assert (refused.value.code, refused.value.pointer) == ("not-found", "/executionId")


@pytest.mark.parametrize(
    ("parameters", "code", "pointer"),
    [
        ({"published": "ghost"}, "workflow.unknown", "/published"),
        ({"definition": {**ASKING, "steps": []}}, "definition.invalid", "/definition/steps"),
        (
            {"definition": {**ASKING, "input-schema": SCHEMA}, "input": {"n": "x"}},
            "input.invalid",
            "/input/n",
        ),
    ],
)
def test_what_cannot_be_executed_is_refused_at_its_parameter(world: World, parameters: Any, code: str, pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        world.call("core", "execute-workflow", parameters)
    assert (refused.value.code, refused.value.pointer) == (code, pointer)


def test_a_command_in_a_wrong_state_is_a_conflict(world: World) -> None:
    execution = world.call("core", "execute-workflow", definition=ASKING, executionId="e-1")["executionId"]
    with pytest.raises(Refused, match="conflict"):
        world.call("core", "resume", executionId=execution)
    assert world.call("core", "execute-workflow", definition=ASKING, executionId="e-1")["status"] == "running", "the same again"


def test_an_orchestrator_that_is_away_is_unavailable_in_time(world: World) -> None:
    execution = next(f"e-{number}" for number in range(99) if partition_of(f"e-{number}", 3) != partition_of("home", 3))
    world.away = {partition_of(execution, 3)}
    request = world.ask("core", "get-workflow-status", {"executionId": execution})
    world.wait(WAIT_US / 1e6)
    with pytest.raises(Refused) as refused:
        world.answer_of(request)
    assert (refused.value.code, refused.value.retryable) == ("unavailable", True)
