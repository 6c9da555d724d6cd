"""Workflow definitions from outside: validation with all faults at once, parsing, and the hash that pins the content.

A document is JSON (or YAML read into the same values), wrapped in `{"workflow": …}` or bare.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from services.orchestrator import checks, tree
from services.orchestrator.definition import (
    OPERATION_TIMEOUT_MS,
    PARALLEL_CHILD_TIMEOUT_MS,
    Action,
    Approval,
    AwaitSignal,
    ChildWorkflow,
    Condition,
    Conditional,
    CustomCondition,
    Definition,
    Emit,
    ExpressionCondition,
    Fallback,
    Foreach,
    ListRole,
    Loop,
    ModuleOperation,
    Parallel,
    Place,
    RetryPolicy,
    Step,
    StepList,
    StepResultCondition,
    Transform,
    Wait,
    lists_of,
)  # fmt: skip
from services.orchestrator.priorities import priority_of
from services.orchestrator.schema import shape_faults
from services.orchestrator.sight import Sight
from streams import limits
from streams.definitions import definition_hash, unwrap
from streams.durations import parse_duration_ms
from streams.errors import Defect, InvalidDocument, Violation
from streams.matching.expressions import Expression, compiled
from streams.records import Json
from streams.triggers import read_triggers

__all__ = ["definition_hash", "faulty", "parse", "parse_valid", "unwrap", "validate"]

#: Words among the conditions of a fallback; every other condition is an error code or CEL.
CONDITION_WORDS = frozenset({"timeout", "error"})
_CHOICES = ("approve", "reject")
_ESCALATION_CHOICES = ("retry", "skip", "use-value", "fail")


def validate(document: Json, operations: Mapping[str, Collection[str]]) -> list[Violation]:
    """All faults of a definition; empty if it may be run. `operations` are those that the modules offer, by module.

    Pointers lead into the document as given, with or without the wrapper.
    """
    if _depth_exceeds(document, limits.PAYLOAD_DEPTH_MAX):
        return [Violation(code="schema.depth", pointer="", message=f"More than {limits.PAYLOAD_DEPTH_MAX} levels are nested here.")]
    workflow, path = unwrap(document)
    prefix = "".join(f"/{part}" for part in path)
    faults = [Violation(code=fault.code, pointer=prefix + fault.pointer, message=fault.message) for fault in shape_faults(workflow)]
    if path:
        faults += [
            Violation(code="schema.additionalProperties", pointer=f"/{name}", message=f"There is no field {name!r} beside `workflow`.")
            for name in document
            if name not in ("workflow", "description") and not str(name).startswith("x-")
        ]
    if isinstance(workflow, dict):
        faults += checks.semantic_faults(workflow, path, operations)
    return list(dict.fromkeys(faults))


def _depth_exceeds(value: Json, most: int) -> bool:
    """Whether objects and lists are nested deeper than `most`; without recursion, which such a document would exhaust."""
    level = [value]
    for _ in range(most + 1):
        holders = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for holder in holders for item in holder]
        if not level:
            return False
    return True


def parse(document: Json, operations: Mapping[str, Collection[str]]) -> Definition:
    """The definition. Raises `InvalidDocument` (`definition.invalid`) with all faults."""
    faults = validate(document, operations)
    if faults:
        raise faulty(faults)
    return parse_valid(document)


def faulty(faults: Sequence[Violation]) -> InvalidDocument:
    """The refusal of a definition with these faults."""
    many = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
    return InvalidDocument("definition.invalid", f"The workflow definition has {many}.", faults)


def parse_valid(document: Json) -> Definition:
    """The definition of a document that `validate` has found no fault in (when it was pinned)."""
    workflow, _ = unwrap(document)
    return _Parser(workflow).definition(definition_hash(document))


class _Parser:
    """Builds the frozen definition; the workflow's error handling is inherited by module operations on the way."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        self.workflow = workflow
        self.places: dict[str, Place] = {}
        self.sight: Sight | None = None  #: made for the first condition that needs it

    def definition(self, digest: str) -> Definition:
        workflow = self.workflow
        top = self.steps(workflow["steps"], ListRole.WORKFLOW, owner=None, limit=workflow.get("max-concurrency"), depth=0)
        schema = workflow.get("input-schema")
        return Definition(
            id=workflow["id"],
            version=workflow.get("version", ""),
            name=workflow["name"],
            hash=digest,
            document=workflow,
            steps=top,
            places={step.id: self.places[step.id] for step in _in_order(top)},
            timeout_ms=_duration(workflow, "timeout"),
            cancel_on_failure=workflow.get("on-failure") == "cancel",
            output=_output(workflow["output"]) if "output" in workflow else None,
            input_schema=None if schema is None else checks.input_validator(schema),
            triggers=read_triggers(workflow),
            resources=workflow.get("resources"),
        )

    def steps(self, values: list[Any], role: ListRole, *, owner: str | None, limit: int | None, depth: int, name: str = "") -> StepList:
        steps = tuple(self.step(value, role, depth, name) for value in values)
        found = StepList(steps=steps, role=role, owner=owner, limit=None if limit is None else int(limit), depth=depth)
        for index, step in enumerate(steps):
            self.places[step.id] = Place(step=step, steps=found, index=index)
        return found

    def single(self, value: Any, role: ListRole, *, owner: str, depth: int, name: str = "") -> StepList:
        return self.steps([value], role, owner=owner, limit=None, depth=depth, name=name)

    def step(self, value: Mapping[str, Any], role: ListRole, depth: int, name: str) -> Step:
        step_id = value.get("id", name)
        inherited = self.workflow if value["type"] == "module-operation" else {}
        timeout_ms = _duration(value, "timeout")
        if timeout_ms is None and value["type"] == "module-operation":
            timeout_ms = PARALLEL_CHILD_TIMEOUT_MS if role is ListRole.PARALLEL else OPERATION_TIMEOUT_MS
        compensation = value.get("compensation")
        return Step(
            id=step_id,
            type=value["type"],
            action=self.action(value, step_id, depth),
            dependencies=tuple(dict.fromkeys(value.get("dependencies", ()))),
            timeout_ms=timeout_ms,
            attempt_timeout_ms=_duration(value, "attempt-timeout"),
            retry=_retry_policy(_part(value, inherited, "retry-policy")),
            fallbacks=self.fallbacks(value, inherited, step_id, depth),
            compensation=None
            if compensation is None
            else self.single(compensation, ListRole.COMPENSATION, owner=step_id, depth=depth, name=tree.compensation_name(step_id)),
            priority=priority_of(value.get("priority", self.workflow.get("priority", 0))),
            resources=value.get("resources"),
        )

    def action(self, value: Mapping[str, Any], step_id: str, depth: int) -> Action:
        match value["type"]:
            case "module-operation":
                return ModuleOperation(module=value["module"], operation=value["operation"], parameters=value.get("parameters", {}))
            case "parallel":
                children = self.steps(value["steps"], ListRole.PARALLEL, owner=step_id, limit=value.get("max-concurrency"), depth=depth)
                return Parallel(steps=children, fail_fast=value.get("fail-fast", False), require_all=value.get("require") == "all")
            case "conditional":
                return self.conditional(value, step_id, depth)
            case "foreach":
                turn = self.steps(value["steps"], ListRole.TURN, owner=step_id, limit=None, depth=depth + 1)
                limit = value.get("max-concurrency")
                variable = value.get("as", tree.ITEM)
                return Foreach(items=value["items"], variable=variable, steps=turn, limit=None if limit is None else int(limit))
            case "loop":
                turn = self.steps(value["steps"], ListRole.TURN, owner=step_id, limit=value.get("max-concurrency"), depth=depth + 1)
                return Loop(condition=compiled(value["while"]), steps=turn, max_iterations=int(value["max-iterations"]))
            case "wait":
                duration = value.get("for")
                is_reference = isinstance(duration, str) and "${" in duration
                return Wait(
                    duration=duration if duration is None or is_reference else parse_duration_ms(duration), until=value.get("until")
                )
            case "approval":
                return Approval(
                    title=value.get("title", ""),
                    choices=tuple(value.get("choices", _CHOICES)),
                    assignees=value.get("assignees"),
                    deadline_ms=_duration(value, "deadline"),
                )
            case "signal":
                return AwaitSignal(name=value["name"])
            case "workflow":
                return _child(value)
            case "emit":
                return Emit(event=value["event"])
            case "transform":
                return Transform(value=compiled(value["value"]))
            case other:
                raise Defect("definition.type", f"A step of type {other!r} has passed the checks.")

    def conditional(self, value: Mapping[str, Any], step_id: str, depth: int) -> Conditional:
        branches = []
        for names, role in ((tree.THEN, ListRole.THEN), (tree.ELSE, ListRole.ELSE)):
            given = next((value[name] for name in names if name in value), None)
            branches.append(None if given is None else self.single(given, role, owner=step_id, depth=depth))
        then, otherwise = branches
        assert then is not None, "the schema requires it"
        condition = value["condition"]
        wanted = self.custom(condition, step_id) if condition["type"] == "custom" else _condition(condition)
        return Conditional(condition=wanted, then=then, otherwise=otherwise)

    def custom(self, value: Mapping[str, Any], step_id: str) -> CustomCondition:
        if self.sight is None:
            self.sight = Sight([tree.read_tree(dict(self.workflow), ())])
        module, _, operation = value["handler"].partition(".")
        known = self.sight.known.get(step_id)  # not one of the workflow's own fallbacks, which are copied for each step
        sees = () if known is None else tuple(name for name in self.sight.known if name in self.sight.visible(known).steps)
        return CustomCondition(module=module, operation=operation, sees=sees)

    def fallbacks(self, value: Mapping[str, Any], inherited: Mapping[str, Any], step_id: str, depth: int) -> tuple[Fallback, ...]:
        own = "fallback-actions" in value.get("error-handling", {})
        given = _part(value, inherited, "fallback-actions") or ()
        found = []
        for index, fallback in enumerate(given):
            steps = None
            if fallback["action"] == "run-step":
                name = tree.fallback_name(step_id, index)
                inner = fallback["step"] if own else _copy(fallback["step"], step_id, index)
                steps = self.single(inner, ListRole.FALLBACK, owner=step_id, depth=depth, name=name)
            condition = fallback["condition"]
            found.append(
                Fallback(
                    index=index,
                    condition=condition,
                    expression=None if checks.is_error_code(condition) else compiled(condition),
                    action=fallback["action"],
                    value=fallback.get("value"),
                    steps=steps,
                    title=fallback.get("title", ""),
                    assignees=fallback.get("assignees"),
                    choices=tuple(fallback.get("choices", _ESCALATION_CHOICES)),
                    deadline_ms=_duration(fallback, "deadline"),
                )
            )
        return tuple(found)


