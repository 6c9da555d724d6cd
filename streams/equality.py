"""When two JSON values are the same. Pure."""

from __future__ import annotations

from streams.records import Json


def equal(left: Json, right: Json) -> bool:
    """Whether two JSON values are the same: `1` is `1.0`, `0` is not `false`."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(item, right[key]) for key, item in left.items())
    return bool(left == right)
