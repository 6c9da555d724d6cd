"""Reads a folder in the layout of the Numenta Anomaly Benchmark."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_LABELS = ("combined_windows.json", "labels/combined_windows.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One file: its rows, and the first and last row of each labelled window."""

    file: str  #: `<category>/<name>.csv`
    times_us: Sequence[int]
    values: Sequence[float]
    windows: Sequence[tuple[int, int]]


def read(folder: Path) -> list[Series]:
    """All series of `data/<category>/*.csv` that the labels name. Raises `ValueError` if the folder is not laid out so."""
    labels = next((folder / name for name in _LABELS if (folder / name).is_file()), None)
    if labels is None:
        raise ValueError(f"{folder} has no {' or '.join(_LABELS)}")
    windows = json.loads(labels.read_text())
    files = {file.relative_to(folder / "data").as_posix(): file for file in sorted((folder / "data").glob("*/*.csv"))}
    if not files:
        raise ValueError(f"{folder} has no data/<category>/*.csv")
    unlabelled = files.keys() - windows.keys()
    if unlabelled:
        raise ValueError(f"{labels} says nothing about {', '.join(sorted(unlabelled))}")
    return [_series(name, path, windows[name]) for name, path in files.items()]


def _series(name: str, path: Path, windows: Sequence[tuple[str, str]]) -> Series:
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    times = [_micros(row["timestamp"]) for row in rows]
    spans = []
    for begin, end in windows:
        inside = [row for row, time in enumerate(times) if _micros(begin) <= time <= _micros(end)]
        if not inside:
            raise ValueError(f"{name} has no row in its window from {begin} to {end}")
        spans.append((inside[0], inside[-1]))
    return Series(file=name, times_us=times, values=[float(row["value"]) for row in rows], windows=spans)


def _micros(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)
