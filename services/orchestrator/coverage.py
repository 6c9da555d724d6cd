"""What the runs of a definition have taken of it: steps, branches, retries and fallbacks. What was never taken was never tested.

A workflow's own error handling is one thing, however many steps inherit it: it is taken when one of them takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from services.orchestrator.definition import Conditional, Definition, ListRole, Step
from services.orchestrator.definitions import unwrap
from services.orchestrator.schema import pointer_of
from services.orchestrator.state import split_instance
from services.orchestrator.tree import ELSE, THEN, RawStep, lists_in, read_tree
from streams.records import Json, WorkflowTransition

Kind: TypeAlias = Literal["steps", "branches", "retries", "fallbacks"]
#: What is counted, in the order of the report.
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing that a run may take. `step` is None for the workflow's own error handling."""

    kind: Kind
    step: str | None
    pointer: str  #: where it stands in the document as given
    branch: str = ""  #: `then` or `else`, also where there is no else: then nothing runs
    index: int = 0  #: of a fallback
    words: str = ""  #: of a fallback: condition and action

    def to_json(self) -> dict[str, Json]:
        """How a report names it."""
        found: dict[str, Json] = {"step": self.step, "pointer": self.pointer}
        match self.kind:
            case "branches":
                found["branch"] = self.branch
            case "fallbacks":
                condition, _, action = self.words.partition(" → ")
                found |= {"index": self.index, "condition": condition, "action": action}
            case "steps" | "retries":
                pass
        return found


class Coverage:
    """Collects what executions of one definition have taken."""

    def __init__(self, document: Json, definition: Definition) -> None:
        self.definition = definition
        workflow, path = unwrap(document)
        steps = (step for steps in lists_in(read_tree(workflow, path)) for step in steps.steps)
        self._raw: dict[str, RawStep] = {step.id: step for step in steps}
        self._handling: tuple[str | int, ...] = (*path, "error-handling")
        self.targets = tuple(dict.fromkeys(self._targets()))
        self._taken: set[Target] = set()

    def add(self, transitions: Iterable[WorkflowTransition]) -> None:
        """Counts what these records show; those of executions of other definitions are left out."""
        ours: set[str] = set()
        by_key = {self._key(target): target for target in self.targets}
        for transition in transitions:
            if transition.type == "execution.started" and transition.data["definition_hash"] == self.definition.hash:
                ours.add(transition.execution_id)
            if transition.execution_id in ours and transition.step_id is not None:
                self._taken.update(by_key[key] for key in self._seen(transition) if key in by_key)

    def report(self) -> dict[str, Any]:
        """`percent` (rounded down to a tenth), `taken`, `total`, and the same with what was `missed` for each kind."""
        parts = {kind: [target for target in self.targets if target.kind == kind] for kind in KINDS}
        return {
            **_figures(self.targets, self._taken),
            **{
                kind: {**_figures(parts[kind], self._taken), "missed": [t.to_json() for t in parts[kind] if t not in self._taken]}
                for kind in KINDS
            },
        }

    # --- what there is ------------------------------------------------------------------------------------------------

    def _targets(self) -> Iterator[Target]:
        for name, place in self.definition.places.items():
            raw = self._raw.get(name)
            if raw is None:
                continue  # a copy of the step of the workflow's own fallback: the fallback counts
            yield Target(kind="steps", step=name, pointer=raw.at())
            if isinstance(place.step.action, Conditional):
                yield from _branches(raw, name)
            yield from self._of_handling(place.step, raw)

    def _of_handling(self, step: Step, raw: RawStep) -> Iterator[Target]:
        if step.retry is not None and step.retry.max_retries > 0:
            owner, pointer = self._owner(step.id, raw, "retry-policy")
            yield Target(kind="retries", step=owner, pointer=pointer)
        for fallback in step.fallbacks:
            owner, pointer = self._owner(step.id, raw, "fallback-actions")
            words = f"{fallback.condition} → {fallback.action}"
            yield Target(kind="fallbacks", step=owner, pointer=f"{pointer}/{fallback.index}", index=fallback.index, words=words)

    def _owner(self, name: str, raw: RawStep, part: str) -> tuple[str | None, str]:
        """Whose error handling holds for a step: its own, or the workflow's; and where it stands."""
        own = raw.value.get("error-handling")
        if isinstance(own, dict) and part in own:
            return name, raw.at("error-handling", part)
        return None, pointer_of((*self._handling, part))

    # --- what was taken -----------------------------------------------------------------------------------------------

    def _key(self, target: Target) -> tuple[Kind, str | None, str, int]:
        return target.kind, target.step, target.branch, target.index

    def _seen(self, transition: WorkflowTransition) -> Iterator[tuple[Kind, str | None, str, int]]:
        name, _ = split_instance(transition.step_id or "")
        raw = self._raw.get(name)
        match transition.type:
            case "step.started":
                yield "steps", name, "", 0
                if "branch" in transition.data:
                    yield "branches", name, transition.data["branch"] or "else", 0
            case "condition.answered":
                yield "branches", name, transition.data["branch"] or "else", 0
            case "step.retried" if raw is not None:
                yield "retries", self._owner(name, raw, "retry-policy")[0], "", 0
            case "fallback.applied" if raw is not None:
                yield "fallbacks", self._owner(name, raw, "fallback-actions")[0], "", transition.data["index"]
            case _:
                pass


def _branches(raw: RawStep, name: str) -> Iterator[Target]:
    given = {steps.role: pointer_of(steps.path) for steps in raw.lists}
    for role, names in ((ListRole.THEN, THEN), (ListRole.ELSE, ELSE)):
        yield Target(kind="branches", step=name, branch=names[0], pointer=given.get(role, raw.at("condition")))


def _figures(targets: Sequence[Target], taken: set[Target]) -> dict[str, Any]:
    reached = sum(target in taken for target in targets)
    percent = 1000 * reached // len(targets) / 10 if targets else 100.0
    return {"percent": percent, "taken": reached, "total": len(targets)}


def coverage_text(report: dict[str, Any]) -> str:
    """A report as a person reads it: figures, and a line for each thing that was missed."""
    lines = [f"coverage {report['percent']:g} %: {report['taken']} of {report['total']} taken"]
    for kind in KINDS:
        part = report[kind]
        if part["total"]:
            lines.append(f"  {kind:<10} {part['taken']:>4} of {part['total']}")
        lines += [f"    never taken: {_named(kind, missed)}  ({missed['pointer']})" for missed in part["missed"]]
    return "\n".join(lines)


def _named(kind: Kind, missed: dict[str, Any]) -> str:
    owner = missed["step"] or "the workflow's error-handling"
    match kind:
        case "steps":
            return str(owner)
        case "branches":
            return f"{owner}: {missed['branch']}"
        case "retries":
            return f"{owner}: retry"
        case "fallbacks":
            return f"{owner}: fallback {missed['index']} ({missed['condition']} → {missed['action']})"
