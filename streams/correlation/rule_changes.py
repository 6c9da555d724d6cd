"""Changes of rules: `streams.control.changes`, for rules. Pure."""

from __future__ import annotations

from functools import partial

from streams.control import changes
from streams.control.changes import VERSION_MARK, Change, Stock, Stored, Version, canonical, in_order, planned, text_of, versions
from streams.control.kinds import RULES

SOURCE = RULES.source

applied = partial(changes.applied, RULES)
deleted = partial(changes.deleted, RULES)
disabled = partial(changes.disabled, RULES)

__all__ = [
    "SOURCE", "VERSION_MARK", "Change", "Stock", "Stored", "Version", "applied", "canonical", "deleted", "disabled", "in_order", "planned",
    "text_of", "versions",
]  # fmt: skip
