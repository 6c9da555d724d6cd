"""The cases of the workflow language: YAML files beside this one, each case a sentence of the contract and its outcome worked out by hand.

A case gives a definition (`steps`, and anything else of the workflow under `workflow`), a scenario (`input`, `modules`, `at`, …) and
what must come out of it: `expect` (a subset of the outcome), `begins` and `ends` (virtual ms at which a step first started and last
ended), `records` (in this order, others may stand between) and `absent`. For brevity `call: m.a` stands for a module operation of that
name. Or it gives a `document` and the `faults` that checking it must find: pairs of code and pointer, no others, in any order; a code
that ends in `*` stands for its family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

Json = Any
HERE = Path(__file__).parent

#: What a case may say beyond its name: anything else is a slip of the pen.
SCENARIO = frozenset({"id", "start", "input", "modules", "workflows", "at"})
DEFINITION = frozenset({"steps", "workflow"})
OUTCOME = frozenset({"expect", "begins", "ends", "records", "absent"})
ENDED = frozenset({f"step.{how}" for how in ("completed", "failed", "timed_out", "skipped", "cancelled")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case as its file gives it."""

    #: The file's name without suffix, and the sentence.
    file: str
    name: str
    fields: Mapping[str, Json]

    @property
    def definition(self) -> Json:
        """The definition in full words."""
        return expand({"id": "w", "name": "w", **self.fields.get("workflow", {}), "steps": self.fields["steps"]})

    @property
    def scenario(self) -> Json:
        """The scenario: what of the case belongs to it."""
        return {key: expand(value) for key, value in self.fields.items() if key in SCENARIO}


def read(file: str) -> list[Case]:
    """The cases of one file, names unique."""
    documents = yaml.safe_load((HERE / f"{file}.yaml").read_text("utf-8"))
    cases = [
        Case(file=file, name=document["case"], fields={key: value for key, value in document.items() if key != "case"})
        for document in documents
    ]
    assert len({case.name for case in cases}) == len(cases), "two cases have one name"
    return cases


def expand(value: Json) -> Json:
    """The short form of module operations written out, at any depth."""
    if isinstance(value, list):
        return [expand(one) for one in value]
    if not isinstance(value, dict):
        return value
    expanded = {key: expand(one) for key, one in value.items() if key != "call"}
    if "call" in value:
        module, operation = value["call"].split(".", 1)
        expanded |= {"type": "module-operation", "module": module, "operation": operation}
    return expanded


def deviations(expected: Json, actual: Json, path: str = "") -> Iterator[str]:
    """What of `expected` is not in `actual`: objects may hold more, all else is equal, and `1` is neither `1.0` nor `true`."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            if key not in actual:
                yield f"{path}/{key}: expected {value!r}, is not there"
            else:
                yield from deviations(value, actual[key], f"{path}/{key}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, value in enumerate(expected):
            yield from deviations(value, actual[index], f"{path}/{index}")
    elif type(expected) is not type(actual) or expected != actual:
        yield f"{path}: expected {expected!r}, is {actual!r}"


def moments(outcome: Json, types: frozenset[str], *, last: bool) -> dict[str, int]:
    """When steps had a record of one of these types: virtual milliseconds since the execution's start, by step."""
    start = datetime.fromisoformat(outcome["transitions"][0]["time"])
    found: dict[str, int] = {}
    for record in outcome["transitions"]:
        step = record["step_id"]
        if step is not None and record["type"] in types and (last or step not in found):
            found[step] = (datetime.fromisoformat(record["time"]) - start) // timedelta(milliseconds=1)
    return found


def labels(outcome: Json) -> list[str]:
    """The records as `type step`, or `type` where they belong to no step."""
    return [" ".join(filter(None, (record["type"], record["step_id"]))) for record in outcome["transitions"]]


def missing_in_order(wanted: list[str], present: list[str]) -> list[str]:
    """The first of `wanted` that does not follow those before it, with all after it."""
    rest = iter(present)
    for index, label in enumerate(wanted):
        if label not in rest:
            return wanted[index:]
    return []
