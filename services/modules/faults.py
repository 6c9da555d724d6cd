"""What is wrong with parameters, as pydantic found it, in the product's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from services.modules.operation import Misfit, Refusal
from streams.errors import Violation

#: Faults that an answer names; there may be one per element of a long list.
FAULTS_MAX = 20
#: Faults that its message tells.
FAULTS_SHOWN = 3
#: End of the fault of a parameter that there is not.
_UNKNOWN = " is not a parameter."

#: pydantic's types of the fault "this is no text, no object": said of each member of a union that a value does not fit.
_WRONG_KIND = frozenset({"string_type", "model_type", "dict_type", "model_attributes_type"})


def refusal_of(error: ValidationError, given: Any, known: Sequence[str] = ()) -> Refusal:
    """The refusal `invalid` of the parameters `given`: faults (at most `FAULTS_MAX`) with the JSON pointer of the smallest wrong value.

    What is missing is said of the object that lacks it. `known`: which parameters there are.
    """
    found = [
        (each["type"], _pointer((*each["loc"], *_below(each.get("ctx"))), given), _sentence(each["type"], each["loc"], each["msg"]))
        for each in error.errors(include_url=False, include_input=False)
    ]
    telling = {pointer for kind, pointer, _ in found if kind not in _WRONG_KIND}
    faults: dict[tuple[str, str], Violation] = {}
    for kind, pointer, message in found:
        if kind in _WRONG_KIND and (_has_more(pointer, telling) or any(key[0] == pointer for key in faults)):
            continue  # a value that fits one member of a union better is not told about the others
        faults[pointer, message] = Violation(code="invalid", pointer=pointer, message=message)
    kept = tuple(faults.values())[:FAULTS_MAX]
    return Refusal(code="invalid", message=_told(list(faults.values()), known), pointer=kept[0].pointer, faults=kept)


def _below(context: Mapping[str, Any] | None) -> tuple[int | str, ...]:
    """Where, below pydantic's location, the fault lies that a model found itself."""
    cause = (context or {}).get("error")
    return cause.location if isinstance(cause, Misfit) else ()


def _told(faults: Sequence[Violation], known: Sequence[str]) -> str:
    """The first faults in a sentence, and which parameters there are if one was given that there is not."""
    shown = [f"{each.message.rstrip('.')}{f' (at {each.pointer})' if each.pointer else ''}" for each in faults[:FAULTS_SHOWN]]
    left = len(faults) - len(shown)
    more = f" There {'is one more fault' if left == 1 else f'are {left} more faults'}." if left else ""
    unknown = known and any(each.message.endswith(_UNKNOWN) and each.pointer.count("/") == 1 for each in faults)
    names = f" The parameters are {', '.join(known)}." if unknown else ""
    return f"{'; '.join(shown)}.{more}{names}"


def _has_more(pointer: str, telling: Iterable[str]) -> bool:
    return any(other == pointer or other.startswith(f"{pointer}/") for other in telling)


def _sentence(kind: str, location: Sequence[int | str], message: str) -> str:
    if kind == "missing":
        return f"{location[-1]} is missing."
    if kind == "extra_forbidden":
        return f"{location[-1]}{_UNKNOWN}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "This should be an object."
    return f"{message.removeprefix('Value error, ').rstrip('.')}."


def _pointer(location: Sequence[int | str], given: Any) -> str:
    """The JSON pointer of the part of `given` at pydantic's `location`, which also names members of unions: those are left out."""
    parts: list[int | str] = []
    here = given
    for part in location:
        if isinstance(part, int):
            if isinstance(here, list) and part < len(here):
                here = here[part]
                parts.append(part)
        elif isinstance(here, dict):
            name = part if part in here else to_snake(part)
            if name in here:
                here = here[name]
                parts.append(name)
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)
