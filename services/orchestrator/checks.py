"""What JSON Schema cannot say about a definition: ids, dependencies, references, operations, expressions, durations.

Every check walks the raw document, so that it works beside faults of shape, and yields all that it finds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, get_args

import jsonschema_rs

from services.orchestrator.definition import ListRole
from services.orchestrator.names import FALLBACK_VARIABLES, expression_faults
from services.orchestrator.priorities import WORDS
from services.orchestrator.references import Reference, ReferenceSyntax, parse_text
from services.orchestrator.schema import pointer_of, schema_faults
from services.orchestrator.sight import NOWHERE, Sight, Visible
from services.orchestrator.tree import (
    CONTAINERS,
    Path,
    RawList,
    RawStep,
    fallback_name,
    fallbacks_of,
    lists_in,
    read_single,
    read_tree,
    walk,
)
from services.orchestrator.triggering import trigger_faults
from streams.durations import parse_duration_ms
from streams.errors import InvalidInput, Violation
from streams.records import Json, Severity

_ERROR_CODE = re.compile(r"[A-Za-z0-9._-]+")
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")


def semantic_faults(workflow: dict[str, Any], path: Path, operations: Mapping[str, Collection[str]]) -> Iterator[Violation]:
    """All faults of a workflow beyond its shape; `path` leads to it in the document as given."""
    top = read_tree(workflow, path)
    shared = list(_shared_fallbacks(workflow, path))
    everywhere = [top, *shared]
    yield from _ids(everywhere)
    for steps in everywhere:
        for inner in lists_in(steps):
            yield from _dependencies(inner)
    seen = Sight(everywhere)
    for step in (step for steps in everywhere for step in walk(steps)):
        yield from _operation(step, operations)
        yield from _texts(step, seen)
        yield from _handling(step.value, step.path, seen, seen.visible(step))
        yield from _durations(step.value, step.path, ("timeout", "attempt-timeout", "deadline"))
        yield from _priority(step.value, step.path)
        child = step.value.get("workflow") if step.type == "workflow" else None
        if isinstance(child, dict) and "steps" in child:
            # Ids and references of a workflow inside another are its own.
            yield from semantic_faults(child, (*step.path, "workflow"), operations)
    yield from _workflow_level(workflow, path, seen)


def _shared_fallbacks(workflow: dict[str, Any], path: Path) -> Iterator[RawList]:
    """Steps of the workflow's own fallbacks: each module operation gets a copy."""
    for place, fallback in fallbacks_of(workflow):
        if "step" in fallback:
            inner = (*path, "error-handling", "fallback-actions", place, "step")
            yield read_single(fallback["step"], inner, None, ListRole.FALLBACK, fallback_name("", place))


def _workflow_level(workflow: dict[str, Any], path: Path, seen: Sight) -> Iterator[Violation]:
    yield from _durations(workflow, path, ("timeout",))
    yield from _priority(workflow, path)
    yield from trigger_faults(workflow, path)
    yield from _handling(workflow, path, seen, NOWHERE)
    for steps in seen.lists:
        for step in steps.steps if steps.role is ListRole.FALLBACK else ():
            if step.type in CONTAINERS:
                yield Violation(
                    code="schema.enum", pointer=step.at("type"), message="The workflow's own fallbacks run steps without steps inside them."
                )
    if "input-schema" in workflow:
        yield from _input_schema(workflow["input-schema"], (*path, "input-schema"))
    output = workflow.get("output")
    if isinstance(output, dict):
        for name, value in output.items():
            if isinstance(value, str):
                where = pointer_of((*path, "output", name))
                yield from seen.references(value, where, None) if "${" in value else expression_faults(value, where, seen, None)


def _ids(lists: Iterable[RawList]) -> Iterator[Violation]:
    met: set[str] = set()
    for step in (step for steps in lists for step in walk(steps)):
        if not isinstance(step.value.get("id"), str):
            continue
        if step.id in met:
            yield Violation(code="id.duplicate", pointer=step.at("id"), message=f"Another step has the id {step.id!r} already.")
        met.add(step.id)


def _dependencies(steps: RawList) -> Iterator[Violation]:
    known = steps.by_id()
    graph: dict[str, set[str]] = {}
    for step in steps.steps:
        for place, name in step.dependencies():
            if name in known:
                graph.setdefault(step.id, set()).add(name)
            else:
                yield Violation(
                    code="dependency.unknown",
                    pointer=step.at("dependencies", place),
                    message=f"There is no step {name!r} in the same list.",
                )
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        import networkx  # takes its time to load, and a cycle is rare

        cyclic = networkx.DiGraph([(step, name) for step, names in graph.items() for name in names])
        for group in networkx.strongly_connected_components(cyclic):
            first = next(iter(group))
            if len(group) > 1 or cyclic.has_edge(first, first):
                names = ", ".join(step.id for step in steps.steps if step.id in group)
                yield Violation(
                    code="dependency.cycle", pointer=pointer_of(steps.path), message=f"These steps wait for each other: {names}."
                )


