"""The name that was probably meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def nearest(name: str, names: Collection[str], sentence: str) -> str | None:
    """`sentence` with the name of `names` that looks most like `name`, upper and lower case aside; None if none does."""
    by_lower = {known.lower(): known for known in sorted(names)}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return sentence.format(by_lower[found[0]]) if found else None
