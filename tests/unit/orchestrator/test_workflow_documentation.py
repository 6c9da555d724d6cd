"""The concept page is held against the code: its definition is valid, its scenario does what it says, its records are all there."""

from __future__ import annotations

import re
from pathlib import Path

from services.orchestrator.definitions import validate
from services.orchestrator.documents import read_document
from services.orchestrator.evolve import EVOLVERS
from services.orchestrator.schema import definition_schema
from services.orchestrator.store import AnyModule
from services.orchestrator.trial import run_scenario

PATH = Path(__file__).resolve().parents[3] / "docs" / "concepts" / "workflows.md"
PAGE = PATH.read_text()
DEFINITION, TURNS, TRIGGERS, SCENARIO = (read_document(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))


def test_the_example_is_valid_and_the_scenario_holds() -> None:
    assert validate(DEFINITION, AnyModule()) == []
    assert run_scenario(DEFINITION, SCENARIO)["differences"] == []


def test_the_example_of_turns_runs() -> None:
    find = {"id": "find", "type": "module-operation", "module": "stock", "operation": "find"}
    document = {"id": "turns", "name": "turns", "steps": [find, *TURNS]}
    answers = {
        "stock.find": [{"result": {"orders": [{"sku": "a"}, {"sku": "b"}]}}],
        "stock.pack": [{"result": {"id": "p-1"}}, {"result": {"id": "p-2"}}],
        "stock.look": [{"result": {"state": "busy"}}, {"result": {"state": "done"}}],
    }
    steps = run_scenario(document, {"modules": answers})["steps"]
    assert steps["pack[1]"]["parameters"] == {"sku": "b", "number": 1}
    assert steps["send[0]"]["parameters"] == {"parcel": "p-1"}
    assert [turn["look"] for turn in steps["poll"]["result"]] == [{"state": "busy"}, {"state": "done"}]


def test_the_how_to_about_lists_holds() -> None:
    page = (PATH.parents[1] / "how-to" / "work-through-a-list.md").read_text()
    definition, scenario = (read_document(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    assert validate(definition, AnyModule()) == []
    assert run_scenario(definition, scenario)["differences"] == []


def test_every_step_type_is_explained() -> None:
    section = PAGE.partition("## Step types")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE))
    assert explained == set(definition_schema()["$defs"]["stepType"]["enum"])


def test_every_transition_is_listed() -> None:
    section = PAGE.partition("## What is in the log")[2].partition("## Definitions")[0]
    listed: set[str] = set()
    for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", row)
        listed |= {name if not name.startswith(".") else names[0].partition(".")[0] + name for name in names}
    assert listed == {*EVOLVERS, "execution.started", "command.refused"}


def test_the_triggers_of_the_page_are_valid() -> None:
    assert validate({**DEFINITION, **TRIGGERS}, AnyModule()) == []
