"""What a step sees: the values behind its references, and the variables of its CEL expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from services.orchestrator.definition import Condition, Definition, ExpressionCondition, Foreach, ListRole, Loop, Operator, StepList
from services.orchestrator.references import Reference, ReferenceMissing, parse_text, resolve, walk
from services.orchestrator.results import Outcome, gather
from services.orchestrator.state import ENDED, Execution
from streams.equality import equal
from streams.matching.expressions import Expression, ExpressionFailed
from streams.records import Json, iso

_STEP_READ = re.compile(r"\bsteps\s*(?:\[\s*(?:\"([^\"]*)\"|'([^']*)')\s*\]|\.\s*([A-Za-z_][A-Za-z0-9_]*))")
_STEPS = re.compile(r"\bsteps\b")


def suffix_at(suffix: str, depth: int) -> str:
    """The first `depth` turn numbers of a suffix: `[0][3]`, 1 → `[0]`."""
    at = 0
    for _ in range(depth):
        at = suffix.index("]", at) + 1
    return suffix[:at]


def turn_number(suffix: str, depth: int) -> int:
    """The number of the turn at a depth (from 1): `[0][3]`, 2 → 3."""
    return int(suffix_at(suffix, depth).rsplit("[", 1)[1][:-1])


@dataclass(frozen=True, slots=True)
class Scope:
    """The view of an execution from a step of the list `within`, in the turns that `suffix` names."""

    definition: Definition
    state: Execution
    suffix: str = ""
    within: StepList | None = None  #: None: the workflow as a whole
    iteration: int | None = None  #: of the turn that a `while` decides about; `suffix` is then that of the turn before

    def instance(self, step_id: str) -> str | None:
        """The instance of a step that is meant from here; None: it lies in turns that we are not in."""
        depth = self.definition.places[step_id].steps.depth
        return None if depth > self.suffix.count("[") else step_id + suffix_at(self.suffix, depth)

    def names(self) -> dict[str, Json]:
        """What the turns around give names to: an item and its `index`, an `iteration`; inner ones hide outer ones."""
        found: dict[str, Json] = {} if self.iteration is None else {"iteration": self.iteration}
        steps = self.within
        while steps is not None and steps.owner is not None:
            place = self.definition.places[steps.owner]
            if steps.role is ListRole.TURN:
                number = turn_number(self.suffix, steps.depth)
                match place.step.action:
                    case Foreach(variable=variable):
                        turns = self.state.seen(steps.owner + suffix_at(self.suffix, steps.depth - 1)).turns
                        found.setdefault("index", number)
                        if turns is not None and turns.items is not None and variable not in found:
                            found[variable] = turns.items[number]
                    case Loop():
                        found.setdefault("iteration", number)
                    case _:
                        raise AssertionError("only a foreach or a loop has turns")
            steps = place.steps
        return found

    def outcome(self, instance: str) -> Outcome:
        """Status, result and error of a step (instance)."""
        step = self.state.seen(instance)
        result = step.result if step.gathered is None else gather(step.gathered, self.outcome)
        return Outcome(status=step.status, result=result, error=None if step.error is None else step.error.to_json())

    def resolve(self, value: Json) -> Json:
        """`value` with its references replaced. Raises `ReferenceMissing`."""
        return resolve(value, self.lookup)

    def lookup(self, reference: Reference) -> Json:
        """The value of one reference. Raises `ReferenceMissing`."""
        if self.suffix and (found := self.names()) and reference.root in found:
            return walk(found[reference.root], reference.path, reference)
        match reference.root:
            case "input":
                return walk(self.state.input, reference.path, reference)
            case "execution":
                return walk({"id": self.state.id}, reference.path, reference)
            case "event" if not ("event" in self.definition.places and reference.path[:1] == ("result",)):
                return walk(self.state.event, reference.path, reference)
            case step_id:
                return self._result(step_id, reference)

    def _result(self, step_id: str, reference: Reference) -> Json:
        instance = self.instance(step_id) if step_id in self.definition.places else None
        if instance is None or reference.path[:1] != ("result",):
            raise ReferenceMissing(f"{reference} leads nowhere.")
        outcome = self.outcome(instance)
        if outcome.status not in ("completed", "skipped"):
            raise ReferenceMissing(f"{reference} leads nowhere: the step {instance} is {outcome.status} and has no result.")
        return walk(outcome.result, reference.path[1:], reference)

    def variables(self, expression: Expression) -> dict[str, Any]:
        """The values of the names that a CEL expression may read."""
        values: dict[str, Any] = {"input": self.state.input, "event": self.state.event}
        if self.suffix or self.iteration is not None:
            values |= self.names()
        if "steps" in expression.variables:
            values["steps"] = self._steps(expression.text)
        return values

    def _steps(self, text: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for step_id in self._steps_read(text):
            if step_id in self.definition.places and (instance := self._latest(step_id)) is not None:
                outcome = self.outcome(instance)
                ended = outcome.status in ("completed", "skipped")
                values[step_id] = {"status": outcome.status, **({"result": outcome.result} if ended else {})}
        return values

    def _latest(self, step_id: str) -> str | None:
        """As `instance`; of a step in a loop's turn that has not ended in this turn, that of the turn before."""
        instance = self.instance(step_id)
        steps: StepList | None = self.definition.places[step_id].steps
        if instance is None or not self.suffix or self.state.seen(instance).status in ENDED:
            return instance
        while steps is not None and steps.owner is not None and steps.role is not ListRole.TURN:
            steps = self.definition.places[steps.owner].steps
        if steps is None or steps.owner is None or not isinstance(self.definition.places[steps.owner].step.action, Loop):
            return instance
        number = turn_number(self.suffix, steps.depth)
        return f"{step_id}{suffix_at(self.suffix, steps.depth - 1)}[{number - 1}]" if number else instance

    def _steps_read(self, text: str) -> Iterable[str]:
        """Ids of the steps that an expression names; all steps if it computes a name."""
        named = [first or second or third for first, second, third in _STEP_READ.findall(text)]
        return named if len(named) == len(_STEPS.findall(text)) else self.definition.places

    def evaluate(self, expression: Expression) -> Json:
        """The value of a CEL expression as JSON. Raises `ExpressionFailed`."""
        return _as_json(expression.evaluate(self.variables(expression)), expression)

    def holds(self, condition: Condition) -> bool:
        """Whether a condition is true. Raises `ExpressionFailed`, `ReferenceMissing`."""
        if isinstance(condition, ExpressionCondition):
            return condition.expression.holds(self.variables(condition.expression))
        reference = parse_text(condition.reference)[0]
        assert isinstance(reference, Reference)
        try:
            actual = self.lookup(reference)
        except ReferenceMissing:
            if condition.operator != "exists":
                raise
            return condition.value is False
        return compare(condition.operator, actual, condition.value)


