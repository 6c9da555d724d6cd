"""`mplp workflow validate|test` as other programs see them: exit codes, shapes of JSON, documents in all notations."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.processes.offline import run_trial

EXAMPLE = Path(__file__).parents[3] / "examples" / "multi-agent-collaboration.json"

TWO_STEPS = """
workflow:
  id: two-steps
  name: Two steps
  steps:
    - {id: wait, type: wait, until: 2026-01-01T00:00:10Z}      # a time without quotes is a time in YAML
    - id: plan
      type: module-operation
      module: plan
      operation: create-plan
      dependencies: [wait]
      parameters: {name: "${input.name}"}
      error-handling: {retry-policy: {max-retries: 1}, fallback-actions: [{condition: error, action: skip}]}
    - {id: either, type: conditional, condition: {type: expression, expression: "input.name == 'x'"}, then: {id: more, type: wait, for: 1}}
"""
SCENARIO = """
start: 2026-01-01T00:00:00Z
input: {name: x}
modules: {plan.create-plan: [{result: {planId: p-1}, after: 1s}]}
"""


def mplp(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(app, ["workflow", *arguments], input=input)


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


def said(result: Result) -> Any:
    """What stands on standard output: one document of JSON and nothing else."""
    return json.loads(result.stdout)


def test_the_example_of_the_contract_is_valid() -> None:
    result = mplp("validate", str(EXAMPLE), "--json")

    assert (result.exit_code, said(result)) == (0, {"valid": True, "faults": []})


def test_the_example_runs_to_its_end(tmp_path: Path) -> None:
    result = mplp("test", str(EXAMPLE), "--scenario", write(tmp_path, "s.yaml", "modules: {}"), "--json")

    # Without a contextId in the answer `{}`, the step that refers to it fails, and so does the execution: that is no fault of the call.
    assert result.exit_code == 0
    assert said(result)["status"] == "failed"
    assert said(result)["steps"]["role-assignment"]["error"]["code"] == "reference.missing"


def test_the_example_completes_when_all_answer(tmp_path: Path) -> None:
    scenario = {
        "modules": {
            "context.create-context": [{"result": {"contextId": "c"}, "after": "1s"}],
            "role.assign-roles": [{"result": {"assignments": ["r"]}, "after": "1s"}],
            "plan.create-plan": [{"error": {"code": "unavailable"}}, {"result": {"planId": "p"}}],
            "trace.start-monitoring": ["never"],
        },
        "at": [{"time": "1h", "answer": {"step": "trace-execution", "choice": "use-value", "value": {"traceId": "t"}, "by": "ann"}}],
    }

    outcome = said(mplp("test", str(EXAMPLE), "--scenario", write(tmp_path, "s.json", json.dumps(scenario)), "--json"))

    # The time-out of a child of a parallel, 30 s, is escalated by the workflow's own fallback and answered after an hour.
    assert (outcome["status"], outcome["duration_ms"]) == ("completed", 3_600_000)
    assert outcome["steps"]["plan-creation"]["attempts"] == 2
    assert outcome["steps"]["plan-creation"]["parameters"] == {"contextId": "c", "assignedRoles": ["r"]}
    assert outcome["steps"]["dialog-facilitation"]["parameters"] == {"participants": ["r"]}
    assert outcome["output"]["execution-monitoring"]["results"][0]["value"] == {"traceId": "t"}


def test_an_outcome_has_all_its_parts(tmp_path: Path) -> None:
    result = mplp("test", write(tmp_path, "w.yaml", TWO_STEPS), "--scenario", write(tmp_path, "s.yaml", SCENARIO), "--json")

    assert result.exit_code == 0
    outcome = said(result)
    transitions = outcome.pop("transitions")
    assert outcome == {
        "status": "completed",
        "output": {"wait": None, "plan": {"planId": "p-1"}, "either": None},
        "duration_ms": 11_000,
        "compensated": False,
        "steps": {
            "wait": {
                "status": "completed",
                "attempts": 1,
                "parameters": {"until": "2026-01-01T00:00:10.000000Z"},
                "result": None,
                "error": None,
            },
            "plan": {"status": "completed", "attempts": 1, "parameters": {"name": "x"}, "result": {"planId": "p-1"}, "error": None},
            "either": {"status": "completed", "attempts": 1, "parameters": {}, "result": None, "error": None},
            "more": {"status": "completed", "attempts": 1, "parameters": {"for": 1}, "result": None, "error": None},
        },
        "events": [],
    }
    assert transitions[0]["type"] == "execution.started"
    assert transitions[-1] == {
        "time": "2026-01-01T00:00:11.000000Z",
        "type": "execution.completed",
        "step_id": None,
        "attempt": 0,
        "status": "completed",
        "data": {"output": outcome["output"], "duration_ms": 11_000},
    }


@pytest.mark.parametrize(
    ("expect", "differences"),
    [
        ("{status: completed, duration_ms: 11000, steps: {plan: {attempts: 1}}}", []),
        ("{status: failed}", [{"path": "/status", "expected": "failed", "actual": "completed"}]),
        ("{steps: {plan: {attempts: 2}}}", [{"path": "/steps/plan/attempts", "expected": 2, "actual": 1}]),
        ("{steps: {nope: {status: x}}}", [{"path": "/steps/nope", "expected": {"status": "x"}, "actual": None}]),
        (
            "{output: {plan: {planId: [1]}}, compensated: true}",
            [
                {"path": "/output/plan/planId", "expected": [1], "actual": "p-1"},
                {"path": "/compensated", "expected": True, "actual": False},
            ],
        ),
    ],
)
def test_what_is_expected_makes_it_a_test(tmp_path: Path, expect: str, differences: list[Any]) -> None:
    scenario = write(tmp_path, "s.yaml", f"{SCENARIO}expect: {expect}\n")

    result = mplp("test", write(tmp_path, "w.yaml", TWO_STEPS), "--scenario", scenario, "--json")

    assert result.exit_code == (1 if differences else 0)
    assert said(result)["differences"] == differences


@pytest.mark.parametrize(
    "scenario",
    ["inputs: {}", "at: [{time: soon, pause: {}}]", "modules: {m.a: [{after: 1, answer: 2}]}", "at: [{time: 1, explode: {}}]", "[1]"],
)
def test_a_scenario_that_cannot_be_run_is_refused(tmp_path: Path, scenario: str) -> None:
    result = mplp("test", write(tmp_path, "w.yaml", TWO_STEPS), "--scenario", write(tmp_path, "s.yaml", scenario), "--json")

    assert result.exit_code == 1
    assert said(result)["error"]["code"] == "scenario.invalid"


def test_a_definition_with_faults_is_not_run(tmp_path: Path) -> None:
    text = TWO_STEPS.replace("[wait]", "[gone]")

    result = mplp("test", write(tmp_path, "w.yaml", text), "--scenario", write(tmp_path, "s.yaml", SCENARIO), "--json")

    assert result.exit_code == 1
    assert said(result)["error"]["faults"][0]["pointer"] == "/workflow/steps/1/dependencies/0"


def test_a_call_without_a_scenario_is_a_wrong_use(tmp_path: Path) -> None:
    assert mplp("test", write(tmp_path, "w.yaml", TWO_STEPS)).exit_code == 2


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (TWO_STEPS.replace("[wait]", "[gone]"), "/workflow/steps/1/dependencies/0"),
        ("id: w\nname: w\nsteps: [{id: a, type: wait, for: 1, dependencies: [b]}]", "/steps/0/dependencies/0"),
        (
            '{"workflow": {"id": "w", "name": "w", "steps": [{"id": "a", "type": "wait", "for": 1, "dependencies": ["b"]}]}}',
            "/workflow/steps/0/dependencies/0",
        ),
        (
            '\ufeff{"id": "w", "name": "w", "steps": [{"id": "a", "type": "wait", "for": 1, "dependencies": ["b"]}]}',
            "/steps/0/dependencies/0",
        ),
    ],
    ids=["wrapped YAML", "bare YAML", "wrapped JSON", "bare JSON with a byte order mark"],
)
def test_pointers_lead_into_the_document_as_given(tmp_path: Path, text: str, pointer: str) -> None:
    result = mplp("validate", write(tmp_path, "w", text), "--json")

    assert result.exit_code == 1
    assert [(fault["code"], fault["pointer"]) for fault in said(result)["faults"]] == [("dependency.unknown", pointer)]


@pytest.mark.parametrize("text", ["", "[", "a: [", '{"id": }', "id: w\nid: v", "&a [*a]", "true: 1", "\x00"])
def test_a_broken_document_is_a_fault_and_no_crash(tmp_path: Path, text: str) -> None:
    result = mplp("validate", write(tmp_path, "w.yaml", text), "--json")

    assert result.exit_code == 1
    assert said(result)["valid"] is False
    assert all(set(fault) == {"code", "pointer", "message"} for fault in said(result)["faults"])


def test_coverage_lists_what_was_not_taken(tmp_path: Path) -> None:
    scenario = write(tmp_path, "s.yaml", SCENARIO.replace("name: x", "name: z"))

    result = mplp("test", write(tmp_path, "w.yaml", TWO_STEPS), "--scenario", scenario, "--coverage", "--json")

    assert result.exit_code == 0
    listed = json.dumps(said(result)["coverage"])
    # The branch was not taken and with it its step; nothing was tried again and nothing fell back. What did run is not listed.
    for pointer in ("/steps/2/then", "/steps/1/error-handling/retry-policy", "/steps/1/error-handling/fallback-actions/0"):
        assert f'/workflow{pointer}"' in listed
    assert "/workflow/steps/0" not in listed


def test_jitter_is_what_the_formula_says() -> None:
    policy = {"jitter": 0.5, "initial-interval": "1m", "max-interval": "1h", "max-retries": 3}
    step = {
        "id": "a",
        "type": "module-operation",
        "module": "m",
        "operation": "a",
        "timeout": "1d",
        "error-handling": {"retry-policy": policy},
    }
    scenario = {"id": "run-1", "modules": {"m.a": [{"error": {"code": "unavailable"}}]}}

    outcome = run_trial({"id": "w", "name": "w", "steps": [step]}, scenario).outcome

    wanted = 0
    for attempt in (1, 2, 3):
        first_53_bits = int.from_bytes(hashlib.sha256(f"run-1/a/{attempt}".encode()).digest()[:8], "big") >> 11
        wanted += int(60_000 * 2 ** (attempt - 1) * (1 - 0.5 * first_53_bits / 2**53))
    assert outcome["duration_ms"] == wanted


def test_a_fork_takes_over_what_came_before_its_step() -> None:
    def step(name: str, **more: Any) -> dict[str, Any]:
        return {"id": name, "type": "module-operation", "module": "m", "operation": name, **more}

    definition = {
        "id": "w",
        "name": "w",
        "steps": [
            step("a"),
            step("b", dependencies=["a"], parameters={"a": "${a.result}", "n": "${input.n}"}),
            step("c", dependencies=["b"]),
        ],
    }
    scenario = {
        "input": {"n": 1},
        "modules": {"m.a": [{"result": 1}, {"result": 10}], "m.b": [{"error": {"code": "broken"}}, {"result": 2}]},
        "at": [{"time": "1h", "fork": {"step": "b", "input": {"n": 5}}}],
    }

    outcome = run_trial(definition, scenario).outcome

    assert outcome["status"] == "failed", "what it is forked from stays as it is"
    (fork,) = outcome["executions"].values()
    assert (fork["status"], fork["output"], fork["input"]) == ("completed", {"a": 1, "b": 2, "c": {}}, {"n": 5})
    assert {name: one["attempts"] for name, one in fork["steps"].items()} == {"a": 0, "b": 1, "c": 1}
