"""What the steps of a route make of a record. Pure.

A draft is the record's fields by name, `data` parsed and `time` an instant. No step changes what it was given: containers on the way to
what changes are copied, everything else is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, assert_never

from streams import limits
from streams.correlation.templates import json_of
from streams.matching.expressions import Expression, ExpressionFailed, compiled
from streams.matching.paths import MISSING, Path
from streams.routing.parse import SETTABLE
from streams.routing.routes import DropFields, MapFields, RenameFields, SetFields, Transform

Draft: TypeAlias = dict[str, Any]
Step: TypeAlias = Callable[[Mapping[str, Any]], Draft]

#: What a field becomes that is dropped.
_DEFAULTS: Mapping[str, Any] = {"source": "", "subject": "", "tenant": "default", "correlation_id": "", "severity": "info"}
_TEXTS = frozenset({"type", "source", "subject", "tenant", "correlation_id", "severity"})


class TransformFailed(Exception):
    """A step has no result for this record. `code` is stable, `at` says which step."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def step_of(transform: Transform) -> Step:
    """The function that a transform is. It raises `TransformFailed`."""
    match transform:
        case SetFields(values=values):
            expressions = tuple((path, compiled(text, numbers_alike=True)) for path, text in values)
            return lambda record: _set(record, expressions)
        case RenameFields(pairs=pairs):
            return lambda record: _rename(record, pairs)
        case DropFields(paths=paths):
            return lambda record: _drop(record, paths)
        case MapFields(expression=text):
            expression = compiled(text, numbers_alike=True)
            return lambda record: _map(record, expression)
        case _:
            assert_never(transform)


def steps_of(transforms: Sequence[Transform]) -> tuple[Step, ...]:
    """The functions that transforms are, one after the other. What only changes names of the payload is one: it copies the payload once."""
    steps = tuple(map(step_of, transforms))
    changes = [_in_payload(transform) for transform in transforms]
    if len(steps) < 2 or None in changes:
        return steps

    def together(record: Mapping[str, Any]) -> Draft:
        draft = dict(record)
        if type(draft["data"]) is not dict:
            for step in steps:
                draft = step(draft)
            return draft
        draft["data"] = inside = dict(draft["data"])
        for change in changes:
            change(draft, inside)  # type: ignore[misc]  # none is None
        return draft

    return (together,)


def _in_payload(transform: Transform) -> Callable[[Draft, Draft], None] | None:
    """What a transform does to a draft whose payload is an object that belongs to it; None: it changes more than names of the payload."""
    match transform:
        case SetFields(values=values) if (names := _names([path for path, _ in values])) is not None:
            wanted = [(name, compiled(text, numbers_alike=True)) for name, (_, text) in zip(names, values, strict=True)]

            def set_names(draft: Draft, inside: Draft) -> None:
                found = [(name, value_of(expression, draft)) for name, expression in wanted]  # all see what was before
                inside.update(found)

            return set_names
        case RenameFields(pairs=pairs) if (names := _names([path for pair in pairs for path in pair])) is not None:
            renamed = list(zip(names[::2], names[1::2], strict=True))

            def rename(_: Draft, inside: Draft) -> None:
                moved = [(target, inside[name]) for name, target in renamed if name in inside]
                for name, _target in renamed:
                    inside.pop(name, None)
                inside.update(moved)

            return rename
        case DropFields(paths=paths) if (names := _names(paths)) is not None:

            def drop(_: Draft, inside: Draft) -> None:
                for name in names:
                    inside.pop(name, None)

            return drop
        case _:
            return None


def _names(paths: Sequence[Path]) -> list[str] | None:
    """The names in the payload at which paths lead; None: not all do."""
    names = [path.child for path in paths if path.root == "data" and path.child is not None]
    return names if len(names) == len(paths) else None


def value_of(expression: Expression, record: Mapping[str, Any]) -> Any:
    """The value of an expression over a record, as JSON. Raises `TransformFailed` (`expression.failed`)."""
    try:
        return json_of(expression.evaluate(record), expression.text)
    except ExpressionFailed as error:
        raise TransformFailed("expression.failed", str(error)) from error


def _set(record: Mapping[str, Any], expressions: Sequence[tuple[Path, Expression]]) -> Draft:
    values = [(path, value_of(expression, record)) for path, expression in expressions]
    draft = dict(record)
    owned: Draft | None = None
    for path, value in values:
        if (inside := _owned(draft, path, owned)) is not None:
            owned = inside
            inside[path.child] = value  # type: ignore[index]  # it has one
        else:
            _put(draft, path, value)
    return draft


