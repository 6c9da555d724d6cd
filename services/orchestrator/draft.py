"""A decision in the making: the state after what has been decided so far, the events and effects that led to it.

Each event is folded into the draft's state by `evolve` at once, so later parts of a decision see what earlier ones did, and a
replay of the events gives exactly this state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import orjson

from services.orchestrator import family, telling
from services.orchestrator.definition import Conditional, Definition, Foreach, ListRole, Loop, Parallel, Place, Step, StepList
from services.orchestrator.effects import SOURCE
from services.orchestrator.evolve import evolve
from services.orchestrator.scope import Scope, suffix_at
from services.orchestrator.state import ENDED, TERMINAL, Execution, StepState, split_instance
from streams import limits
from streams.log.types import Decision, Send
from streams.records import ExecutionStatus, Json, WorkflowTransition, from_micros

#: Finds the published definition with an id and, if it is named, a version. Raises `InvalidDocument` if it has faults.
FindWorkflow: TypeAlias = Callable[[str, str | None], Definition | None]

#: Records that one step of a decision may add between two places where it may be cut.
_ROOM_EVENTS = 16
#: Bytes of a decision's records as JSON beyond which it is cut; what comes until then fits in a batch beside it.
_DECISION_BYTES_MAX = limits.LOG_MESSAGE_BYTES_MAX // 2


class Unfinished(Exception):
    """A decision has become as large as one may be. `tasks` are what was under way, the innermost first (`continuation`)."""

    def __init__(self) -> None:
        super().__init__("the decision is as large as one may be")
        self.tasks: list[dict[str, Json]] = []


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
        find_workflow: FindWorkflow,
        events: list[WorkflowTransition] | None = None,
    ) -> None:
        self.definition = definition
        self.state = state
        self.now_us = now_us
        self.time = from_micros(now_us)
        self.local_modules = local_modules
        self.known_modules = known_modules
        self.find_workflow = find_workflow
        self._had_ended = state.status in TERMINAL
        self.events: list[WorkflowTransition] = [] if events is None else events
        self.effects: list[Send] = []
        self.size = 0  #: of the records so far, bytes of their data as JSON
        #: Lists in which something has changed, with their turn suffixes.
        self.changed: deque[tuple[StepList, str]] = deque()

    def decision(self) -> Decision:
        """What has been decided."""
        effects = list(self.effects)
        if self.state.parent is not None and self.state.status in TERMINAL and not self._had_ended:
            effects.append(family.outcome(self.state))
        if self.state.monitors:
            effects += telling.collected(self.state, self.events)
        return Decision(events=tuple(self.events), effects=tuple(effects), depth=self.state.trigger_depth)

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
        asked = None if step is None else state.step(step).approval
        after = evolve(state, event)
        assert after is not None, "an execution that has begun stays"
        if asked is not None or type == "approval.requested":
            self.effects += telling.told_people(asked, after, event)
        self.events.append(event)
        self.size += len(orjson.dumps(data))
        self.state = after

    def record_step(self, type: str, instance: str, data: dict[str, Any]) -> None:
        """Records an event about a step's current attempt."""
        self.record(type, data, step=instance, attempt=self.state.step(instance).attempt)

    @property
    def room(self) -> int:
        """How many records the decision may still take before it is cut, a few always excepted."""
        if self.size >= _DECISION_BYTES_MAX:
            return 0
        return max(0, limits.STEP_EVENTS_PER_INPUT_MAX - _ROOM_EVENTS - len(self.events))

    def check_room(self) -> None:
        """Marks a place where the decision may be cut: what follows can be done anew from the state. Raises `Unfinished`."""
        if not self.room:
            raise Unfinished

    @contextmanager
    def resumable(self, **task: Json) -> Iterator[None]:
        """What is done inside may be cut; `task` names what then has to be done again, as `continuation` understands it."""
        try:
            yield
        except Unfinished as cut:
            cut.tasks.append(task)
            raise

    def place(self, instance: str) -> tuple[Place, str]:
        """Where the step of an instance stands, and its turn suffix."""
        step_id, suffix = split_instance(instance)
        return self.definition.places[step_id], suffix

    def scope(self, step: Step, suffix: str) -> Scope:
        """What a step can see from within these turns, now."""
        return Scope(self.definition, self.state, suffix, self.definition.places[step.id].steps)

    def owner_of(self, steps: StepList, suffix: str) -> str | None:
        """The instance that a list belongs to; of a turn, or the turns as a whole, the `foreach` or `loop`."""
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
        """Whether a step of the list has failed and so failed the list; children of a `parallel` do so only with `fail-fast`.

        A turn is also failed by another one if the workflow cancels what runs on a failure.
        """
        if not self.state.failed:
            return False
        if steps.role is ListRole.TURN and self.definition.cancel_on_failure:
            turns = self.state.step(self.owner_of(steps, suffix) or "").turns
            if turns is not None and turns.failed is not None:
                return True
        if steps.role is ListRole.PARALLEL and not self.fails_fast(steps):
            return False
        return any(step.id + suffix in self.state.failed for step in steps.steps)

    def fails_fast(self, steps: StepList) -> bool:
        """Whether the list is that of a `parallel` with `fail-fast`."""
        if steps.owner is None or steps.role is not ListRole.PARALLEL:
            return False
        action = self.definition.places[steps.owner].step.action
        return isinstance(action, Parallel) and action.fail_fast

    def open_lists(self, step: Step, state: StepState, suffix: str) -> Iterator[tuple[StepList, str]]:
        """The lists that run inside a step that has begun, with their turn suffixes; of a `foreach` or `loop` the turns that run,
        and at the end the turns as a whole (their list with the container's suffix)."""
        if state.fallback is not None:
            inner = step.fallbacks[state.fallback].steps
            if inner is not None:
                yield inner, suffix
            return
        match step.action:
            case Parallel(steps=steps):
                yield steps, suffix
            case Conditional(then=then) if state.branch == "then":
                yield then, suffix
            case Conditional(otherwise=otherwise) if state.branch == "else" and otherwise is not None:
                yield otherwise, suffix
            case Foreach(steps=steps) | Loop(steps=steps) if state.turns is not None:
                yield from ((steps, f"{suffix}[{number}]") for number in state.turns.running)
                yield steps, suffix
            case _:
                pass

    def inner_lists(self, step: Step, state: StepState, suffix: str) -> list[tuple[StepList, str]]:
        """All lists whose steps end with the step, begun or not: those that run, and a container's own.

        Turns that have not begun have no steps yet, unless they had begun in an earlier attempt.
        """
        found = [(steps, inner) for steps, inner in self.open_lists(step, state, suffix) if not is_whole(steps, inner)]
        own: tuple[StepList | None, ...]
        match step.action:
            case Parallel(steps=steps):
                own = (steps,)
            case Conditional(then=then, otherwise=otherwise):
                own = (then, otherwise)
            case Foreach(steps=steps) | Loop(steps=steps) if state.turns is not None:
                own = ()
                found += [(steps, f"{suffix}[{number}]") for number in range(state.turns.begun, state.turns.most)]
            case _:
                own = ()
        return [*found, *((steps, suffix) for steps in own if steps is not None and not any(steps is other for other, _ in found))]

    def all_ended(self, steps: StepList, suffix: str) -> bool:
        """Whether every step of a list has ended."""
        return all(self.state.step(step.id + suffix).status in ENDED for step in steps.steps)


def is_whole(steps: StepList, suffix: str) -> bool:
    """Whether a list and a suffix mean the turns of a `foreach` or `loop` as a whole, and not one of them."""
    return steps.role is ListRole.TURN and suffix.count("[") < steps.depth


def too_large(value: Json) -> bool:
    """Whether a value is beyond what a record's payload may carry beside its other fields, or cannot be written as JSON at all."""
    try:
        return len(orjson.dumps(value)) > limits.PAYLOAD_BYTES_MAX - limits.ENVELOPE_BYTES
    except orjson.JSONEncodeError:
        return True
