"""A workflow definition as the engine reads it: checked, times in milliseconds, error handling already inherited.

Lists of steps are the unit of execution: the workflow's own, the children of a `parallel`, a branch, the turns of a `foreach`
or `loop`, and the single steps of a fallback or a compensation. `Place` says where a step stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from streams.matching.expressions import Expression
from streams.records import Json
from streams.triggers import Trigger

Backoff: TypeAlias = Literal["fixed", "linear", "exponential"]
Operator: TypeAlias = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "contains", "exists"]
FallbackAction: TypeAlias = Literal["escalate-to-human", "use-value", "run-step", "skip", "fail", "compensate"]

#: A `module-operation` without `timeout`, milliseconds; as a child of a `parallel`.
OPERATION_TIMEOUT_MS = 5 * 60 * 1000
PARALLEL_CHILD_TIMEOUT_MS = 30 * 1000


class ListRole(StrEnum):
    """What a list of steps is to its owner."""

    WORKFLOW = "workflow"
    PARALLEL = "parallel"
    THEN = "then"
    ELSE = "else"
    TURN = "turn"
    FALLBACK = "fallback"
    COMPENSATION = "compensation"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed attempt is tried again, and after which delay. Intervals in milliseconds."""

    max_retries: int = 3
    strategy: Backoff = "exponential"
    initial_interval_ms: int = 1000
    max_interval_ms: int = 60_000
    multiplier: float = 2.0
    jitter: float = 0.0
    retryable: frozenset[str] = frozenset()
    non_retryable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What to do when the retries are used up: the first whose condition holds is taken."""

    index: int  #: place in the list of fallbacks
    condition: str
    expression: Expression | None  #: the condition, if it is CEL
    action: FallbackAction
    value: Json = None
    steps: StepList | None = None  #: of `run-step`
    title: str = ""
    assignees: Json = None
    choices: tuple[str, ...] = ()
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOperation:
    """Asks a module for one of its operations."""

    module: str
    operation: str
    parameters: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Runs its steps side by side and gathers their outcomes."""

    steps: StepList
    fail_fast: bool = False
    require_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionCondition:
    """Holds if the CEL expression is true."""

    expression: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResultCondition:
    """Compares the result of a step, or a part of it, with a value."""

    reference: str  #: the step's result as a reference, with `path` if given
    operator: Operator
    value: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomCondition:
    """Asks a module, which answers true or false."""

    module: str
    operation: str
    sees: tuple[str, ...] = ()  #: steps that have ended when it is asked


Condition: TypeAlias = ExpressionCondition | StepResultCondition


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """Runs one of two branches, each a single step."""

    condition: Condition | CustomCondition
    then: StepList
    otherwise: StepList | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreach:
    """Runs its steps once per item, each time as a *turn* of its own."""

    items: Json  #: a list, or one reference to a list
    variable: str  #: what an item is called in its turn
    steps: StepList
    limit: int | None = None  #: turns that may run at a time; None: all


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Runs its steps turn after turn while a condition holds."""

    condition: Expression
    steps: StepList
    max_iterations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Waits for a duration or until an instant; either may be a reference."""

    duration: Json = None  #: milliseconds, or a text
    until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Asks people for a choice."""

    title: Json
    choices: tuple[str, ...]
    assignees: Json = None
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """Publishes a system event."""

    event: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """Computes a value."""

    value: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitSignal:
    """Waits for a signal."""

    name: str  #: references allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWorkflow:
    """Runs another workflow and waits for its end."""

    definition: Definition | None  #: given inline; else the published one is looked for when the step starts
    workflow_id: str
    version: str | None = None  #: None: the newest
    input: Json = field(default_factory=dict)


Action: TypeAlias = (
    ModuleOperation | Parallel | Conditional | Foreach | Loop | Wait | Approval | AwaitSignal | ChildWorkflow | Emit | Transform
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `retry` and `fallbacks` are what holds for it, inherited or its own."""

    id: str
    type: str
    action: Action
    dependencies: tuple[str, ...] = ()
    timeout_ms: int | None = None
    attempt_timeout_ms: int | None = None
    retry: RetryPolicy | None = None
    fallbacks: tuple[Fallback, ...] = ()
    compensation: StepList | None = None
    priority: int = 0  #: of two steps that wait for a free place the greater starts first
    resources: Json = None  #: by name of the pool; recorded with each attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class StepList:
    """Steps that are started by their dependencies, at most `limit` of them at a time."""

    steps: tuple[Step, ...]
    role: ListRole
    owner: str | None = None  #: id of the step that it belongs to; None: the workflow
    limit: int | None = None
    depth: int = 0  #: number of turns (`foreach`, `loop`) around it


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a step stands."""

    step: Step
    steps: StepList  #: its list
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A workflow definition whose every fault has been looked for."""

    id: str
    version: str
    name: str
    hash: str
    document: Mapping[str, Any]  #: as given, without the wrapper
    steps: StepList
    places: Mapping[str, Place]  #: every step at any depth, by id
    timeout_ms: int | None = None
    cancel_on_failure: bool = False
    output: Mapping[str, Json | Expression] | None = None
    input_schema: Any = None  #: validator of the input
    triggers: tuple[Trigger, ...] = ()
    resources: Json = None  #: of the execution as a whole


def lists_of(step: Step) -> tuple[StepList, ...]:
    """The lists that belong to a step: children, branches, steps of fallbacks, compensation."""
    own: tuple[StepList | None, ...]
    match step.action:
        case Parallel(steps=steps):
            own = (steps,)
        case Conditional(then=then, otherwise=otherwise):
            own = (then, otherwise)
        case Foreach(steps=steps) | Loop(steps=steps):
            own = (steps,)
        case _:
            own = ()
    found = (*own, *(fallback.steps for fallback in step.fallbacks), step.compensation)
    return tuple(steps for steps in found if steps is not None)