def _operation(step: RawStep, operations: Mapping[str, Collection[str]]) -> Iterator[Violation]:
    if step.type == "module-operation":
        yield from _offered(step.value.get("module"), step.value.get("operation"), step.at("module"), step.at("operation"), operations)
    condition = step.value.get("condition")
    if step.type == "conditional" and isinstance(condition, dict) and condition.get("type") == "custom":
        handler = condition.get("handler")
        if isinstance(handler, str) and handler.count(".") == 1:
            where = step.at("condition", "handler")
            module, _, operation = handler.partition(".")
            yield from _offered(module, operation, where, where, operations)


def _offered(
    module: Json, operation: Json, at_module: str, at_operation: str, operations: Mapping[str, Collection[str]]
) -> Iterator[Violation]:
    """Whether a module and its operation exist."""
    if not isinstance(module, str) or not module:
        return
    if module not in operations:
        known = ", ".join(sorted(operations))
        yield Violation(code="module.unknown", pointer=at_module, message=f"There is no module {module!r}. Known: {known}.")
    elif isinstance(operation, str) and operation and operation not in operations[module]:
        known = ", ".join(sorted(operations[module]))
        yield Violation(
            code="operation.unknown", pointer=at_operation, message=f"{module} has no operation {operation!r}. It has: {known}."
        )


def _priority(value: dict[str, Any], path: Path) -> Iterator[Violation]:
    given = value.get("priority")
    if isinstance(given, str) and given not in WORDS:
        names = ", ".join(WORDS)
        yield Violation(
            code="schema.enum",
            pointer=pointer_of((*path, "priority")),
            message=f"{given[:60]!r} is no priority. Write a number or: {names}.",
        )


def _texts(step: RawStep, seen: Sight) -> Iterator[Violation]:
    """References and expressions in the fields of a step that may hold them."""
    value, visible = step.value, seen.visible(step)
    for key in _REFERRING.get(step.type, ()):
        if key in value:
            yield from seen.references_below(value[key], (*step.path, key), visible)
    match step.type:
        case "transform" if isinstance(value.get("value"), str):
            yield from expression_faults(value["value"], step.at("value"), seen, visible)
        case "wait":
            yield from _wait(step)
        case "foreach" if isinstance(value.get("items"), str) and not _is_reference(value["items"]):
            yield Violation(code="schema.format", pointer=step.at("items"), message="This is neither a list nor one reference to a list.")
        case "loop" if isinstance(value.get("while"), str):
            yield from expression_faults(value["while"], step.at("while"), seen, seen.visible_before_turn(step))
        case "conditional" if isinstance(value.get("condition"), dict):
            yield from _condition(step, value["condition"], seen, visible)
        case "emit" if isinstance(value.get("event"), dict):
            yield from _severity(step, value["event"].get("severity"))


#: Fields whose texts are resolved when a step starts.
_REFERRING = {
    "module-operation": ("parameters",),
    "foreach": ("items",),
    "wait": ("for", "until"),
    "approval": ("title", "assignees"),
    "signal": ("name",),
    "workflow": ("input",),
    "emit": ("event",),
}


def _condition(step: RawStep, condition: dict[str, Any], seen: Sight, visible: Visible) -> Iterator[Violation]:
    expression, target, path = condition.get("expression"), condition.get("stepId"), condition.get("path")
    if condition.get("type") == "expression" and isinstance(expression, str):
        yield from expression_faults(expression, step.at("condition", "expression"), seen, visible)
    if condition.get("type") == "step-result" and isinstance(target, str):
        yield from seen.step(target, step.at("condition", "stepId"), visible.steps)
        if isinstance(path, str):
            try:
                parse_text(result_reference("x", path))
            except ReferenceSyntax as error:
                yield Violation(code="reference.syntax", pointer=step.at("condition", "path"), message=str(error))


def result_reference(step_id: str, path: str) -> str:
    """The reference to the part of a step's result that a condition's `path` names."""
    joint = "" if not path or path.startswith("[") else "."
    return "${" + f"{step_id}.result{joint}{path}" + "}"


