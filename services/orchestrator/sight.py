"""What each step of a document may refer to: what is certain to have ended before it starts."""

from __future__ import annotations

from collections.abc import Iterator

from services.orchestrator.definition import ListRole
from services.orchestrator.references import Reference, ReferenceSyntax, parse_text
from services.orchestrator.schema import pointer_of
from services.orchestrator.tree import Path, RawList, RawStep, walk
from streams.errors import Violation
from streams.records import Json


class Sight:
    """The steps that each step of a document can see, and the faults of references that look further."""

    def __init__(self, lists: list[RawList]) -> None:
        self.lists = lists
        self.known: dict[str, RawStep] = {}
        for step in (step for steps in lists for step in walk(steps)):
            self.known.setdefault(step.id, step)
        self._visible: dict[int, frozenset[str]] = {}

    def visible(self, step: RawStep) -> frozenset[str]:
        """Ids of the steps that `step` may refer to."""
        found = self._visible.get(id(step))
        if found is None:
            found = self._visible[id(step)] = frozenset(self._before(step)) | self._around(step)
        return found

    def _around(self, step: RawStep) -> frozenset[str]:
        owner = step.around.owner
        if owner is None:
            return frozenset()
        own = frozenset(_with_children(owner)) if step.around.role is ListRole.COMPENSATION else frozenset()
        return self.visible(owner) | own

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

    def references_below(self, value: Json, path: Path, visible: frozenset[str]) -> Iterator[Violation]:
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

    def references(self, text: str, pointer: str, visible: frozenset[str] | None) -> Iterator[Violation]:
        """Faults of the references in one text; with `visible` None any step may be named."""
        try:
            pieces = parse_text(text)
        except ReferenceSyntax as error:
            yield Violation(code="reference.syntax", pointer=pointer, message=str(error))
            return
        for reference in pieces:
            if isinstance(reference, Reference):
                yield from self._reference(reference, pointer, visible)

    def _reference(self, reference: Reference, pointer: str, visible: frozenset[str] | None) -> Iterator[Violation]:
        if reference.root == "input":
            return
        if reference.root == "execution":
            if reference.path != ("id",):
                yield Violation(code="reference.unknown", pointer=pointer, message=f"{reference}: an execution has only an id.")
            return
        if reference.root in self.known and reference.path[:1] != ("result",):
            yield Violation(code="reference.syntax", pointer=pointer, message=f"{reference}: write ${{{reference.root}.result…}}.")
        yield from self.step(reference.root, pointer, visible)

    def step(self, step_id: str, pointer: str, visible: frozenset[str] | None) -> Iterator[Violation]:
        """Faults of naming a step from where `visible` can be seen."""
        if step_id not in self.known:
            yield Violation(code="reference.unknown", pointer=pointer, message=f"There is no step {step_id!r}.")
        elif visible is not None and step_id not in visible:
            yield Violation(
                code="reference.uncertain", pointer=pointer,
                message=f"It is not certain that {step_id!r} has ended well before: add it to `dependencies`"
                " (of a step inside another: refer to the outer one's result).",
            )  # fmt: skip


def _with_children(step: RawStep) -> Iterator[str]:
    """The step, and if it is a `parallel` its children, which have all ended when it has."""
    yield step.id
    for steps in step.lists:
        if steps.role is ListRole.PARALLEL:
            for child in steps.steps:
                yield from _with_children(child)
