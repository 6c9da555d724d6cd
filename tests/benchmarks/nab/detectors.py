"""Ours and its peers: each gives a score per row, told one row at a time, so that none can look ahead."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

from streams.correlation.anomaly import Detector

#: Time (microseconds) and value of the next row → its score.
Observe: TypeAlias = Callable[[int, float], float]


def ours() -> Observe:
    """The detector of the rule type `anomaly`."""
    detector = Detector()
    return lambda time_us, value: detector.observe(time_us, value).score


def windowed_gaussian(window: int = 6400, step: int = 100) -> Observe:
    """The benchmark's own baseline: the tail probability under a normal distribution fitted to all rows so far; once they are
    `window`, to the newest ones, anew every `step` rows.
    """
    recent: list[float] = []
    mean, squares = 0.0, 0.0

    def observe(time_us: int, value: float) -> float:
        nonlocal mean, squares
        count = min(len(recent), window)
        spread = math.sqrt(squares / count) if squares > 0 else 1e-9
        score = 1.0 - 0.5 * math.erfc(abs(value - mean) / spread / math.sqrt(2.0)) if count else 0.0
        recent.append(value)
        if len(recent) <= window:
            before = mean
            mean += (value - mean) / len(recent)
            squares += (value - before) * (value - mean)
        elif len(recent) == window + step:
            del recent[:step]
            mean = math.fsum(recent) / window
            squares = math.fsum((item - mean) ** 2 for item in recent)
        return score

    return observe


def rolling_z_score(window: int = 100) -> Observe:
    """How many standard deviations a value lies from the mean of the last rows: what people write first."""
    recent: deque[float] = deque(maxlen=window)

    def observe(time_us: int, value: float) -> float:
        score = 0.0
        if len(recent) >= 10:
            mean = sum(recent) / len(recent)
            spread = math.sqrt(sum([(item - mean) ** 2 for item in recent]) / len(recent))
            score = abs(value - mean) / (spread + 1e-9 * (1.0 + abs(mean)))
        recent.append(value)
        return score

    return observe


DETECTORS: Mapping[str, Callable[[], Observe]] = {
    "ours": ours, "windowed Gaussian": windowed_gaussian, "rolling z-score": rolling_z_score,
}  # fmt: skip
