"""Every sentence of the rule language, through `mplp rules test`; the outcomes were worked out by hand from the contract alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from services.cli.main import app
from streams.correlation.parse import validate
from tests.contract.rules.cases import KNOWN, Case, deviations, instant, read, standing

RUN = ("counts", "values", "windows", "patterns", "sequences", "absences", "times", "matching", "groups", "chaining", "together")
CHECKED = ("faults",)


def _parameters(files: tuple[str, ...]) -> list[Any]:
    return [pytest.param(case, id=f"{case.file}: {case.name}") for file in files for case in read(file)]


@pytest.mark.parametrize("case", _parameters(RUN))
def test_a_rule_says_what_the_contract_says(case: Case, tmp_path: Path) -> None:
    assert not set(case.fields) - KNOWN
    assert ("says" in case.fields) != ("said" in case.fields), "a case says what must come out, once"

    given = case.documents
    fixed = "said" in case.fields or any("output" in document["correlation"] for document in given)
    for output in [None] if fixed else ["eager", "final"]:
        composites, summary = tried(case, given if output is None else [_with(document, output) for document in given], tmp_path)

        found = list(deviations(case.fields["said"], composites)) if "said" in case.fields else []
        found += deviations(case.fields["says"], standing(composites)) if "says" in case.fields else []
        found += [
            f"{name} is {summary[name]}, not {value}" for name, value in case.fields.get("summary", {}).items() if summary[name] != value
        ]
        told = [f"{each['event_ids']} {each['window_start'][17:]} {each['window_end'][17:]}" for each in composites]
        assert not found, "\n".join([f"output {output or 'as given'}", *found, *told])


def _with(document: Any, output: str) -> Any:
    return {**document, "correlation": {**document["correlation"], "output": output}}


def tried(case: Case, documents: list[Any], folder: Path) -> tuple[list[Any], Any]:
    """The composites on stdout and the summary on stderr."""
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump_all(documents))
    until = ["--until", instant(case.fields["until"])] if "until" in case.fields else []
    done = CliRunner().invoke(app, ["rules", "test", str(rules), "--events", "-", "--json", *until], prog_name="mplp", input=case.lines)
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("case", _parameters(CHECKED))
def test_checking_finds_exactly_these_faults(case: Case) -> None:
    assert set(case.fields) - {"also"} == {"of", "faults"}
    (document,) = case.documents

    found = {(fault.code, fault.pointer) for fault in validate(document)}

    assert found == {(code, pointer) for code, pointer in case.fields["faults"]}
