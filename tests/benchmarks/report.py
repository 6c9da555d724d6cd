"""How a benchmark tells what it found: a readable line, and one JSON line in `docs/benchmarks/results.jsonl`.

Every figure is measured with its peer in the same run, on the same machine, on the same work; the ratio is what counts.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks" / "results.jsonl"


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and mean of a sample, rounded to microseconds when in milliseconds."""
    return {"p50": round(percentile(values, 50), 3), "p99": round(percentile(values, 99), 3), "mean": round(statistics.fmean(values), 3)}


def report(name: str, work: str, figures: dict[str, Any], *, bar: str, durability: str) -> None:
    """Prints the figures and appends them to the results. `work` is what was done, `bar` what 4-quality asks for."""
    line = {
        "name": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "work": work,
        "durability": durability,
        "bar": bar,
        "figures": figures,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as results:
        results.write(json.dumps(line) + "\n")
    sys.stdout.write(f"{name}: {work}\n  bar: {bar}\n")
    for key, value in figures.items():
        sys.stdout.write(f"  {key}: {value}\n")
    sys.stdout.flush()
