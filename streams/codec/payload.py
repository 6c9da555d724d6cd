"""The open payload of a record: a JSON value in Python, JSON text on the wire; what no other JSON parser would read is refused (pure)."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from streams import limits
from streams.errors import InvalidInput, TooLarge
from streams.nesting import children, depth

# Times and dataclasses would come back as something else than what was put in: a decision that reads them would not repeat.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


#: Knows a number that JSON has not, in one go in C.
_STRICT = json.JSONEncoder(allow_nan=False, check_circular=False)


def payload_text(value: Any) -> str:
    """The JSON text of a payload.

    Raises `TooLarge` (`payload.too-large`), `InvalidInput` (`payload.too-deep`), and ValueError or TypeError for what JSON has not:
    NaN, infinities, whole numbers beyond 64 bits, half surrogates, keys that are no text, objects.
    """
    raw = orjson.dumps(value, option=_OPTIONS)
    if len(raw) > limits.PAYLOAD_BYTES_MAX:
        raise TooLarge("payload.too-large", f"A payload of {len(raw)} bytes is larger than {limits.PAYLOAD_BYTES_MAX}.", pointer="/data")
    # Both tests are a guess that is quick and never wrong in its no; only then the value is walked.
    if b"null" in raw and _has_no_number(value):
        raise ValueError("JSON has neither NaN nor infinities")
    if raw.count(b"[") + raw.count(b"{") > limits.PAYLOAD_DEPTH_MAX and depth(value) > limits.PAYLOAD_DEPTH_MAX:
        raise InvalidInput("payload.too-deep", f"A payload is nested deeper than {limits.PAYLOAD_DEPTH_MAX}.", pointer="/data")
    return raw.decode()


def _has_no_number(value: Any) -> bool:
    """Whether a NaN or an infinity is in it; orjson writes them as null."""
    try:
        _STRICT.encode(value)
        return False
    except ValueError:
        return True
    except TypeError:
        return _has_no_number_walked(value)  # something that orjson writes and `json` does not


def _has_no_number_walked(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return True
        waiting.extend(children(item))
    return False
