"""The score of the Numenta Anomaly Benchmark, by its published formula. Pure.

Source: A. Lavin and S. Ahmad, "Evaluating Real-Time Anomaly Detection Algorithms – the Numenta Anomaly Benchmark" (2015), and the
rules of its reference scorer: the first 15 % of a file (at most 750 rows) are ignored; of a window only the best placed detection
counts, from 1 at its left edge towards 0 at its right one; a detection outside costs by its distance from the window before it; one
threshold holds for all files. The score is 100 · (raw − null) / (perfect − null), where null says nothing and perfect detects every
window at its first row and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: No window is this far ahead: a detection costs all that it can.
_FAR = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a detection in a window earns, one outside costs, and a missed window costs."""

    name: str
    true_positive: float = 1.0
    false_positive: float
    false_negative: float


PROFILES = (
    Profile(name="standard", false_positive=0.11, false_negative=1.0),
    Profile(name="reward_low_FP", false_positive=0.22, false_negative=1.0),
    Profile(name="reward_low_FN", false_positive=0.11, false_negative=2.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The rows of a file that are judged: what each scored, the window it is in (-1: none), and what a detection there is worth."""

    file: str
    scores: Sequence[float]
    windows: Sequence[int]
    worth: Sequence[float]  #: in a window in (0, 1], outside in [-1, 0]; before the profile's weights
    window_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The score of a corpus under one profile and threshold."""

    score: float
    threshold: float
    detected: int  #: windows
    windows: int
    false_positives: int  #: rows


def probation(rows: int) -> int:
    """Rows at the begin of a file that are not judged."""
    return min(int(0.15 * rows), 750)


def sigmoid(position: float) -> float:
    """Near 1 at -1 (the left edge), 0 at 0 (the right edge), -1 far behind."""
    return -1.0 if position > _FAR else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


def place(file: str, scores: Sequence[float], windows: Sequence[tuple[int, int]]) -> Placed:
    """The judged rows of a file; `windows` are the first and last row of each, in their order."""
    begin = probation(len(scores))
    of, worth = [], []
    following = 0
    for row in range(len(scores)):
        while following < len(windows) and row > windows[following][1]:
            following += 1
        if following < len(windows) and row >= windows[following][0]:
            first, last = windows[following]
            of.append(following)
            worth.append(sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(-1.0))
            continue
        of.append(-1)
        if following == 0:
            worth.append(-1.0)
        else:
            first, last = windows[following - 1]
            worth.append(sigmoid((row - last) / max(1, last - first)))
    return Placed(file=file, scores=scores[begin:], windows=of[begin:], worth=worth[begin:], window_count=len(windows))


def judged(files: Sequence[Placed], profile: Profile, threshold: float) -> Result:
    """The score if every row that scores at least `threshold` is a detection."""
    raw, detected, false_positives = 0.0, 0, 0
    for file in files:
        best: dict[int, float] = {}
        for score, window, worth in zip(file.scores, file.windows, file.worth, strict=True):
            if score < threshold:
                continue
            if window < 0:
                raw += worth * profile.false_positive
                false_positives += 1
            elif worth > best.get(window, 0.0):
                best[window] = worth
        raw += sum(best.values()) * profile.true_positive - (file.window_count - len(best)) * profile.false_negative
        detected += len(best)
    windows = sum(file.window_count for file in files)
    return Result(
        score=_normalised(raw, windows, profile), threshold=threshold, detected=detected, windows=windows, false_positives=false_positives
    )


def optimised(files: Sequence[Placed], profile: Profile) -> Result:
    """The score with the threshold, one for all files, that gives the best: what the board of the benchmark shows."""
    rows = [
        (score, number, window, worth)
        for number, file in enumerate(files)
        for score, window, worth in zip(file.scores, file.windows, file.worth, strict=True)
    ]
    rows.sort(key=lambda row: -row[0])
    raw = -profile.false_negative * sum(file.window_count for file in files)
    best: dict[tuple[int, int], float] = {}
    found, threshold = raw, math.inf
    for index, (score, number, window, worth) in enumerate(rows):
        if window < 0:
            raw += worth * profile.false_positive
        else:
            before = best.get((number, window))
            if before is None:
                raw += profile.false_negative + worth * profile.true_positive
                best[number, window] = worth
            elif worth > before:
                raw += (worth - before) * profile.true_positive
                best[number, window] = worth
        if raw > found and (index + 1 == len(rows) or rows[index + 1][0] != score):
            found, threshold = raw, score
    return judged(files, profile, threshold)


def by_category(files: Sequence[Placed], profile: Profile, threshold: float) -> Mapping[str, Result]:
    """`judged` per folder. A folder without windows has no score (NaN), only false positives."""
    folders: dict[str, list[Placed]] = {}
    for file in files:
        folders.setdefault(file.file.split("/")[0], []).append(file)
    return {folder: judged(of, profile, threshold) for folder, of in sorted(folders.items())}


def _normalised(raw: float, windows: int, profile: Profile) -> float:
    null, perfect = -profile.false_negative * windows, profile.true_positive * windows
    return 100.0 * (raw - null) / (perfect - null) if windows else math.nan
