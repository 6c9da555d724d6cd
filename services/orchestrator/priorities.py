"""Priorities of steps: a number, or a word for one."""

from __future__ import annotations

#: The words of MPLP for priorities, and the numbers that they stand for.
WORDS = {"low": -10, "normal": 0, "medium": 0, "high": 10, "urgent": 20, "critical": 30}


def priority_of(given: int | str) -> int:
    """The number that a checked priority means."""
    return WORDS[given] if isinstance(given, str) else int(given)