def _wait(step: RawStep) -> Iterator[Violation]:
    duration, until = step.value.get("for"), step.value.get("until")
    if duration is not None and not _is_reference(duration):
        yield from _durations(step.value, step.path, ("for",), least=0)
    if isinstance(until, str) and not _is_reference(until) and parse_instant(until) is None:
        yield Violation(
            code="schema.format", pointer=step.at("until"), message="This is not a time with offset (RFC 3339), nor one reference."
        )


def _severity(step: RawStep, severity: Json) -> Iterator[Violation]:
    """A severity that is given as it is; one made of references is looked at when the step starts."""
    if isinstance(severity, str) and "${" not in severity and severity not in get_args(Severity):
        names = ", ".join(get_args(Severity))
        yield Violation(
            code="schema.enum", pointer=step.at("event", "severity"), message=f"{severity!r} is no severity. There are: {names}."
        )


def _is_reference(value: Json) -> bool:
    """Whether a text is one reference (or meant to be: its faults are reported as such)."""
    if not isinstance(value, str) or "${" not in value:
        return False
    try:
        pieces = parse_text(value)
    except ReferenceSyntax:
        return True
    return len(pieces) == 1 and isinstance(pieces[0], Reference)


def parse_instant(text: str) -> datetime | None:
    """An RFC 3339 time with offset, in UTC; None if it is not one, or if UTC has it before the year 1 or after 9999."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _durations(value: dict[str, Any], path: Path, keys: Iterable[str], *, least: int = 1) -> Iterator[Violation]:
    """Durations given as texts; numbers are a matter of the schema."""
    for key in keys:
        given = value.get(key)
        if not isinstance(given, str):
            continue
        try:
            milliseconds = parse_duration_ms(given)
        except InvalidInput as error:
            yield Violation(code="schema.format", pointer=pointer_of((*path, key)), message=error.message)
        else:
            if milliseconds < least:
                yield Violation(
                    code="schema.exclusiveMinimum", pointer=pointer_of((*path, key)), message="The duration must be more than 0."
                )


def _handling(value: dict[str, Any], path: Path, seen: Sight, visible: Visible) -> Iterator[Violation]:
    """The error handling of a workflow or step."""
    handling = value.get("error-handling")
    policy = handling.get("retry-policy") if isinstance(handling, dict) else None
    if isinstance(policy, dict):
        yield from _durations(policy, (*path, "error-handling", "retry-policy"), ("initial-interval", "max-interval"), least=0)
    for place, fallback in fallbacks_of(value):
        where = (*path, "error-handling", "fallback-actions", place)
        condition = fallback.get("condition")
        if isinstance(condition, str) and condition and not _ERROR_CODE.fullmatch(condition):
            yield from expression_faults(condition, pointer_of((*where, "condition")), seen, visible, FALLBACK_VARIABLES)
        for key in ("value", "title", "assignees"):
            if key in fallback:
                yield from seen.references_below(fallback[key], (*where, key), visible)
        yield from _durations(fallback, where, ("deadline",))


def is_error_code(condition: str) -> bool:
    """Whether a fallback's condition is an error code (or a word) and not CEL."""
    return _ERROR_CODE.fullmatch(condition) is not None


def input_validator(schema: Json) -> Any:
    """The validator of an `input-schema`. References to other documents are refused: nothing is fetched.

    Raises `ValueError` with a sentence: a reference that cannot be resolved.
    """

    def refuse(uri: str) -> Json:
        raise ValueError(f"{uri} is another document, which is not fetched.")

    return jsonschema_rs.Draft202012Validator(schema, retriever=refuse)


def _input_schema(schema: Json, path: Path) -> Iterator[Violation]:
    if not isinstance(schema, (dict, bool)):
        return
    faults = [
        Violation(code=fault.code, pointer=pointer_of(path) + fault.pointer, message=fault.message)
        for fault in schema_faults(jsonschema_rs.Draft202012Validator(_META, validate_formats=True), schema, code="schema")
    ]
    yield from faults
    if not faults:
        try:
            input_validator(schema)
        except ValueError as error:
            message = str(error).splitlines()[0]
            culprit = next((where for where, target in _schema_references(schema, path) if target.removeprefix("#") in message), path)
            yield Violation(code="schema.$ref", pointer=pointer_of(culprit), message=message)


def _schema_references(schema: Json, path: Path) -> Iterator[tuple[Path, str]]:
    """Every `$ref` of a JSON Schema that names something, with where it stands."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str) and value.removeprefix("#"):
                yield (*path, key), value
            else:
                yield from _schema_references(value, (*path, key))
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from _schema_references(value, (*path, index))


_META = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
