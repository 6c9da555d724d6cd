"""Malformed definitions: 200 made from good ones by one wrong turn each, refused where they are wrong; and whatever is accepted runs."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.orchestrator.definitions import validate
from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from services.orchestrator.store import AnyOperation
from streams.errors import InvalidInput
from streams.records import ExecutionStatus
from tests.workloads.behaviour import MODULE
from tests.workloads.cases import known_kinds
from tests.workloads.definitions import Definitions

OPERATIONS = {MODULE: AnyOperation()}
STATUSES = get_args(ExecutionStatus)
Path = tuple[str | int, ...]
#: What is wrong now: code and path. None: there is no place for this turn in the document.
Wrong = tuple[str, Path] | None


def steps_of(value: Any, path: Path = ()) -> Iterator[tuple[dict[str, Any], Path]]:
    """All steps that stand in lists, at any depth, with their paths."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "steps" and isinstance(item, list):
                yield from ((step, (*path, key, place)) for place, step in enumerate(item) if isinstance(step, dict) and "id" in step)
            yield from steps_of(item, (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from steps_of(item, (*path, place))


def on_step(change: Callable[[dict[str, Any]], tuple[str, Path] | None], *types: str) -> Callable[[Random, dict[str, Any]], Wrong]:
    """A turn for the worse of a random step of these types (default: any)."""

    def turn(random: Random, document: dict[str, Any]) -> Wrong:
        found = [(step, path) for step, path in steps_of(document) if not types or step["type"] in types]
        if not found:
            return None
        step, path = random.choice(found)
        wrong = change(step)
        return None if wrong is None else (wrong[0], (*path, *wrong[1]))

    return turn


def on_top(change: Callable[[dict[str, Any]], tuple[str, Path] | None]) -> Callable[[Random, dict[str, Any]], Wrong]:
    return lambda random, document: change(document)


def put(code: str, *below: str | int, **fields: Any) -> Callable[[dict[str, Any]], tuple[str, Path]]:
    """Sets fields (`_` is `-`); the fault is at `below`, default the field itself."""

    def change(value: dict[str, Any]) -> tuple[str, Path]:
        given = {name.replace("_", "-"): item for name, item in fields.items()}
        value.update(copy.deepcopy(given))
        return code, below or (next(iter(given)),)

    return change


def without(field: str) -> Callable[[dict[str, Any]], tuple[str, Path] | None]:
    return lambda value: None if value.pop(field, None) is None else ("schema.required", ())


def renamed(field: str) -> Callable[[dict[str, Any]], tuple[str, Path] | None]:
    def change(value: dict[str, Any]) -> tuple[str, Path] | None:
        if field not in value:
            return None
        value[field + "s"] = value.pop(field)
        return "schema.additionalProperties", (field + "s",)

    return change


def depending_on_itself(step: dict[str, Any]) -> tuple[str, Path]:
    step["dependencies"] = [*step.get("dependencies", []), step["id"]]
    return "dependency.cycle", ("..",)


def an_id_twice(random: Random, document: dict[str, Any]) -> Wrong:
    steps = document["steps"]
    if len(steps) < 2:
        return None
    steps[-1]["id"] = steps[0]["id"]
    steps[-1].pop("dependencies", None)
    return "id.duplicate", ("steps", len(steps) - 1, "id")


def retries(code: str, field: str, value: Any) -> Callable[[dict[str, Any]], tuple[str, Path]]:
    return put(code, "error-handling", "retry-policy", field, error_handling={"retry-policy": {field: value}})


def fallback(code: str, *below: str | int, **fields: Any) -> Callable[[dict[str, Any]], tuple[str, Path]]:
    return put(code, "error-handling", "fallback-actions", 0, *below, error_handling={"fallback-actions": [fields]})


def condition(code: str, *below: str, **fields: Any) -> Callable[[dict[str, Any]], tuple[str, Path]]:
    return put(code, "condition", *below, condition=fields)


def trigger(code: str, *below: str, **fields: Any) -> Callable[[dict[str, Any]], tuple[str, Path]]:
    return put(code, "triggers", 0, *below, triggers=[fields])


ASK, CHOICE = "module-operation", "conditional"
# ruff: noqa: E501
TURNS: dict[str, Callable[[Random, dict[str, Any]], Wrong]] = {
    "no id": on_top(without("id")),
    "no name": on_top(without("name")),
    "no steps": on_top(without("steps")),
    "empty steps": on_top(put("schema.minItems", steps=[])),
    "steps of the wrong type": on_top(put("schema.type", steps={"a": 1})),
    "an unknown field": on_top(put("schema.additionalProperties", "colour", colour="red")),
    "a step without id": on_step(without("id")),
    "a step without type": on_step(without("type")),
    "a step of no type": on_step(put("schema.enum", type="module_operation")),
    "a type that is no text": on_step(put("schema.enum", type=5)),
    "an unknown field of a step": on_step(put("schema.additionalProperties", "dependson", dependson=[])),
    "dependencies renamed": on_step(renamed("dependencies")),
    "dependencies of the wrong type": on_step(put("schema.type", dependencies="a")),
    "a dependency that is no text": on_step(put("schema.type", "dependencies", 0, dependencies=[5])),
    "a dangling dependency": on_step(put("dependency.unknown", "dependencies", 0, dependencies=["nowhere"])),
    "a cycle": on_step(depending_on_itself),
    "an id with a blank": on_step(put("schema.pattern", id="a b")),
    "an id that is empty": on_step(put("schema.pattern", id="")),
    "an id with a line end": on_step(put("schema.pattern", id="a\n")),
    "an id with a null byte": on_step(put("schema.pattern", id="a\x00")),
    "an id that is a number": on_step(put("schema.type", id=7)),
    "an id twice": an_id_twice,
    "a timeout of 0": on_step(put("schema.exclusiveMinimum", timeout=0)),
    "a negative timeout": on_step(put("schema.exclusiveMinimum", timeout=-5)),
    "a timeout without unit": on_step(put("schema.format", timeout="5 parsecs")),
    "a timeout of months": on_step(put("schema.format", timeout="P1M")),
    "a timeout of a fraction": on_step(put("schema.type", timeout=0.5)),
    "a timeout that is true": on_step(put("schema.type", timeout=True)),
    "an endless timeout": on_step(put("schema.format", timeout="99999999d")),
    "an attempt-timeout of 0": on_step(put("schema.exclusiveMinimum", attempt_timeout="0ms")),
    "no place at all": on_step(put("schema.minimum", max_concurrency=0), "parallel"),
    "half a place": on_top(put("schema.type", max_concurrency=1.5)),
    "no module": on_step(without("module"), ASK),
    "an unknown module": on_step(put("module.unknown", module="kitchen"), ASK),
    "parameters of the wrong type": on_step(put("schema.type", parameters=[1]), ASK),
    "a reference to nowhere": on_step(put("reference.unknown", "parameters", "x", parameters={"x": "${nowhere.result}"}), ASK),
    "a reference without end": on_step(put("reference.syntax", "parameters", "x", 0, parameters={"x": ["${input.y"]}), ASK),
    "a reference to itself": on_step(lambda step: (step.update(parameters={"x": f"a ${{{step['id']}.result}}"}), ("reference.uncertain", ("parameters", "x")))[1], ASK),
    "a reference to a status": on_step(put("reference.unknown", "parameters", "x", parameters={"x": "${execution.status}"}), ASK),
    "a strategy of no kind": on_step(retries("schema.enum", "backoff-strategy", "random")),
    "retries below 0": on_step(retries("schema.minimum", "max-retries", -1)),
    "an interval of no kind": on_step(retries("schema.format", "initial-interval", "soon")),
    "jitter beyond 1": on_step(retries("schema.maximum", "jitter", 1.5)),
    "a policy with an unknown field": on_step(retries("schema.additionalProperties", "retries", 3)),
    "a fallback without action": on_step(fallback("schema.required", condition="error")),
    "an action of no kind": on_step(fallback("schema.enum", "action", condition="error", action="pray")),
    "use-value without value": on_step(fallback("schema.required", condition="error", action="use-value")),
    "run-step without step": on_step(fallback("schema.required", condition="error", action="run-step")),
    "a fallback's CEL that is none": on_step(fallback("expression.invalid", "condition", condition="a b", action="fail")),
    "a condition of no kind": on_step(condition("schema.enum", "type", type="oracle"), CHOICE),
    "CEL that is none": on_step(condition("expression.invalid", "expression", type="expression", expression="1 +"), CHOICE),
    "CEL with an unknown variable": on_step(condition("expression.invalid", "expression", type="expression", expression="inputs.x"), CHOICE),
    "CEL with an unknown step": on_step(condition("reference.unknown", "expression", type="expression", expression='steps["gone"].result'), CHOICE),
    "an operator of no kind": on_step(condition("schema.enum", "operator", type="step-result", stepId="x", operator="is", value=1), CHOICE),
    "a comparison with nothing": on_step(condition("schema.required", type="step-result", stepId="x", operator="eq"), CHOICE),
    "in what is no list": on_step(condition("schema.type", "value", type="step-result", stepId="x", operator="in", value=1), CHOICE),
    "a result of nowhere": on_step(condition("reference.unknown", "stepId", type="step-result", stepId="x", operator="exists"), CHOICE),
    "a handler without operation": on_step(condition("schema.pattern", "handler", type="custom", handler="check"), CHOICE),
    "a handler of nowhere": on_step(condition("module.unknown", "handler", type="custom", handler="gone.check"), CHOICE),
    "a branch that is no step": on_step(put("schema.type", then="a"), CHOICE),
    "a trigger that is empty": on_top(trigger("schema.required")),
    "a cron that never comes": on_top(trigger("schema.format", "cron", cron="0 0 31 2 *")),
    "a time zone of nowhere": on_top(trigger("schema.format", "timezone", cron="@daily", timezone="Mars")),
    "a trigger's CEL that is none": on_top(trigger("expression.invalid", "where", event="a", where="(")),
    "an output that is no map": on_top(put("schema.type", output=[])),
    "an output of nowhere": on_top(put("reference.unknown", "output", "x", output={"x": "${gone.result}"})),
    "an output's CEL that is none": on_top(put("expression.invalid", "output", "x", output={"x": "1 +"})),
    "a schema that is none": on_top(lambda document: (document.update({"input-schema": {"type": "thing"}}), ("schema.anyOf", ("input-schema", "type")))[1]),
    "on-failure of no kind": on_top(put("schema.enum", on_failure="panic")),
    "a priority of no kind": on_step(put("schema.enum", priority="whenever")),
    "resources of no amount": on_step(put("schema.exclusiveMinimum", "resources", "gpu", resources={"gpu": 0})),
    "a compensation of no type": on_step(put("schema.required", "compensation", compensation={})),
}  # fmt: skip


def malformed(seed: int) -> tuple[str, dict[str, Any], tuple[str, Path]]:
    """The seed's malformed document: what was done to it, and what is wrong with it."""
    random = Random(seed)
    name = list(TURNS)[seed % len(TURNS)]
    while True:
        document = Definitions(random, known_kinds()).workflow()
        assert validate(document, OPERATIONS) == [], "it was good before"
        wrong = TURNS[name](random, document)
        if wrong is not None:
            return name, document, wrong


def found_at(document: Any, pointer: str) -> Any:
    """The value that a JSON pointer leads to. Raises `LookupError` where it leads nowhere."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


@pytest.mark.parametrize("seed", range(200))
def test_a_malformed_definition_is_refused_where_it_is_wrong(seed: int) -> None:
    name, document, (code, path) = malformed(seed)
    if path[-1:] == ("..",):
        path = path[:-2]  # a cycle is a fault of the list
    pointer = "".join(f"/{part}" for part in path)
    faults = validate(document, OPERATIONS)
    assert (code, pointer) in {(fault.code, fault.pointer) for fault in faults}, (name, faults)
    for fault in faults:
        found_at(document, fault.pointer)
        assert re.fullmatch(r"[a-z]+\.[A-Za-z$-]+", fault.code)
        assert fault.message


def test_every_turn_for_the_worse_is_taken() -> None:
    assert {malformed(seed)[0] for seed in range(len(TURNS))} == set(TURNS)


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**18, "", "a", "${input.n}", "${a.result}", "$${", "1 +", "1h", "\x00", "ⅷ", [], {}, [[]], {"a": 1}]
)


@settings(deadline=None, max_examples=120)
@given(seed=st.integers(0, 10**6), place=st.integers(0, 10**6), value=VALUES, drop=st.booleans())
def test_whatever_is_accepted_runs(seed: int, place: int, value: Any, drop: bool) -> None:
    document = Definitions(Random(seed), known_kinds()).workflow()
    holders = list(_holders(document))
    holder = holders[place % len(holders)]
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = keys[place % len(keys)]
    if drop:
        del holder[key]
    else:
        holder[key] = value
    faults = validate(document, OPERATIONS)
    for fault in faults:
        found_at(document, fault.pointer)
    if not faults:
        simulation = Simulation(document, read_scenario({"input": {"n": 1}}))
        with contextlib.suppress(InvalidInput):  # it does not end
            assert simulation.run()["status"] in STATUSES


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)) and value:
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _holders(item)
