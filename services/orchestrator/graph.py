"""A definition drawn: as Mermaid (for Markdown) or DOT (for Graphviz)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from services.orchestrator.definition import Definition, Foreach, ListRole, Loop, ModuleOperation, Step, StepList, lists_of
from services.orchestrator.state import split_instance

GraphFormat: TypeAlias = Literal["mermaid", "dot"]

#: Words on the edge from a step to a list that belongs to it.
_ROLE_LABELS = {ListRole.THEN: "then", ListRole.ELSE: "else", ListRole.FALLBACK: "fallback", ListRole.COMPENSATION: "compensation"}


#: Colour of a step by its status.
_COLOURS = {
    "completed": "#b7e1b0", "failed": "#f4a6a0", "timed_out": "#f4a6a0", "cancelled": "#d9d9d9", "skipped": "#eeeeee",
    "running": "#a9cdf0", "waiting": "#ffe08a", "scheduled": "#fff3cd", "pending": "#ffffff",
}  # fmt: skip
#: Of many turns the status that says most.
_LOUDEST = ("failed", "timed_out", "waiting", "running", "scheduled", "pending", "cancelled", "completed", "skipped")


def draw(definition: Definition, format: GraphFormat, statuses: Mapping[str, str] | None = None) -> str:
    """The definition's steps and dependencies as a graph; what a `parallel`, `foreach` or `loop` contains stands in a box.

    `statuses`: of an execution, by instance; steps are coloured by them (Mermaid: a class named as the status).
    """
    drawing: type[_Drawing] = _Mermaid if format == "mermaid" else _Dot
    return "\n".join(drawing(definition, None if statuses is None else _by_step(statuses)).lines())


def _by_step(statuses: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for instance, status in statuses.items():
        name = split_instance(instance)[0]
        found[name] = min(found.get(name, status), status, key=_LOUDEST.index)
    return found


def _label(step: Step) -> str:
    action = step.action
    what = f"{action.module}.{action.operation}" if isinstance(action, ModuleOperation) else step.type
    return f"{step.id}\n{what}"


def _box_label(step: Step) -> str:
    """The words on the box around the steps inside a step: how often they run."""
    match step.action:
        case Foreach(variable=variable):
            return f"{step.id}: for each {variable}"
        case Loop(condition=condition):
            return f"{step.id}: while {condition.text}"
        case _:
            return step.id


class _Drawing(ABC):
    """Walks the definition; the subclasses know a language."""

    def __init__(self, definition: Definition, statuses: Mapping[str, str] | None) -> None:
        self.definition = definition
        self.statuses = statuses
        self.names = {step_id: f"s{number}" for number, step_id in enumerate(definition.places)}

    def lines(self) -> Iterator[str]:
        yield self.head()
        yield from (f"  {line}" for line in self.drawn(self.definition.steps))
        yield from self.tail()

    def drawn(self, steps: StepList) -> Iterator[str]:
        for step in steps.steps:
            yield from self.step(step)
        for step in steps.steps:
            for dependency in step.dependencies:
                yield self.edge(self.names[dependency], self.names[step.id], "")

    def step(self, step: Step) -> Iterator[str]:
        status = None if self.statuses is None else self.statuses.get(step.id, "pending")
        yield self.node(self.names[step.id], _label(step), status)
        for inner in lists_of(step):
            if inner.role in (ListRole.PARALLEL, ListRole.TURN):
                yield from self.box(self.names[step.id], _box_label(step), list(self.drawn(inner)))
                for child in inner.steps:
                    if not child.dependencies:
                        yield self.edge(self.names[step.id], self.names[child.id], "")
            else:
                yield from self.drawn(inner)
                yield self.edge(self.names[step.id], self.names[inner.steps[0].id], _ROLE_LABELS[inner.role])

    @abstractmethod
    def head(self) -> str: ...

    def tail(self) -> Iterator[str]:
        yield from ()

    @abstractmethod
    def node(self, name: str, label: str, status: str | None) -> str: ...

    @abstractmethod
    def edge(self, start: str, end: str, label: str) -> str: ...

    @abstractmethod
    def box(self, name: str, label: str, lines: list[str]) -> Iterator[str]: ...


class _Mermaid(_Drawing):
    def head(self) -> str:
        return "flowchart TD"

    def tail(self) -> Iterator[str]:
        used = set() if self.statuses is None else {*self.statuses.values(), "pending"}
        yield from (f"  classDef {status} fill:{_COLOURS[status]},color:#000" for status in _LOUDEST if status in used)

    def node(self, name: str, label: str, status: str | None) -> str:
        text = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\n", "<br/>")
        return f'{name}["{text}"]' + (f":::{status}" if status else "")

    def edge(self, start: str, end: str, label: str) -> str:
        return (
            f"{start} -. {label} .-> {end}"
            if label in ("fallback", "compensation")
            else f"{start} -->{f'|{label}|' if label else ''} {end}"
        )

    def box(self, name: str, label: str, lines: list[str]) -> Iterator[str]:
        yield f'subgraph {name}_box["{label}"]'
        yield from (f"  {line}" for line in lines)
        yield "end"


class _Dot(_Drawing):
    def head(self) -> str:
        return f"digraph {_quoted(self.definition.id)} {{\n  node [shape=box];"

    def tail(self) -> Iterator[str]:
        yield "}"

    def node(self, name: str, label: str, status: str | None) -> str:
        colour = f', style=filled, fillcolor="{_COLOURS[status]}", tooltip={status}' if status else ""
        return f"{name} [label={_quoted(label)}{colour}];"

    def edge(self, start: str, end: str, label: str) -> str:
        dashed = ["style=dashed"] if label in ("fallback", "compensation") else []
        attributes = ", ".join([f"label={_quoted(label)}", *dashed] if label else dashed)
        return f"{start} -> {end}{f' [{attributes}]' if attributes else ''};"

    def box(self, name: str, label: str, lines: list[str]) -> Iterator[str]:
        yield f"subgraph cluster_{name} {{"
        yield f"  label={_quoted(label)};"
        yield from (f"  {line}" for line in lines)
        yield "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
