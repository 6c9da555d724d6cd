"""`${call.result.path}` in the parameters of a coordination's calls. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import orjson

from services.modules.hub.state import Call, Exchange
from streams.records import Json

#: Between a call and the path into its result.
_RESULT = ".result"
_REFERENCE = re.compile(r"\$\{([^{}]+)\}")


def resolved(value: Json, state: Exchange) -> Json:
    """`value` with `${call.result.path}` replaced: a text that is one reference keeps the value's type. Raises `KeyError`.

    A message (`send`) has nothing to refer to: it is sent as it is.
    """
    if state.kind == "send":
        return value
    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value)
        if whole is not None:
            return _found(whole.group(1), state)
        return _REFERENCE.sub(lambda match: _text(_found(match.group(1), state)), value)
    if isinstance(value, list):
        return [resolved(each, state) for each in value]
    if isinstance(value, Mapping):
        return {name: resolved(each, state) for name, each in value.items()}
    return value


def _text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _found(reference: str, state: Exchange) -> Json:
    call_id, mark, path = reference.partition(_RESULT)
    call = state.calls.get(call_id)
    if (
        call is None
        or not mark
        or call.status not in ("succeeded", "compensating", "compensation_retrying", "compensated", "uncompensated")
    ):
        raise KeyError(reference)
    here = call.result
    for part in (each for each in re.split(r"[.\[\]]", path) if each):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, list) and part.isdecimal() and int(part) < len(here):
            here = here[int(part)]
        else:
            raise KeyError(reference)
    return here


def lost_references(calls: Sequence[Call]) -> Iterator[tuple[str, str]]:
    """Faults of a coordination's references, each with its pointer: to no call, or to one that need not have ended before.

    What undoes a call may refer to any call: those that are not undone have ended.
    """
    by_id = {call.call_id: call for call in calls}
    for index, call in enumerate(calls):
        before: set[str] = set()
        left = list(call.depends_on)
        while left:
            name = left.pop()
            if name not in before:
                before.add(name)
                left += by_id[name].depends_on
        for reference, pointer in _references(call.parameters, f"/calls/{index}/parameters"):
            name = reference.partition(_RESULT)[0]
            if name not in by_id:
                yield f"There is no call {name!r} to which ${{{reference}}} could refer.", pointer
            elif name not in before:
                yield f"{call.call_id} refers to {name}, which need not have ended before: name it in dependsOn.", pointer
        for reference, pointer in _references(call.undo_parameters, f"/calls/{index}/compensate/parameters"):
            name = reference.partition(_RESULT)[0]
            if name not in by_id:
                yield f"There is no call {name!r} to which ${{{reference}}} could refer.", pointer


def _references(value: Json, pointer: str) -> Iterator[tuple[str, str]]:
    """References in `value`, each with the pointer of the text that holds it."""
    if isinstance(value, str):
        yield from ((found, pointer) for found in _REFERENCE.findall(value))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _references(each, f"{pointer}/{index}")
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _references(each, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
