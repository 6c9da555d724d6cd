"""What validation knows of the names in CEL expressions: steps, variables, functions."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definitions import validate
from tests.unit.orchestrator.conftest import Run, operation, workflow

OPERATIONS = {"work": ("a", "b")}


def transform(value: str, *dependencies: str) -> dict[str, Any]:
    return {"id": "t", "type": "transform", "value": value, "dependencies": list(dependencies)}


def faults(*steps: dict[str, Any], **fields: Any) -> set[tuple[str, str]]:
    return {(fault.code, fault.pointer) for fault in validate(workflow(*steps, **fields), OPERATIONS)}


@pytest.mark.parametrize(
    ("expression", "codes"),
    [
        ('steps["nope"].result', {"reference.unknown"}),
        ("steps['nope'].result", {"reference.unknown"}),
        ("has(steps . nope)", {"reference.unknown"}),
        ('steps["b"].status', {"reference.uncertain"}),
        ("steps.b.result.n", {"reference.uncertain"}),
        ('steps["t"].status', {"reference.uncertain"}),
        ('steps["nope"].result + steps.b.result', {"reference.unknown", "reference.uncertain"}),
        ("inptu.x", {"expression.invalid"}),
        ("execution.id", {"expression.invalid"}),
        ("error.code", {"expression.invalid"}),
        ("nofunc(1)", {"expression.invalid"}),
        ("input.x.nomethod ()", {"expression.invalid"}),
        ("[1].map(x, y)", {"expression.invalid"}),
    ],
)
def test_names_that_cannot_exist_are_refused(expression: str, codes: set[str]) -> None:
    assert faults(operation("a"), operation("b"), transform(expression, "a")) == {(code, "/steps/2/value") for code in codes}


@pytest.mark.parametrize(
    "expression",
    [
        'steps["a"].result.n + steps.a.result.n',
        'steps[input.name].result == "nope"',
        'steps["a" + input.x].result',
        '"nope" in steps',
        "size(steps)",
        'input.steps.nope == "steps.nope" // steps.nope',
        '[1, 2].all(x, x > 0) && [1].exists_one(y, y == 1) && {"k": 1}.exists(k, k == "k")',
        "[1].map(steps, steps.nope)",
        "[[1]].map(x, x.filter(y, y in (x)))",
        '"a".startsWith("a") && "a".matches("a|b") && "abc".contains("nofunc(1)") && "a".endsWith("a")',
        'timestamp("2026-01-01T00:00:00Z").getFullYear() + int("1") + duration("1h").getHours()',
        "type(1) == int && dyn(1) == 1 && string(uint(1)) == string(double(1)) && size(bytes('a')) == 1",
        "optional.of(1).hasValue()",
        "event == null ? -1 : 5 % 2",
    ],
)
def test_what_may_mean_something_is_accepted(expression: str) -> None:
    assert faults(operation("a"), operation("b"), transform(expression, "a")) == set()


def test_conditions_are_checked_where_they_stand() -> None:
    conditional = {
        "id": "c",
        "type": "conditional",
        "condition": {"type": "expression", "expression": 'steps["then"].result'},
        "then": {"id": "then", "type": "transform", "value": "1"},
    }
    handling = {"fallback-actions": [{"condition": 'error.code == "x" && steps.nope.status == fault', "action": "skip"}]}
    assert faults(conditional, operation("a", error_handling=handling)) == {
        ("reference.uncertain", "/steps/0/condition/expression"),
        ("reference.unknown", "/steps/1/error-handling/fallback-actions/0/condition"),
        ("expression.invalid", "/steps/1/error-handling/fallback-actions/0/condition"),
    }


def test_the_output_may_name_any_step_that_exists() -> None:
    output = {"fine": "steps.a.result", "wrong": "steps.nope.result"}
    assert faults(operation("a"), output=output) == {("reference.unknown", "/output/wrong")}


def test_the_message_names_what_is_missing() -> None:
    found = validate(workflow(transform("nofunc(nix)")), OPERATIONS)
    assert [fault.message.split(".")[0] for fault in found] == ["There is no variable 'nix'", "There is no function 'nofunc'"]


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        ("critical", set()),
        ("${input.severity}", set()),
        ("loud", {("schema.enum", "/steps/0/event/severity")}),
        ("Warning", {("schema.enum", "/steps/0/event/severity")}),
    ],
)
def test_a_severity_that_is_given_as_it_is_must_be_one(severity: str, expected: set[tuple[str, str]]) -> None:
    assert faults({"id": "e", "type": "emit", "event": {"type": "x", "severity": severity}}) == expected


@pytest.mark.parametrize(
    "expression", ["optional.of(1).hasValue()", "size(steps) >= 0", '[1].map(input, input)[0] == 1 && "a".matches("a")']
)
def test_accepted_expressions_have_values(run: Run, expression: str) -> None:
    assert run(workflow(transform(expression)))["output"] == {"t": True}
