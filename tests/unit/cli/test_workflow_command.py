"""`mplp workflow` without a server: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli.workflow import app

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "multi-agent-collaboration.json"
STEP = {"id": "s", "type": "module-operation", "module": "bakery", "operation": "bake"}


def mplp(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=input)


def write(path: Path, document: Any) -> str:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_the_example_is_valid() -> None:
    found = mplp("validate", str(EXAMPLE), "--json")
    assert (found.exit_code, json.loads(found.stdout)) == (0, {"valid": True, "faults": []})


def test_faults_end_with_one_and_are_listed(tmp_path: Path) -> None:
    file = write(tmp_path / "w.json", {"id": "w", "name": "w", "steps": [STEP]})
    found = mplp("validate", file, "--json")
    told = json.loads(found.stdout)
    assert (found.exit_code, told["valid"]) == (1, False)
    assert [(fault["code"], fault["pointer"]) for fault in told["faults"]] == [("module.unknown", "/steps/0/module")]
    assert "module.unknown" in mplp("validate", file).stdout


@pytest.mark.parametrize(
    ("modules", "codes"),
    [
        ({"bakery": ["bake"]}, []),
        ({"modules": {"bakery": None}}, []),
        ("bakery: [fry]", ["operation.unknown"]),
    ],
)
def test_more_modules_can_be_named(tmp_path: Path, modules: Any, codes: list[str]) -> None:
    file = write(tmp_path / "w.yaml", {"id": "w", "name": "w", "steps": [STEP]})
    found = mplp("validate", file, "--modules", write(tmp_path / "m.yaml", modules), "--json")
    assert [fault["code"] for fault in json.loads(found.stdout)["faults"]] == codes


@pytest.mark.parametrize(("text", "place"), [('{"id": "w",\n  "name"}', "line 2"), ("id: [w", "line 1")])
def test_a_broken_file_is_a_fault_with_its_line(text: str, place: str) -> None:
    found = mplp("validate", "-", "--json", input=text)
    (fault,) = json.loads(found.stdout)["faults"]
    assert (found.exit_code, fault["code"]) == (1, "document.malformed")
    assert place in fault["message"]


def test_a_file_that_is_not_there_is_refused() -> None:
    found = mplp("graph", "nowhere.json", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["error"]["code"] == "file.unreadable"


def test_a_graph_is_drawn_in_both_languages() -> None:
    assert mplp("graph", str(EXAMPLE)).stdout.startswith("flowchart")
    assert mplp("graph", str(EXAMPLE), "--format", "dot").stdout.startswith('digraph "multi-agent-collaboration"')
    assert mplp("graph", str(EXAMPLE), "--format", "png").exit_code == 2


def test_a_scenario_that_expects_something_else_ends_with_one(tmp_path: Path) -> None:
    file = write(tmp_path / "w.json", {"id": "w", "name": "w", "steps": [STEP]})
    good = mplp("test", file, "--scenario", write(tmp_path / "good.yaml", "expect: {status: completed, duration_ms: 0}"), "--json")
    assert (good.exit_code, json.loads(good.stdout)["differences"]) == (0, [])
    bad = mplp("test", file, "--scenario", write(tmp_path / "bad.yaml", "expect: {steps: {s: {attempts: 2}}}"), "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["differences"] == [{"path": "/steps/s/attempts", "expected": 2, "actual": 1}]
    assert "expected 2, got 1" in mplp("test", file, "--scenario", str(tmp_path / "bad.yaml")).stdout


def test_a_scenario_with_faults_is_refused_with_all_of_them(tmp_path: Path) -> None:
    file = write(tmp_path / "w.json", {"id": "w", "name": "w", "steps": [STEP]})
    found = mplp("test", file, "--scenario", write(tmp_path / "s.yaml", "at: [{time: soon}]\nmoduls: {}"), "--json")
    error = json.loads(found.stdout)["error"]
    assert (found.exit_code, error["code"]) == (1, "scenario.invalid")
    assert {fault["pointer"] for fault in error["faults"]} == {"/at/0/time", "/moduls"}


def test_several_scenarios_are_told_apart_and_covered_together(tmp_path: Path) -> None:
    retry = {"retry-policy": {"initial-interval": "1s"}}
    file = write(tmp_path / "w.json", {"id": "w", "name": "w", "steps": [{**STEP, "error-handling": retry}]})
    good = write(tmp_path / "good.yaml", "expect: {status: completed}")
    again = write(tmp_path / "again.yaml", "modules: {bakery.bake: [{error: {code: unavailable}}, {}]}\nexpect: {duration_ms: 2000}")
    found = mplp("test", file, "--scenario", good, "--scenario", again, "--coverage", "--json")
    told = json.loads(found.stdout)
    assert found.exit_code == 1
    assert [(one["scenario"], one["differences"]) for one in told["scenarios"]] == [
        (good, []),
        (again, [{"path": "/duration_ms", "expected": 2000, "actual": 1000}]),
    ]
    assert told["coverage"]["percent"] == 100.0
    text = mplp("test", file, "--scenario", good, "--scenario", again).stdout
    assert "1 of 2 scenarios passed" in text


def test_too_little_coverage_ends_with_one_only_if_asked(tmp_path: Path) -> None:
    retry = {"retry-policy": {}}
    file = write(tmp_path / "w.json", {"id": "w", "name": "w", "steps": [{**STEP, "error-handling": retry}]})
    good = write(tmp_path / "good.yaml", "expect: {status: completed}")
    found = mplp("test", file, "--scenario", good, "--coverage")
    assert (found.exit_code, "never taken: s: retry" in found.stdout) == (0, True)
    assert mplp("test", file, "--scenario", good, "--fail-under", "50").exit_code == 0
    assert mplp("test", file, "--scenario", good, "--fail-under", "50.1").exit_code == 1


def test_a_faulty_scenario_among_several_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "w.json", {"id": "w", "name": "w", "steps": [STEP]})
    bad = write(tmp_path / "bad.yaml", "oops: 1")
    found = mplp("test", file, "--scenario", write(tmp_path / "good.yaml", "{}"), "--scenario", bad, "--json")
    assert (found.exit_code, "bad.yaml" in json.loads(found.stdout)["error"]["message"]) == (1, True)