def compare(operator: Operator, actual: Json, expected: Json) -> bool:
    """`actual operator expected` for JSON values: types that differ never match, `1` equals `1.0`. Raises `ExpressionFailed`."""
    match operator:
        case "exists":
            return expected is not False
        case "eq":
            return equal(actual, expected)
        case "ne":
            return not equal(actual, expected)
        case "in":
            return isinstance(expected, list) and any(equal(actual, item) for item in expected)
        case "contains":
            return _contains(actual, expected)
        case "gt" | "gte" | "lt" | "lte":
            return _ordered(operator, actual, expected)


def _contains(actual: Json, expected: Json) -> bool:
    match actual:
        case list():
            return any(equal(item, expected) for item in actual)
        case str():
            return isinstance(expected, str) and expected in actual
        case dict():
            return isinstance(expected, str) and expected in actual
        case _:
            return False


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ordered(operator: Operator, actual: Json, expected: Json) -> bool:
    """Numbers and texts (by code points) are ordered among themselves; anything else is neither less nor greater."""
    if not (_is_number(actual) and _is_number(expected)) and not (isinstance(actual, str) and isinstance(expected, str)):
        return False
    match operator:
        case "gt":
            return bool(actual > expected)
        case "gte":
            return bool(actual >= expected)
        case "lt":
            return bool(actual < expected)
        case _:
            return bool(actual <= expected)


def _as_json(value: Any, expression: Expression) -> Json:
    """A CEL value as JSON: times as RFC 3339, durations in seconds (`"90s"`, `"1.5s"`), as CEL and protobuf have it.

    Raises `ExpressionFailed` for what JSON does not have.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if value == value and value not in (float("inf"), float("-inf")):
            return value
        case datetime():
            return iso(value)
        case timedelta():
            seconds = Decimal(value // timedelta(microseconds=1)) / 1_000_000
            return f"{seconds.normalize():f}s"
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _as_json(item, expression) for key, item in value.items()}
        case list() | tuple():
            return [_as_json(item, expression) for item in value]
        case _:
            raise ExpressionFailed(f"{expression.text}: the value {value!r} has no form in JSON")
