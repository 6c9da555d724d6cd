"""Validation of definitions: all faults at once, with their codes and pointers; parsing; documents."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.orchestrator.definitions import definition_hash, parse, validate
from services.orchestrator.documents import read_document
from services.orchestrator.graph import draw
from services.orchestrator.references import Reference, ReferenceSyntax, parse_text
from services.orchestrator.store import AnyModule
from streams.errors import InvalidDocument, InvalidInput
from streams.operations import CONTRACT
from tests.unit.orchestrator.conftest import operation, workflow

EXAMPLE = json.loads((Path(__file__).resolve().parents[3] / "examples" / "multi-agent-collaboration.json").read_text())
OPERATIONS = {"work": ("a", "b", "c", "d")}


def faults(document: Any, operations: Any = OPERATIONS) -> set[tuple[str, str]]:
    return {(fault.code, fault.pointer) for fault in validate(document, operations)}


def test_the_example_is_valid_wrapped_and_bare() -> None:
    assert validate(EXAMPLE, CONTRACT) == validate(EXAMPLE["workflow"], CONTRACT) == []
    assert definition_hash(EXAMPLE) == definition_hash(EXAMPLE["workflow"])


def test_all_faults_are_told_at_once_with_pointers_into_the_document_as_given() -> None:
    document = copy.deepcopy(EXAMPLE)
    steps = document["workflow"]["steps"]
    steps[0]["dependencies"] = ["plan-creation", "nix"]
    steps[1]["parameters"]["roles"] = ["${nope.result}", "${trace-execution.result}", "${context-setup", "${context-setup.status}"]
    steps[2] |= {"operation": "bake", "timeout": 0, "colour": "red"}
    steps[3]["steps"][0]["id"] = "plan-creation"
    steps[3]["steps"][1] |= {"module": "kitchen", "attempt-timeout": "5 parsecs"}
    del document["workflow"]["name"]
    assert faults(document, CONTRACT) == {
        ("dependency.unknown", "/workflow/steps/0/dependencies/1"),
        ("dependency.cycle", "/workflow/steps"),
        ("reference.unknown", "/workflow/steps/1/parameters/roles/0"),
        ("reference.unknown", "/workflow/steps/1/parameters/roles/1"),
        ("reference.syntax", "/workflow/steps/1/parameters/roles/2"),
        ("reference.syntax", "/workflow/steps/1/parameters/roles/3"),
        ("operation.unknown", "/workflow/steps/2/operation"),
        ("schema.exclusiveMinimum", "/workflow/steps/2/timeout"),
        ("schema.additionalProperties", "/workflow/steps/2/colour"),
        ("id.duplicate", "/workflow/steps/3/steps/0/id"),
        ("module.unknown", "/workflow/steps/3/steps/1/module"),
        ("schema.format", "/workflow/steps/3/steps/1/attempt-timeout"),
        ("schema.required", "/workflow"),
    }


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"id": "s", "type": "nonsense"}, {("schema.enum", "/steps/0/type")}),
        ({"id": "a b", "type": "transform", "value": "1"}, {("schema.pattern", "/steps/0/id")}),
        ({"type": "transform", "value": "1"}, {("schema.required", "/steps/0")}),
        ({"id": "s", "type": "transform", "value": "1 +"}, {("expression.invalid", "/steps/0/value")}),
        ({"id": "s", "type": "transform", "value": "1", "timeout": "0s"}, {("schema.exclusiveMinimum", "/steps/0/timeout")}),
        ({"id": "s", "type": "wait", "for": "0s", "x-note": 1, "description": "fine"}, set()),
        ({"id": "s", "type": "wait", "for": -1}, {("schema.minimum", "/steps/0/for")}),
        ({"id": "s", "type": "wait", "for": "soon"}, {("schema.format", "/steps/0/for")}),
        ({"id": "s", "type": "wait", "for": "${input.x}"}, set()),
        ({"id": "s", "type": "wait", "until": "2026-01-01T00:00:00"}, {("schema.format", "/steps/0/until")}),
        ({"id": "s", "type": "wait"}, {("schema.required", "/steps/0")}),
        (
            {"id": "s", "type": "parallel", "steps": [], "max-concurrency": 0},
            {("schema.minItems", "/steps/0/steps"), ("schema.minimum", "/steps/0/max-concurrency")},
        ),
        (
            {"id": "s", "type": "conditional", "condition": {"type": "expression", "expression": ")"}},
            {("expression.invalid", "/steps/0/condition/expression"), ("schema.required", "/steps/0")},
        ),
        (
            {
                "id": "s",
                "type": "conditional",
                "condition": {"type": "step-result", "stepId": "gone", "path": "a..b", "operator": "is", "value": 1},
                "then": operation("a"),
            },
            {
                ("reference.unknown", "/steps/0/condition/stepId"),
                ("reference.syntax", "/steps/0/condition/path"),
                ("schema.enum", "/steps/0/condition/operator"),
            },
        ),
        (
            operation("a", error_handling={"retry-policy": {"jitter": 2, "tries": 1}}),
            {
                ("schema.maximum", "/steps/0/error-handling/retry-policy/jitter"),
                ("schema.additionalProperties", "/steps/0/error-handling/retry-policy/tries"),
            },
        ),
        (
            operation("a", error_handling={"fallback-actions": [{"condition": "a b", "action": "use-value"}]}),
            {
                ("expression.invalid", "/steps/0/error-handling/fallback-actions/0/condition"),
                ("schema.required", "/steps/0/error-handling/fallback-actions/0"),
            },
        ),
        (operation("a", parameters={"x": "${execution.started}"}), {("reference.unknown", "/steps/0/parameters/x")}),
        ("text", {("schema.type", "/steps/0")}),
    ],
)
def test_faults_of_a_step(step: Any, expected: set[tuple[str, str]]) -> None:
    assert faults(workflow(step)) == expected


def box(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "box", "type": "parallel", "steps": list(steps), **fields}


def referring(id: str, to: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    return operation(id, *dependencies, parameters={"x": f"${{{to}.result}}"}, **fields)


CHOICE = {"id": "choice", "type": "conditional", "condition": {"type": "expression", "expression": "true"}, "then": operation("a")}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (workflow(operation("a"), operation("b", "a"), referring("c", "a", "b")), set()),
        (workflow(operation("a"), referring("b", "a")), {("reference.uncertain", "/steps/1/parameters/x")}),
        (workflow(referring("a", "a")), {("reference.uncertain", "/steps/0/parameters/x")}),
        (workflow(operation("a"), box(referring("b", "a"), dependencies=["a"])), set()),
        (workflow(box(operation("a"), referring("b", "a"))), {("reference.uncertain", "/steps/0/steps/1/parameters/x")}),
        (workflow(box(operation("a")), referring("b", "a", "box")), set()),
        (workflow(box(operation("a")), referring("b", "box", "box")), set()),
        (workflow(box(operation("a")), operation("c"), referring("b", "a", "c")), {("reference.uncertain", "/steps/2/parameters/x")}),
        (workflow(CHOICE, referring("b", "a", "choice")), {("reference.uncertain", "/steps/1/parameters/x")}),
        (workflow(operation("a", compensation=referring("b", "a"))), set()),
        (workflow(operation("a"), operation("c", "a", compensation=referring("b", "a"))), set()),
        (
            workflow(operation("a"), output={"x": "${a.result}", "y": "${gone.result}", "z": "1 +"}),
            {("reference.unknown", "/output/y"), ("expression.invalid", "/output/z")},
        ),
        (workflow(operation("a", "a")), {("dependency.cycle", "/steps")}),
        (workflow(box(operation("a", "b"), operation("b", "a")), operation("c")), {("dependency.cycle", "/steps/0/steps")}),
        (workflow(box(operation("a")), operation("b", "a")), {("dependency.unknown", "/steps/1/dependencies/0")}),
        (workflow(operation("a"), input_schema={"type": "strange"}), {("schema.anyOf", "/input-schema/type")}),
        (workflow(operation("a"), input_schema={"$ref": "http://example.com/x"}), {("schema.$ref", "/input-schema/$ref")}),
    ],
)
def test_a_step_sees_what_has_certainly_ended(document: Any, expected: set[tuple[str, str]]) -> None:
    assert faults(document) == expected


def test_fields_beside_the_wrapper_are_refused_unless_they_are_notes() -> None:
    assert faults({"workflow": workflow(operation("a")), "x-note": 1, "version": "1"}) == {("schema.additionalProperties", "/version")}


def test_ids_are_letters_and_digits_of_any_script() -> None:
    step = {"id": "計画-१_é", "type": "transform", "value": "1"}
    after = {"id": "Ünd", "type": "emit", "event": {"type": "x", "data": "${計画-१_é.result}"}, "dependencies": ["計画-१_é"]}
    assert faults(workflow(step, after)) == set()


@pytest.mark.parametrize(
    "document", [None, 1, "x", [], {}, {"workflow": None}, {"workflow": []}, {"steps": {}}, {"id": "x", "name": "x", "steps": [None]}]
)
def test_what_is_no_definition_at_all_has_faults_and_nothing_worse(document: Any) -> None:
    assert faults(document)


FIELDS = [
    "id", "type", "steps", "condition", "error-handling", "fallback-actions", "compensation", "dependencies", "then", "output",
    "input-schema", "parameters",
]  # fmt: skip
TEXTS = ["${a.result}", "${", "a", "5m"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(
    JSON, st.integers(0, 3), st.sampled_from(["parallel", "conditional", "wait", "approval", "emit", "transform", "module-operation"]), JSON
)
def test_any_json_is_judged_without_a_crash(value: Any, place: int, kind: str, other: Any) -> None:
    step = {"id": "s", "type": kind, **(value if isinstance(value, dict) else {"steps": value, "event": value})}
    for document in (value, {"id": "w", "name": "w", "steps": [step, other]}, {"workflow": value}):
        found = validate(document, AnyModule())
        if not found:
            parse(document, AnyModule())


def test_deep_nesting_is_a_fault() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert faults(workflow(operation("a", parameters={"x": deep}))) == {("schema.depth", "")}


def test_parse_refuses_with_all_faults() -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse(workflow(operation("a"), operation("a"), operation("z")), OPERATIONS)
    assert caught.value.code == "definition.invalid"
    assert [violation.code for violation in caught.value.violations] == ["id.duplicate", "operation.unknown"]


# --- references and documents -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("${a.result}", ("result",)),
        ("${a.result.x[0][12].y-z}", ("result", "x", 0, 12, "y-z")),
        ('${a["odd \\" key"].x}', ('odd " key', "x")),
        ("${a}", ()),
    ],
)
def test_references_are_read(text: str, path: tuple[str | int, ...]) -> None:
    (piece,) = parse_text(text)
    assert isinstance(piece, Reference)
    assert (piece.root, piece.path, str(piece)) == ("a", path, text)


@pytest.mark.parametrize("text", ["${", "${}", "${a", "${a.}", "${a[x]}", "${a[-1]}", "${a[01]}", "${a b}", "x ${a..b}", '${a["x]}'])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ReferenceSyntax):
        parse_text(text)


@given(st.text(alphabet="ab${}."))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        pieces = parse_text(text)
    except ReferenceSyntax:
        return
    again = "".join(piece.replace("${", "$${") if isinstance(piece, str) else str(piece) for piece in pieces)
    assert parse_text(again) == pieces


def test_documents_are_json_or_yaml() -> None:
    assert read_document('{"a": [1, 2.5, null]}') == read_document("a: [1, 2.5, null]") == {"a": [1, 2.5, None]}
    assert read_document("at: 2026-01-01T00:00:00Z") == {"at": "2026-01-01T00:00:00Z"}
    assert read_document("{a: 1}") == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"a":',
        "a: [",
        "a: .nan",
        "1: x",
        "a: !!python/object:os.system x",
        f"a: {2**70}",
        "\0",
        "a: &x [*x]\n" * 1 + "".join(f"b{n}: *x\n" for n in range(200)),
    ],
)
def test_a_malformed_document_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_document(text)
    assert caught.value.code == "document.malformed"


def test_a_definition_is_drawn() -> None:
    document = workflow(
        operation("a"), box(operation("b"), dependencies=["a"]), CHOICE | {"then": operation("c", compensation=operation("d"))}
    )
    definition = parse(document, OPERATIONS)
    mermaid, dot = draw(definition, "mermaid"), draw(definition, "dot")
    assert mermaid.startswith("flowchart TD\n")
    assert all(f"work.{name}" in mermaid and f"work.{name}" in dot for name in "abcd")
    assert "s0 --> s1" in mermaid
    assert dot.count("{") == dot.count("}") == 2
