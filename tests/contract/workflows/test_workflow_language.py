"""Every sentence of the workflow language: definitions are checked or run on a virtual clock; the outcomes were worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from services.processes.offline import run_trial, validate
from tests.contract.workflows.cases import (
    DEFINITION,
    ENDED,
    OUTCOME,
    SCENARIO,
    Case,
    deviations,
    expand,
    labels,
    missing_in_order,
    moments,
    read,
)

RUN = ("references", "running", "limits", "errors", "compensation", "commands", "steps", "moments", "together")
CHECKED = ("faults",)

#: What the modules of the checked definitions offer.
OPERATIONS = {"m": ("a", "b", "c"), "plan": ("create-plan",)}


def _parameters(files: tuple[str, ...]) -> list[Any]:
    return [pytest.param(case, id=f"{case.file}: {case.name}") for file in files for case in read(file)]


@pytest.mark.parametrize("case", _parameters(RUN))
def test_a_definition_runs_as_the_contract_says(case: Case) -> None:
    assert not set(case.fields) - SCENARIO - DEFINITION - OUTCOME
    assert set(case.fields) & OUTCOME, "a case without an outcome cannot fail"

    outcome = run_trial(case.definition, case.scenario).outcome

    found = list(deviations(case.fields.get("expect", {}), outcome))
    found += [
        f"begins{line}" for line in deviations(case.fields.get("begins", {}), moments(outcome, frozenset({"step.started"}), last=False))
    ]
    found += [f"ends{line}" for line in deviations(case.fields.get("ends", {}), moments(outcome, ENDED, last=True))]
    present = labels(outcome)
    found += [f"not in order: {label}" for label in missing_in_order(case.fields.get("records", []), present)]
    found += [f"not wanted: {label}" for label in case.fields.get("absent", []) if label in present]
    assert not found, "\n".join([*found, *present])


@pytest.mark.parametrize("case", _parameters(CHECKED))
def test_checking_finds_exactly_these_faults(case: Case) -> None:
    assert set(case.fields) == {"document", "faults"}

    found = {(fault.code, fault.pointer) for fault in validate(expand(case.fields["document"]), OPERATIONS)}

    wanted = {(code, pointer) for code, pointer in case.fields["faults"]}
    families = {(code.removesuffix("*"), pointer) for code, pointer in wanted if code.endswith("*")}
    in_family = {(code, pointer) for code, pointer in found if any(code.startswith(family) and pointer == at for family, at in families)}
    assert {pointer for _, pointer in in_family} == {pointer for _, pointer in families}, found
    assert found - in_family == {pair for pair in wanted if not pair[0].endswith("*")}
