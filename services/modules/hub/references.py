"""`${call.result.path}` in the parameters of a coordination's calls. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from services.modules.hub.state import Exchange
from streams.records import Json

_REFERENCE = re.compile(r"\$\{([^{}]+)\}")


def resolved(value: Json, state: Exchange) -> Json:
    """`value` with `${call.result.path}` replaced: a text that is one reference keeps the value's type. Raises `KeyError`."""
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
    call_id, mark, path = reference.partition(".result")
    call = state.calls.get(call_id)
    if call is None or not mark or call.status not in ("succeeded", "compensating", "compensated", "uncompensated"):
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
