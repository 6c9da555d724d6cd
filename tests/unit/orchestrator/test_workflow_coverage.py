"""Coverage: what no scenario has taken of a definition is named, with where it stands."""

from __future__ import annotations

from typing import Any

from services.orchestrator.coverage import KINDS, coverage_text
from services.orchestrator.trial import Trial, measure, run_trial
from tests.unit.orchestrator.conftest import error, falling_back, operation, result, retrying, workflow


def missed(report: dict[str, Any]) -> dict[str, list[str]]:
    return {kind: [item["pointer"] for item in report[kind]["missed"]] for kind in KINDS}


def trial(document: dict[str, Any], **scenario: Any) -> Trial:
    return run_trial(document, scenario)


def branching() -> dict[str, Any]:
    check = {
        "id": "check", "type": "conditional", "condition": {"type": "expression", "expression": "input.big"}, "then": operation("big"),
    }  # fmt: skip
    return workflow(check)


def test_what_ran_is_taken_and_the_rest_is_named_with_its_place() -> None:
    document = workflow(
        operation("a", compensation={"type": "module-operation", "module": "work", "operation": "undo"}),
        operation("b", "a", error_handling={**retrying(), **falling_back({"condition": "error", "action": "skip"})}),
    )
    report = measure(document, [trial(document)])
    assert (report["taken"], report["total"], report["percent"]) == (2, 5, 40.0)
    assert missed(report) == {
        "steps": ["/steps/0/compensation"],
        "branches": [],
        "retries": ["/steps/1/error-handling/retry-policy"],
        "fallbacks": ["/steps/1/error-handling/fallback-actions/0"],
    }
    assert report["fallbacks"]["missed"][0] == {
        "step": "b", "pointer": "/steps/1/error-handling/fallback-actions/0", "index": 0, "condition": "error", "action": "skip",
    }  # fmt: skip


def test_scenarios_add_up() -> None:
    document = workflow(operation("b", error_handling={**retrying(), **falling_back({"condition": "error", "action": "skip"})}))
    fails = trial(document, modules={"work.b": [error("bad")]})
    retries = trial(document, modules={"work.b": [error("unavailable"), result()]})
    assert missed(measure(document, [fails]))["retries"] == ["/steps/0/error-handling/retry-policy"]
    assert missed(measure(document, [retries]))["fallbacks"] == ["/steps/0/error-handling/fallback-actions/0"]
    assert measure(document, [fails, retries])["percent"] == 100.0


def test_a_missing_else_is_a_branch_too() -> None:
    document = branching()
    only_then = measure(document, [trial(document, input={"big": True})])
    assert missed(only_then)["branches"] == ["/steps/0/condition"]
    assert only_then["branches"]["missed"][0]["branch"] == "else"
    only_else = measure(document, [trial(document, input={"big": False})])
    assert missed(only_else) == {"steps": ["/steps/0/then"], "branches": ["/steps/0/then"], "retries": [], "fallbacks": []}


def test_the_workflows_own_error_handling_counts_once_and_not_where_a_step_has_its_own() -> None:
    instead = {"id": "instead", "type": "module-operation", "module": "work", "operation": "instead"}
    handling = {**retrying(), **falling_back({"condition": "broken", "action": "run-step", "step": instead})}
    document = {"workflow": workflow(operation("a"), operation("b"), operation("own", error_handling=retrying()), error_handling=handling)}
    report = measure(document, [trial(document, modules={"work.a": [error("broken")]})])
    assert missed(report) == {
        "steps": [],
        "branches": [],
        "retries": ["/workflow/error-handling/retry-policy", "/workflow/steps/2/error-handling/retry-policy"],
        "fallbacks": [],
    }
    assert report["retries"]["missed"][0]["step"] is None


def test_the_text_names_what_was_missed() -> None:
    document = branching()
    text = coverage_text(measure(document, [trial(document, input={"big": False})]))
    assert text.splitlines()[0] == "coverage 50 %: 2 of 4 taken"
    assert "    never taken: check: then  (/steps/0/then)" in text.splitlines()
    assert "    never taken: big  (/steps/0/then)" in text.splitlines()


def test_a_condition_that_a_module_answers_takes_a_branch() -> None:
    check = {"id": "check", "type": "conditional", "condition": {"type": "custom", "handler": "work.good"}, "then": operation("a")}
    report = measure(workflow(check), [trial(workflow(check), modules={"work.good": [result(True)]})])
    assert missed(report)["branches"] == ["/steps/0/condition"]