def _rename(record: Mapping[str, Any], pairs: Sequence[tuple[Path, Path]]) -> Draft:
    moved = [(source, target, value) for source, target in pairs if (value := _at(record, source)) is not MISSING]
    draft = dict(record)
    owned: Draft | None = None
    for source, _, _ in moved:
        if (inside := _owned(draft, source, owned)) is not None:
            owned = inside
            inside.pop(source.child, None)  # type: ignore[arg-type]
        else:
            _take(draft, source)
    for _, target, value in moved:
        if (inside := _owned(draft, target, owned)) is not None:
            owned = inside
            inside[target.child] = value  # type: ignore[index]
        else:
            _put(draft, target, value)
    return draft


def _drop(record: Mapping[str, Any], paths: Sequence[Path]) -> Draft:
    draft = dict(record)
    owned: Draft | None = None
    for path in paths:
        if (inside := _owned(draft, path, owned)) is not None:
            owned = inside
            inside.pop(path.child, None)  # type: ignore[arg-type]
        elif _at(draft, path) is not MISSING:
            _take(draft, path)
    return draft


def _owned(draft: Draft, path: Path, owned: Draft | None) -> Draft | None:
    """The object in which a path of two names ends, a copy that belongs to the draft: most paths are so, and one copy serves them all.

    None: it is another path, or there is no object.
    """
    if path.child is None:
        return None
    inside = draft.get(path.root)
    if inside is not owned or inside is None:
        if type(inside) is not dict:
            return None
        inside = draft[path.root] = dict(inside)
    return inside


def _map(record: Mapping[str, Any], expression: Expression) -> Draft:
    found = value_of(expression, record)
    if not isinstance(found, dict):
        raise TransformFailed("transform.not-object", f"{expression.text}: map gives an object, not {_named(found)}.")
    for name, value in found.items():
        if name not in SETTABLE:
            raise TransformFailed("transform.field-refused", f"map cannot give {name[:60]}; it can {', '.join(sorted(SETTABLE))}.")
        _check_root(name, value)
    return {**record, **found}


def _at(record: Mapping[str, Any], path: Path) -> Any:
    """What lies at a path, null included; `MISSING` if it does not exist."""
    value = record.get(path.root, MISSING)
    if path.child is not None:  # most are so
        return value.get(path.child, MISSING) if type(value) is dict else MISSING
    for step in path.steps:
        if isinstance(step, str):
            value = value.get(step, MISSING) if isinstance(value, dict) else MISSING
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else MISSING
    return value


def _put(draft: Draft, path: Path, value: Any) -> None:
    if not path.steps:
        _check_root(path.root, value)
        draft[path.root] = value
        return
    draft[path.root] = _with(draft.get(path.root), path, 0, value)


def _with(container: Any, path: Path, depth: int, value: Any) -> Any:
    """The container with a value at what is left of the path. Objects that are missing are made, elements of lists are not."""
    if depth == len(path.steps):
        return value
    step = path.steps[depth]
    if isinstance(step, str):
        if container is not None and not isinstance(container, dict):
            raise TransformFailed("transform.not-object", f"{path.text}: {step} would lie in {_named(container)}.")
        inside = container or {}
        return {**inside, step: _with(inside.get(step), path, depth + 1, value)}
    if not isinstance(container, list) or step > len(container):
        raise TransformFailed("transform.not-list", f"{path.text}: there is no list with a place {step}.")
    listed = list(container)
    made = _with(listed[step] if step < len(listed) else None, path, depth + 1, value)
    return [*listed[:step], made, *listed[step + 1 :]]


def _take(draft: Draft, path: Path) -> None:
    """Takes away what exists there."""
    if not path.steps:
        draft[path.root] = {} if path.root == "data" else _DEFAULTS[path.root]
        return
    draft[path.root] = _without(draft[path.root], path.steps)


def _without(container: Any, steps: Sequence[str | int]) -> Any:
    step, *rest = steps
    if isinstance(container, dict):
        if rest and step in container:
            return {**container, step: _without(container[step], rest)}
        return {name: value for name, value in container.items() if name != step}
    if isinstance(container, list) and isinstance(step, int) and step < len(container):
        if rest:
            return [*container[:step], _without(container[step], rest), *container[step + 1 :]]
        return [*container[:step], *container[step + 1 :]]
    return container  # an earlier path of the same step took it


def _check_root(name: str, value: Any) -> None:
    if name in _TEXTS and not isinstance(value, str):
        raise TransformFailed("transform.type", f"{name} is a text, not {_named(value)}.")
    if name in ("type", "source", "subject") and len(value) > limits.NAME_CHARACTERS_MAX:
        raise TransformFailed("transform.type", f"{name} has more than {limits.NAME_CHARACTERS_MAX} characters.")


def _named(value: Any) -> str:
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)
