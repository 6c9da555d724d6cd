"""What owners hold, put together: of partitions for their process, of processes for the product. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

#: Of this figure the greatest counts; all others are added.
OVERDUE_MS = "overdue_ms"


def in_sum(parts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The figures of `PartitionRunner.figures`, of many; what is no whole number is left out."""
    found = Counter[str]()
    overdue_ms = 0
    for part in parts:
        figures = {name: value for name, value in part.items() if isinstance(value, int)}
        overdue_ms = max(overdue_ms, figures.pop(OVERDUE_MS, 0))
        found.update(figures)
    return {**found, OVERDUE_MS: overdue_ms}