def _copy(step: Mapping[str, Any], owner: str, index: int) -> dict[str, Any]:
    """The step of the workflow's own fallback as `owner` has it: under a name of its own, and it does not fall back to itself."""
    handling = {"fallback-actions": [], **step.get("error-handling", {})}
    return {**step, "id": f"{owner}~{step.get('id', f'fallback-{index}')}", "error-handling": handling}


def _child(value: Mapping[str, Any]) -> ChildWorkflow:
    """The child of a `workflow` step: inline, or named."""
    given, input = value["workflow"], value.get("input", {})
    if "steps" not in given:
        return ChildWorkflow(definition=None, workflow_id=given["id"], version=given.get("version"), input=input)
    inline = parse_valid(given)
    return ChildWorkflow(definition=inline, workflow_id=inline.id, version=inline.version, input=input)


def _in_order(steps: StepList) -> Iterator[Step]:
    """All steps at any depth, a container before what is in it."""
    for step in steps.steps:
        yield step
        for inner in lists_of(step):
            yield from _in_order(inner)


def _part(value: Mapping[str, Any], inherited: Mapping[str, Any], name: str) -> Any:
    """A part of the error handling: the step's own, else what it inherits."""
    own = value.get("error-handling", {})
    return own[name] if name in own else inherited.get("error-handling", {}).get(name)


