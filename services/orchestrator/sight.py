"""What each step of a document may refer to: what is certain to have ended before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.orchestrator.definition import ListRole
from services.orchestrator.references import Reference, ReferenceSyntax, parse_text
from services.orchestrator.schema import pointer_of
from services.orchestrator.tree import Path, RawList, RawStep, turn_names, walk
from streams.errors import Violation
from streams.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """What may be named at one place of a document."""

    steps: frozenset[str] = frozenset()  #: ids of steps that have ended, in references and expressions
    latest: frozenset[str] = frozenset()  #: ids of steps of the loops around it: expressions may name them too
    names: frozenset[str] = frozenset()  #: names of turns: `item`, `index`, `iteration`


#: Where no step has ended and there is no turn: the workflow's own error handling.
NOWHERE = Visible()


class Sight:
    """The steps that each step of a document can see, and the faults of references that look further."""

    def __init__(self, lists: list[RawList]) -> None:
        self.lists = lists
        self.known: dict[str, RawStep] = {}
        for step in (step for steps in lists for step in walk(steps)):
            self.known.setdefault(step.id, step)
        self._visible: dict[int, Visible] = {}

    def visible(self, step: RawStep) -> Visible:
        """What `step` may name."""
        found = self._visible.get(id(step))
        if found is None:
            around = NOWHERE if step.around.owner is None else self.visible(step.around.owner)
            found = self._visible[id(step)] = Visible(
                steps=frozenset(self._before(step)) | around.steps | _undone(step),
                latest=around.latest | _of_loop(step.around),
                names=turn_names(step.around),
            )
        return found

    def visible_before_turn(self, loop: RawStep) -> Visible:
        """What the `while` of a `loop` may name: also the steps of its turns, the latest of which is meant."""
        outside = self.visible(loop)
        inside = next((inner for inner in loop.lists if inner.role is ListRole.TURN), None)
        latest = frozenset[str]() if inside is None else _of_loop(inside)
        return Visible(steps=outside.steps, latest=outside.latest | latest, names=outside.names | {"iteration"})

    def _before(self, step: RawStep) -> Iterator[str]:
        """The step's dependencies, transitively, within its list."""
        neighbours = step.around.by_id()
        waiting, met = [name for _, name in step.dependencies()], {step.id}
        while waiting:
            name = waiting.pop()
            if name in neighbours and name not in met:
                met.add(name)
                yield from _with_children(neighbours[name])
                waiting.extend(other for _, other in neighbours[name].dependencies())

    def references_below(self, value: Json, path: Path, visible: Visible) -> Iterator[Violation]:
        """Faults of the references in all texts of a JSON value."""
        if isinstance(value, str):
            if "${" in value:
                yield from self.references(value, pointer_of(path), visible)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from self.references_below(item, (*path, key), visible)
        elif isinstance(value, list):
            for place, item in enumerate(value):
                yield from self.references_below(item, (*path, place), visible)

    def references(self, text: str, pointer: str, visible: Visible | None) -> Iterator[Violation]:
        """Faults of the references in one text; with `visible` None any step outside of turns may be named."""
        try:
            pieces = parse_text(text)
        except ReferenceSyntax as error:
            yield Violation(code="reference.syntax", pointer=pointer, message=str(error))
            return
        for reference in pieces:
            if isinstance(reference, Reference):
                yield from self._reference(reference, pointer, visible)

    def _reference(self, reference: Reference, pointer: str, visible: Visible | None) -> Iterator[Violation]:
        if reference.root == "input" or (visible is not None and reference.root in visible.names):
            return
        if reference.root == "event" and not ("event" in self.known and reference.path[:1] == ("result",)):
            return
        if reference.root == "execution":
            if reference.path != ("id",):
                yield Violation(code="reference.unknown", pointer=pointer, message=f"{reference}: an execution has only an id.")
            return
        if reference.root in self.known and reference.path[:1] != ("result",):
            yield Violation(code="reference.syntax", pointer=pointer, message=f"{reference}: write ${{{reference.root}.result…}}.")
        yield from self.step(reference.root, pointer, None if visible is None else visible.steps)

    def step(self, step_id: str, pointer: str, visible: frozenset[str] | None) -> Iterator[Violation]:
        """Faults of naming a step from where `visible` can be seen; None: any step outside of turns."""
        found = self.known.get(step_id)
        if found is None:
            yield Violation(code="reference.unknown", pointer=pointer, message=f"There is no step {step_id!r}.")
        elif (found.around.depth > 0) if visible is None else (step_id not in visible):
            yield Violation(
                code="reference.uncertain", pointer=pointer,
                message=f"It is not certain that {step_id!r} has ended well before: add it to `dependencies`"
                " (of a step inside another: refer to the outer one's result).",
            )  # fmt: skip


def _undone(step: RawStep) -> frozenset[str]:
    """What a compensation sees beyond what its step could: the step itself."""
    owner = step.around.owner
    return frozenset(_with_children(owner)) if owner is not None and step.around.role is ListRole.COMPENSATION else frozenset()


def _of_loop(steps: RawList) -> frozenset[str]:
    """Ids of the steps of a loop's turn, with the children of its parallels."""
    if steps.role is not ListRole.TURN or steps.owner is None or steps.owner.type != "loop":
        return frozenset()
    return frozenset(name for step in steps.steps for name in _with_children(step))


def _with_children(step: RawStep) -> Iterator[str]:
    """The step, and if it is a `parallel` its children, which have all ended when it has."""
    yield step.id
    for steps in step.lists:
        if steps.role is ListRole.PARALLEL:
            for child in steps.steps:
                yield from _with_children(child)
