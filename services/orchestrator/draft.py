"""A decision in the making: the state after what has been decided so far, the events and effects that led to it.

Each event is folded into the draft's state by `evolve` at once, so later parts of a decision see what earlier ones did, and a
replay of the events gives exactly this state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any

import orjson

from services.orchestrator.definition import Conditional, Definition, ListRole, Parallel, Place, Step, StepList
from services.orchestrator.effects import SOURCE
from services.orchestrator.evolve import evolve
from services.orchestrator.scope import Scope, suffix_at
from services.orchestrator.state import ENDED, Execution, StepState, split_instance
from streams import limits
from streams.log.types import Decision, Send
from streams.records import ExecutionStatus, Json, WorkflowTransition, from_micros


class Draft:
    """Collects what follows from one input for one execution."""

    def __init__(
        self,
        definition: Definition,
        state: Execution,
        now_us: int,
        *,
        local_modules: Collection[str],
        known_modules: Collection[str],
        events: list[WorkflowTransition] | None = None,
    ) -> None:
        self.definition = definition
        self.state = state
        self.now_us = now_us
        self.time = from_micros(now_us)
        self.local_modules = local_modules
        self.known_modules = known_modules
        self.events: list[WorkflowTransition] = [] if events is None else events
        self.effects: list[Send] = []
        #: Lists in which something has changed, with their turn suffixes.
        self.changed: deque[tuple[StepList, str]] = deque()

    def decision(self) -> Decision:
        """What has been decided."""
        return Decision(events=tuple(self.events), effects=tuple(self.effects))

    def record(
        self,
        type: str,
        data: dict[str, Any],
        *,
        step: str | None = None,
        attempt: int = 0,
        status: ExecutionStatus | None = None,
        causation_id: str | None = None,
    ) -> None:
        """Records an event and folds it."""
        state = self.state
        if status is None:
            # Cancelling and compensating end a pause.
            status = "running" if "ending" in data else state.status
        event = WorkflowTransition(
            id="",
            type=type,
            source=SOURCE,
            subject=state.id,
            time=self.time,
            tenant=state.tenant,
            correlation_id=state.correlation_id,
            causation_id=causation_id,
            data=data,
            execution_id=state.id,
            workflow_id=state.workflow_id,
            workflow_version=state.workflow_version,
            step_id=step,
            attempt=attempt,
            status=status,
            aggregate_id=state.id,
        )
        after = evolve(state, event)
        assert after is not None, "an execution that has begun stays"
        self.events.append(event)
        self.state = after

    def record_step(self, type: str, instance: str, data: dict[str, Any]) -> None:
        """Records an event about a step's current attempt."""
        self.record(type, data, step=instance, attempt=self.state.step(instance).attempt)

    def place(self, instance: str) -> tuple[Place, str]:
        """Where the step of an instance stands, and its turn suffix."""
        step_id, suffix = split_instance(instance)
        return self.definition.places[step_id], suffix

    def scope(self, suffix: str) -> Scope:
        """What can be seen from within these turns, now."""
        return Scope(self.definition, self.state, suffix)

    def owner_of(self, steps: StepList, suffix: str) -> str | None:
        """The instance that a list belongs to; of a turn's list, the step outside of the turn."""
        if steps.owner is None:
            return None
        return steps.owner + suffix_at(suffix, self.definition.places[steps.owner].steps.depth)

    def touch(self, instance: str) -> None:
        """Notes that something has changed in the list of a step."""
        place, suffix = self.place(instance)
        self.changed.append((place.steps, suffix))

    def is_stopping(self, steps: StepList, suffix: str) -> bool:
        """Whether nothing new may start in a list: it has failed, or one around it has."""
        while steps.role is not ListRole.COMPENSATION:
            if self.has_failed(steps, suffix) or (steps.role is ListRole.WORKFLOW and self.state.doomed is not None):
                return True
            if steps.owner is None:
                return False
            steps = self.definition.places[steps.owner].steps
            suffix = suffix_at(suffix, steps.depth)
        return False

    def has_failed(self, steps: StepList, suffix: str) -> bool:
        """Whether a step of the list has failed and so failed the list; children of a `parallel` do so only with `fail-fast`."""
        if not self.state.failed:
            return False
        if steps.role is ListRole.PARALLEL and not self.fails_fast(steps):
            return False
        return any(step.id + suffix in self.state.failed for step in steps.steps)

    def fails_fast(self, steps: StepList) -> bool:
        """Whether the list is that of a `parallel` with `fail-fast`."""
        if steps.owner is None or steps.role is not ListRole.PARALLEL:
            return False
        action = self.definition.places[steps.owner].step.action
        return isinstance(action, Parallel) and action.fail_fast

    def open_lists(self, step: Step, state: StepState) -> tuple[StepList, ...]:
        """The lists that run inside a step that has begun."""
        if state.fallback is not None:
            inner = step.fallbacks[state.fallback].steps
            return () if inner is None else (inner,)
        return running_lists(step, state)

    def inner_lists(self, step: Step, state: StepState) -> tuple[StepList, ...]:
        """All lists whose steps end with the step, begun or not: those that run, and a container's own."""
        own: tuple[StepList | None, ...]
        match step.action:
            case Parallel(steps=steps):
                own = (steps,)
            case Conditional(then=then, otherwise=otherwise):
                own = (then, otherwise)
            case _:
                own = ()
        running = self.open_lists(step, state)
        return (*running, *(steps for steps in own if steps is not None and not any(steps is other for other in running)))

    def all_ended(self, steps: StepList, suffix: str) -> bool:
        """Whether every step of a list has ended."""
        return all(self.state.step(step.id + suffix).status in ENDED for step in steps.steps)


def running_lists(step: Step, state: StepState) -> tuple[StepList, ...]:
    """The lists that a container's attempt runs: all children, or the chosen branch."""
    match step.action:
        case Parallel(steps=steps):
            return (steps,)
        case Conditional(then=then) if state.branch == "then":
            return (then,)
        case Conditional(otherwise=otherwise) if state.branch == "else" and otherwise is not None:
            return (otherwise,)
        case _:
            return ()


def too_large(value: Json) -> bool:
    """Whether a value is beyond the limit of a record's payload, or cannot be written as JSON at all."""
    try:
        return len(orjson.dumps(value)) > limits.PAYLOAD_BYTES_MAX
    except orjson.JSONEncodeError:
        return True