def _duration(value: Mapping[str, Any], name: str) -> int | None:
    given = value.get(name)
    return None if given is None else parse_duration_ms(given)


def _condition(value: Mapping[str, Any]) -> Condition:
    if value["type"] == "expression":
        return ExpressionCondition(expression=compiled(value["expression"]))
    reference = checks.result_reference(value["stepId"], value.get("path", ""))
    return StepResultCondition(reference=reference, operator=value["operator"], value=value.get("value"))


def _output(value: Mapping[str, Json]) -> Mapping[str, Json | Expression]:
    return {name: compiled(item) if isinstance(item, str) and "${" not in item else item for name, item in value.items()}


def _retry_policy(value: Mapping[str, Any] | None) -> RetryPolicy | None:
    if value is None:
        return None
    given: dict[str, Any] = {
        "max_retries": int(value["max-retries"]) if "max-retries" in value else None,
        "strategy": value.get("backoff-strategy"),
        "initial_interval_ms": _duration(value, "initial-interval"),
        "max_interval_ms": _duration(value, "max-interval"),
        "multiplier": value.get("multiplier"),
        "jitter": value.get("jitter"),
        "retryable": frozenset(value.get("retryable", ())),
        "non_retryable": frozenset(value.get("non-retryable", ())),
    }
    return RetryPolicy(**{name: item for name, item in given.items() if item is not None})
