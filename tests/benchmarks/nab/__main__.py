"""`python -m tests.benchmarks.nab FOLDER` (`make bench-nab DATA=FOLDER`): the rule type `anomaly` on the Numenta Anomaly Benchmark.

FOLDER is laid out as the benchmark's repository: `data/<category>/*.csv` and `labels/combined_windows.json` (or the same file at its
top). Ours and its peers score the same rows in the same run. Two figures each: with the threshold that suits this corpus best, for
each profile its own, as the benchmark's board has it; and, for ours, with the threshold that rules have by default.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams.correlation.rules import THRESHOLD_DEFAULT
from tests.benchmarks.nab.corpus import Series, read
from tests.benchmarks.nab.detectors import DETECTORS, Observe
from tests.benchmarks.nab.scoring import PROFILES, Placed, Result, by_category, judged, optimised, place
from tests.benchmarks.report import report

#: Our settings were chosen on files of these categories and frozen. The others tell how they generalise.
CHOSEN_ON = frozenset({"artificialNoAnomaly", "artificialWithAnomaly", "realAWSCloudwatch"})
#: The best score on the benchmark's board of a detector that is not told the least and greatest value of the file beforehand.
PUBLISHED = 58.2


def scored(observe: Observe, series: Series, rows: int | None = None) -> list[float]:
    return [observe(time_us, value) for time_us, value in zip(series.times_us[:rows], series.values[:rows], strict=True)]


def looks_ahead(name: str, series: Series, scores: Sequence[float]) -> bool:
    """Whether the rows of the first half score otherwise when the second half is not there."""
    half = len(scores) // 2
    return scored(DETECTORS[name](), series, half) != list(scores[:half])


def measure(name: str, corpus: Sequence[Series]) -> tuple[list[Placed], dict[str, Any]]:
    started = time.process_time()
    scores = [scored(DETECTORS[name](), series) for series in corpus]
    spent = time.process_time() - started
    ahead = sum(looks_ahead(name, series, of) for series, of in zip(corpus, scores, strict=True))
    rows = sum(len(of) for of in scores)
    placed = [place(series.file, of, series.windows) for series, of in zip(corpus, scores, strict=True)]
    return placed, {"rows_per_s": round(rows / spent), "files_with_look_ahead": ahead}


def text(result: Result) -> str:
    score = "      -" if math.isnan(result.score) else f"{result.score:7.2f}"
    seen = f"{result.detected:3} of {result.windows:3} windows, {result.false_positives:4} false rows"
    return f"{score}  ({seen}, from {result.threshold:.6g} on)"


def tell(name: str, placed: Sequence[Placed], told: dict[str, Any]) -> dict[str, Any]:
    """Prints what a detector reaches, and gives it as figures."""
    figures: dict[str, Any] = dict(told)
    print(f"\n{name}: {told['rows_per_s']:,} rows/s; look-ahead: {told['files_with_look_ahead'] or 'none'}")
    for profile in PROFILES:
        best = optimised(placed, profile)
        figures[profile.name] = round(best.score, 2)
        print(f"  {profile.name:14} best threshold     {text(best)}")
        if name != "ours":
            continue
        frozen = judged(placed, profile, math.nextafter(THRESHOLD_DEFAULT, 1.0))
        figures[f"{profile.name}, default threshold"] = round(frozen.score, 2)
        print(f"  {'':14} default threshold  {text(frozen)}")
        if profile is PROFILES[0]:
            figures["categories"] = categories(placed, best.threshold)
    if name == "ours":
        figures["parts"] = parts(placed)
    return figures


def categories(placed: Sequence[Placed], threshold: float) -> dict[str, float | None]:
    found = {}
    for category, result in by_category(placed, PROFILES[0], threshold).items():
        found[category] = None if math.isnan(result.score) else round(result.score, 2)
        print(f"    {category:24}       {text(result)}")
    return found


def parts(placed: Sequence[Placed]) -> dict[str, dict[str, float]]:
    """The files on which our settings were chosen, and the others: each with its best threshold, and the default one."""
    found = {}
    for label, chosen in (("settings chosen here", True), ("never looked at", False)):
        of = [file for file in placed if (file.file.split("/")[0] in CHOSEN_ON) == chosen]
        if not of:
            continue
        best = optimised(of, PROFILES[0])
        frozen = judged(of, PROFILES[0], math.nextafter(THRESHOLD_DEFAULT, 1.0))
        found[label] = {"files": len(of), "standard": round(best.score, 2), "standard, default threshold": round(frozen.score, 2)}
        print(f"  {len(of):3} files, {label}:")
        print(f"    best threshold                 {text(best)}")
        print(f"    default threshold              {text(frozen)}")
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.benchmarks.nab FOLDER (make bench-nab DATA=FOLDER)")
    try:
        corpus = read(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    rows, windows = sum(len(series.values) for series in corpus), sum(len(series.windows) for series in corpus)
    print(f"{len(corpus)} files, {rows:,} rows, {windows} windows. Rows are told one at a time: nothing of what follows a row is known.")
    print(f"Best published score without look-ahead, all 58 files: {PUBLISHED}.")
    figures = {"files": len(corpus), "rows": rows, "windows": windows}
    for name in DETECTORS:
        figures[name] = tell(name, *measure(name, corpus))
    print()
    report(
        "NAB", "Numenta Anomaly Benchmark, rows told one at a time", figures, bar=f"standard {PUBLISHED} on all 58 files", durability="-"
    )


if __name__ == "__main__":
    main()
