"""What a person reads who gave wrong parameters, or named an operation that there is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.modules.world import Refused, World

CALL = {"id": "a", "module": "context", "operation": "list-contexts"}


def told(module: str, operation: str, parameters: Any) -> str:
    with pytest.raises(Refused) as refused:
        World().call(module, operation, parameters)
    return str(refused.value)


def test_a_mistyped_parameter_is_told_with_what_is_missing_and_which_there_are() -> None:
    assert told("context", "create-context", {"nam": "x"}) == (
        "invalid: name is missing; nam is not a parameter (at /nam). The parameters are name, type, description, metadata."
    )


def test_of_many_faults_the_first_are_told_and_the_others_counted() -> None:
    tasks = [{"taskId": str(number), "status": 5} for number in range(9)]
    message = told("plan", "create-plan", {"name": "p", "tasks": tasks})
    assert message == (
        "invalid: status is not a parameter (at /tasks/0/status); status is not a parameter (at /tasks/1/status); "
        "status is not a parameter (at /tasks/2/status). There are 6 more faults."
    )


def test_an_unknown_operation_is_told_with_those_that_there_are() -> None:
    assert told("context", "fly", {}).startswith("operation.unknown: There is no operation context.fly. There are create-context, ")
    assert told("nowhere", "fly", {}) == "operation.unknown: There is no operation nowhere.fly."


@pytest.mark.parametrize(
    ("module", "operation", "parameters", "pointer"),
    [
        ("confirm", "create", {"title": "t", "approvers": ["a"], "quorum": 2}, "/quorum"),
        ("confirm", "create", {"title": "t", "expiresAt": "2030-01-01"}, "/expiresAt"),
        ("confirm", "create", {"title": "t", "expires_at": "soon"}, "/expires_at"),
        ("role", "assign-roles", {"contextId": "c", "roles": [{"role": "r", "expiresAt": "soon"}]}, "/roles/0/expiresAt"),
        ("role", "separate-duties", {"contextId": "c", "name": "n", "roles": ["r"]}, "/roles"),
        ("network", "add-node", {"networkId": "n", "nodeId": "a", "status": "error"}, "/status"),
        ("hub", "coordinate", {"calls": [CALL, CALL]}, "/calls/1/id"),
        ("hub", "coordinate", {"calls": [{**CALL, "dependsOn": ["b"]}]}, "/calls/0/dependsOn/0"),
        ("hub", "coordinate", {"calls": [CALL, {**CALL, "id": "b", "dependsOn": ["a"]}], "mode": "parallel"}, "/calls/1/dependsOn"),
    ],
)
def test_what_does_not_go_together_is_told_at_its_place(module: str, operation: str, parameters: Any, pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        World().call(module, operation, parameters)
    assert (refused.value.code, refused.value.pointer) == ("invalid", pointer)
