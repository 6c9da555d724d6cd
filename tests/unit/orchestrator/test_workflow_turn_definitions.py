"""Definitions with `foreach` and `loop`: what is refused before anything runs, what turns may name, and what people see of them."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definitions import parse, validate
from services.orchestrator.graph import draw
from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from services.orchestrator.store import AnyModule
from services.orchestrator.timeline import timeline
from services.orchestrator.view import fold
from tests.unit.orchestrator.conftest import falling_back, foreach, loop, operation, transform, workflow


def faults(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault.code, fault.pointer) for fault in validate(document, AnyModule())]


GOOD_EACH = foreach(operation("a"), operation("b", "a"))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{**GOOD_EACH, "items": 3}], ("schema.type", "/steps/0/items")),
        ([{**GOOD_EACH, "items": "all of ${input.items}"}], ("schema.format", "/steps/0/items")),
        ([{**GOOD_EACH, "items": "${gone.result}"}], ("reference.unknown", "/steps/0/items")),
        ([{**GOOD_EACH, "items": ["${a.result}"]}], ("reference.uncertain", "/steps/0/items/0")),
        ([{key: value for key, value in GOOD_EACH.items() if key != "items"}], ("schema.required", "/steps/0")),
        ([{**GOOD_EACH, "steps": []}], ("schema.minItems", "/steps/0/steps")),
        ([{**GOOD_EACH, "as": "an item"}], ("schema.pattern", "/steps/0/as")),
        ([{**GOOD_EACH, "as": "input"}], ("schema.not", "/steps/0/as")),
        ([{**GOOD_EACH, "while": "true"}], ("schema.additionalProperties", "/steps/0/while")),
        ([{**GOOD_EACH, "max-concurrency": 0}], ("schema.minimum", "/steps/0/max-concurrency")),
        ([GOOD_EACH, operation("a")], ("id.duplicate", "/steps/1/id")),
        ([foreach(operation("a", "c")), operation("c")], ("dependency.unknown", "/steps/0/steps/0/dependencies/0")),
        ([foreach(operation("a", "b"), operation("b", "a"))], ("dependency.cycle", "/steps/0/steps")),
        ([GOOD_EACH, operation("c", "each", parameters={"x": "${a.result}"})], ("reference.uncertain", "/steps/1/parameters/x")),
        ([GOOD_EACH, operation("c", "each", parameters={"x": "${item}"})], ("reference.unknown", "/steps/1/parameters/x")),
        ([GOOD_EACH, transform("c", "item", "each")], ("expression.invalid", "/steps/1/value")),
        ([GOOD_EACH, transform("c", 'steps["a"].result', "each")], ("reference.uncertain", "/steps/1/value")),
        ([foreach(operation("a"), operation("b", parameters={"x": "${a.result}"}))],
         ("reference.uncertain", "/steps/0/steps/1/parameters/x")),
        ([foreach(transform("a", "iteration"))], ("expression.invalid", "/steps/0/steps/0/value")),
        ([loop(operation("a"), while_="item")], ("expression.invalid", "/steps/0/while")),
        ([loop(operation("a"), while_="1 +")], ("expression.invalid", "/steps/0/while")),
        ([loop(operation("a"), while_='steps["gone"].result')], ("reference.unknown", "/steps/0/while")),
        ([loop(operation("a"), while_="true", most=0)], ("schema.minimum", "/steps/0/max-iterations")),
        ([loop(operation("a"), operation("b", parameters={"x": "${a.result}"}), while_="true")],
         ("reference.uncertain", "/steps/0/steps/1/parameters/x")),
    ],
)  # fmt: skip
def test_faults_of_containers_are_found_before_anything_runs(steps: list[Any], expected: tuple[str, str]) -> None:
    assert faults(workflow(*steps)) == [expected]


@pytest.mark.parametrize(
    "steps",
    [
        [operation("x"), foreach(operation("a", parameters={"i": "${item.x}", "n": "${index}", "x": "${x.result}"}), dependencies=["x"])],
        [foreach(foreach(transform("a", "outer + inner + index"), items="${outer}", id="in", as_="inner"), as_="outer")],
        [loop(operation("a"), while_='steps["a"].status == "completed" && iteration > 1')],
        [loop(transform("a", 'steps["b"].result'), operation("b", "a"), while_="true")],
        [foreach({**operation("a"), "error-handling": falling_back({"condition": 'error.code == item', "action": "skip"})})],
    ],
)  # fmt: skip
def test_what_a_turn_may_name(steps: list[Any]) -> None:
    assert faults(workflow(*steps)) == []


def test_the_output_names_containers_not_what_is_in_their_turns() -> None:
    document = workflow(GOOD_EACH, output={"x": "${each.result[0].a}", "y": "${a.result}", "z": 'steps["b"].result'})
    assert faults(document) == [("reference.uncertain", "/output/y"), ("reference.uncertain", "/output/z")]


# --- what people see ----------------------------------------------------------------------------------------------------


def test_the_graph_draws_turns_in_a_box() -> None:
    definition = parse(workflow(GOOD_EACH, loop(operation("c"), while_="iteration < 2")), AnyModule())
    mermaid = draw(definition, "mermaid").splitlines()
    assert '  subgraph s0_box["each: for each item"]' in mermaid
    assert '  subgraph s3_box["again: while iteration < 2"]' in mermaid
    assert "    s1 --> s2" in mermaid
    assert '  label="each: for each item";' in draw(definition, "dot")


def test_a_view_says_how_far_the_turns_have_come() -> None:
    document = workflow(foreach(operation("a"), max_concurrency=2))
    answers = {"work.a": [{"result": {}, "after": "1s"}, "never"]}
    simulation = Simulation(document, read_scenario({"input": {"items": [1, 2, 3, 4]}, "modules": answers}))
    for _ in range(2):
        simulation.step()
    view = fold(simulation.runner.events())
    assert view["steps"]["each"]["turns"] == {"begun": 3, "ended": 1, "total": 4}
    assert "1 of 4 turns ended, 2 running" in timeline(view)
