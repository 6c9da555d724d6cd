"""What holds of every history, told from its records and the document alone: order, limits, one end, compensation backwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.orchestrator.definition import Definition, ListRole, StepList
from services.orchestrator.state import split_instance
from streams.records import WorkflowTransition

WELL = frozenset({"completed", "skipped"})
ENDED = frozenset({"completed", "skipped", "failed", "timed_out", "cancelled"})
ENDS = frozenset({"execution.completed", "execution.failed", "execution.cancelled", "execution.timed_out"})
AFTER_THE_END = frozenset({"step.answered_late", "command.refused", "execution.retried", "execution.forked", "execution.acknowledged"})


class Laws:
    """Reads a history record by record; raises `AssertionError` at the first that breaks a law."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.status: dict[str, str] = {}
        self.begun: set[str] = set()  #: instances that hold a place of their list
        self.completions: list[tuple[str, int]] = []
        self.undone: list[int] = []
        self.gone: set[int] = set()  #: of these, those whose compensation completed
        self.ended = False
        self.sequence = 0

    def read(self, events: Iterable[WorkflowTransition]) -> None:
        """Takes the next records of the history."""
        for event in events:
            if event.sequence:
                self.sequence += 1
                assert event.sequence == self.sequence, "sequences are gapless"
            self._read(event)

    def _read(self, event: WorkflowTransition) -> None:
        kind, instance = event.type, event.step_id or ""
        if self.ended:
            assert kind in AFTER_THE_END, f"{kind} after the end"
        if kind in ENDS:
            self.ended = True
            assert event.status == kind.removeprefix("execution.")
            self._check_end(event)
        elif kind == "execution.retried":
            self._retried(event)
        elif not self.ended and kind not in ("command.refused", "execution.paused"):
            assert event.status in ("running", "paused"), f"{kind} says {event.status}"
        if kind.startswith("compensation."):
            self._compensation(event)
        elif kind.startswith(("step.", "approval.", "fallback.")):
            self._step(kind, instance, event)
        for other in event.data.get("reset", ()):
            self._forget(other)

    def _step(self, kind: str, instance: str, event: WorkflowTransition) -> None:
        before = self.status.get(instance, "pending")
        match kind:
            case "step.started":
                assert before in ("pending", "scheduled"), f"{instance} starts, but it is {before}"
                self._check_start(instance)
                self.status[instance] = "running"
                self.begun.add(instance)
            case "step.scheduled":
                assert before == "pending"
                self.status[instance] = "scheduled"
            case "step.retried":
                assert before == "running"
                self.status[instance] = "scheduled"
            case "approval.answered" if event.data.get("escalated") and event.data["choice"] == "retry":
                self._forget(instance)
            case "step.completed" | "step.skipped" | "step.failed" | "step.timed_out" | "step.cancelled":
                assert before not in ENDED, f"{instance} ends as {kind}, but it is {before}"
                self.status[instance] = kind.removeprefix("step.")
                self.begun.discard(instance)
                if kind == "step.completed":
                    self.completions.append((instance, event.attempt))
            case _:
                pass

    def _forget(self, instance: str) -> None:
        self.status.pop(instance, None)
        self.begun.discard(instance)

    def _check_start(self, instance: str) -> None:
        if instance in self.begun:
            return  # another attempt: it has kept its place
        step_id, suffix = split_instance(instance)
        place = self.definition.places[step_id]
        for name in place.step.dependencies:
            assert self.status.get(name + suffix) in WELL, f"{instance} starts before {name} has ended well"
        if place.steps.limit is not None:
            active = sum(step.id + suffix in self.begun for step in place.steps.steps)
            assert active < place.steps.limit, f"{instance} is one too many of its list"

    # --- the end ------------------------------------------------------------------------------------------------------

    def _compensation(self, event: WorkflowTransition) -> None:
        if event.type == "compensation.completed":
            self.gone.add(self.undone[-1])
        if event.type != "compensation.started":
            return
        found = (event.step_id or "", event.attempt)
        assert found in self.completions, f"{found} is undone, but it did not complete"
        place = len(self.completions) - 1 - self.completions[::-1].index(found)
        assert not self.undone or place < self.undone[-1], f"{found} is undone after what completed before it"
        self.undone.append(place)

    def _check_end(self, event: WorkflowTransition) -> None:
        assert not self.begun, f"{sorted(self.begun)} run after the end"
        if event.type == "execution.completed":
            assert not self.undone
            return
        wanted = {place for place, (instance, _) in enumerate(self.completions) if self._has_compensation(instance)}
        assert set(self.undone) >= wanted, f"not undone: {[self.completions[place] for place in wanted - set(self.undone)]}"
        assert ("compensated" in event.data) == bool(self.undone)

    def _has_compensation(self, instance: str) -> bool:
        place = self.definition.places[split_instance(instance)[0]]
        return place.step.compensation is not None and not self._inside_compensation(place.steps)

    def _inside_compensation(self, steps: StepList) -> bool:
        while steps.owner is not None:
            if steps.role is ListRole.COMPENSATION:
                return True
            steps = self.definition.places[steps.owner].steps
        return False

    def _retried(self, event: WorkflowTransition) -> None:
        """Failed and cancelled steps begin anew, and what was undone; what completed stays, also if it could not be undone."""
        assert self.ended, "only what has ended is retried"
        self.ended = False
        self.completions = [entry for place, entry in enumerate(self.completions) if place not in self.gone]
        self.undone, self.gone = [], set()
        for instance, status in list(self.status.items()):
            if status in ENDED - WELL:
                self._forget(instance)


def check(definition: Definition, events: Iterable[WorkflowTransition], execution_id: str) -> Laws:
    """Reads the whole history of one execution. Raises `AssertionError`."""
    laws = Laws(definition)
    laws.read(event for event in events if event.execution_id == execution_id)
    return laws


def describe(events: Iterable[Any]) -> str:
    """A history as text, for messages of failing tests."""
    return "\n".join(f"{event.time.isoformat()} {event.type} {event.step_id or ''} {event.attempt} {event.data}" for event in events)
