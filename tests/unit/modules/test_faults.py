"""What a person reads who gave wrong parameters, or named an operation that there is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.modules.world import Refused, World


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
