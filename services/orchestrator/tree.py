"""The steps of a document as a tree, whatever is wrong with it: what the checks walk over before anything is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from services.orchestrator.definition import ListRole
from services.orchestrator.schema import pointer_of

Path: TypeAlias = tuple[str | int, ...]

#: Fields of a `conditional` that hold its branches.
THEN, ELSE = ("then", "thenStep"), ("else", "elseStep")
#: What the item of a `foreach` is called if nothing else is said.
ITEM = "item"
#: Step types whose steps run inside them.
CONTAINERS = frozenset({"parallel", "conditional", "foreach", "loop"})


@dataclass(slots=True, eq=False)
class RawStep:
    """A step as it stands in the document."""

    id: str  #: as given, or derived from its owner's where it may be left out
    value: dict[str, Any]
    path: Path
    around: RawList
    lists: list[RawList] = field(default_factory=list)  #: the lists that belong to it

    @property
    def type(self) -> str:
        """The step's type, empty if it has none."""
        found = self.value.get("type")
        return found if isinstance(found, str) else ""

    def dependencies(self) -> Iterator[tuple[int, str]]:
        """The step's dependencies that are texts, with their places in the list."""
        given = self.value.get("dependencies")
        if isinstance(given, list):
            yield from ((place, name) for place, name in enumerate(given) if isinstance(name, str))

    def at(self, *keys: str | int) -> str:
        """JSON pointer of a value below the step."""
        return pointer_of((*self.path, *keys))


@dataclass(slots=True, eq=False)
class RawList:
    """A list of steps, or the single step of a branch, fallback or compensation."""

    role: ListRole
    path: Path
    owner: RawStep | None
    depth: int
    steps: list[RawStep] = field(default_factory=list)

    def by_id(self) -> dict[str, RawStep]:
        """The list's steps by id; of a duplicate the first."""
        found: dict[str, RawStep] = {}
        for step in self.steps:
            found.setdefault(step.id, step)
        return found


def read_tree(workflow: dict[str, Any], path: Path) -> RawList:
    """The tree of a workflow's steps."""
    top = RawList(role=ListRole.WORKFLOW, path=(*path, "steps"), owner=None, depth=0)
    _fill(top, workflow.get("steps"))
    return top


def read_single(value: Any, path: Path, owner: RawStep | None, role: ListRole, name: str) -> RawList:
    """The list that holds the one step `value`; `name` is its id if it has none."""
    single = RawList(role=role, path=path, owner=owner, depth=owner.around.depth if owner else 0)
    if isinstance(value, dict):
        single.steps.append(_read_step(value, path, single, name))
    return single


def walk(steps: RawList) -> Iterator[RawStep]:
    """All steps of a list at any depth, in the order of the document's structure."""
    for step in steps.steps:
        yield step
        for inner in step.lists:
            yield from walk(inner)


def turn_names(steps: RawList) -> frozenset[str]:
    """The names that the turns around a list give to its steps: an item's and `index`, or `iteration`."""
    names: set[str] = set()
    around: RawList | None = steps
    while around is not None:
        owner = around.owner
        if owner is not None and around.role is ListRole.TURN:
            variable = owner.value.get("as", ITEM)
            names |= {"iteration"} if owner.type == "loop" else {"index", variable if isinstance(variable, str) else ITEM}
        around = None if owner is None else owner.around
    return frozenset(names)


def lists_in(steps: RawList) -> Iterator[RawList]:
    """The list itself and all lists below it."""
    yield steps
    for step in steps.steps:
        for inner in step.lists:
            yield from lists_in(inner)


def _fill(steps: RawList, values: Any) -> None:
    if isinstance(values, list):
        for place, value in enumerate(values):
            if isinstance(value, dict):
                steps.steps.append(_read_step(value, (*steps.path, place), steps, ""))


def _read_step(value: dict[str, Any], path: Path, around: RawList, name: str) -> RawStep:
    given = value.get("id")
    step = RawStep(id=given if isinstance(given, str) else name, value=value, path=path, around=around)
    if step.type in ("parallel", "foreach", "loop"):
        role, turns = (ListRole.PARALLEL, 0) if step.type == "parallel" else (ListRole.TURN, 1)
        children = RawList(role=role, path=(*path, "steps"), owner=step, depth=around.depth + turns)
        step.lists.append(children)
        _fill(children, value.get("steps"))
    if step.type == "conditional":
        for names, role in ((THEN, ListRole.THEN), (ELSE, ListRole.ELSE)):
            for key in names:
                if key in value:
                    step.lists.append(read_single(value[key], (*path, key), step, role, ""))
    for place, fallback in fallbacks_of(value):
        if "step" in fallback:
            inner = (*path, "error-handling", "fallback-actions", place, "step")
            step.lists.append(read_single(fallback["step"], inner, step, ListRole.FALLBACK, fallback_name(step.id, place)))
    if "compensation" in value:
        inner = (*path, "compensation")
        step.lists.append(read_single(value["compensation"], inner, step, ListRole.COMPENSATION, compensation_name(step.id)))
    return step


def fallbacks_of(value: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The fallback actions of a workflow or step that are objects, with their places."""
    handling = value.get("error-handling")
    given = handling.get("fallback-actions") if isinstance(handling, dict) else None
    if isinstance(given, list):
        yield from ((place, fallback) for place, fallback in enumerate(given) if isinstance(fallback, dict))


def fallback_name(owner: str, place: int) -> str:
    """Id of a fallback's step that has none. `~` cannot stand in an id that was given."""
    return f"{owner}~fallback-{place}"


def compensation_name(owner: str) -> str:
    """Id of a compensation that has none."""
    return f"{owner}~compensation"
