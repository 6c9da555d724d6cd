"""The scorer of `make bench-nab` against what its formula says by hand, and the reader of its folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.nab.__main__ import looks_ahead, scored
from tests.benchmarks.nab.corpus import Series, read
from tests.benchmarks.nab.detectors import DETECTORS, Observe
from tests.benchmarks.nab.scoring import PROFILES, by_category, judged, optimised, place, probation, sigmoid

STANDARD, LOW_FP, LOW_FN = PROFILES
ROWS = 1000
WINDOWS = [(400, 449), (800, 899)]


def flags(*rows: int, count: int = ROWS) -> list[float]:
    return [1.0 if row in rows else 0.0 for row in range(count)]


def score(*rows: int, profile: int = 0) -> float:
    return judged([place("x/a.csv", flags(*rows), WINDOWS)], PROFILES[profile], 1.0).score


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_saying_nothing_is_0_and_the_left_edges_are_100(profile: object) -> None:
    assert score(profile=PROFILES.index(profile)) == 0.0
    assert score(400, 800, profile=PROFILES.index(profile)) == pytest.approx(100.0)


def test_of_a_window_only_the_earliest_detection_counts() -> None:
    assert score(410, 411, 440) == score(410)
    assert score(400) > score(425) > score(449) > 0


def test_a_detection_in_the_middle_of_a_window_is_worth_what_the_formula_says() -> None:
    # Row 850 of 800…899: position -(899 - 850 + 1) / 100 = -0.5; the scale is 1 for the left edge.
    worth = (2 / (1 + math.exp(-2.5)) - 1) / (2 / (1 + math.exp(-5)) - 1)
    assert score(850) == pytest.approx(100 * (worth - 1 + 2) / 4)


def test_a_detection_outside_costs_by_its_distance_from_the_window_before() -> None:
    before, close, far = score(300, 400, 800), score(400, 452, 800), score(400, 700, 800)
    assert before == pytest.approx(100 - 100 * 0.11 / 4), "nothing before it: the whole cost"
    assert close == pytest.approx(100 + 100 * 0.11 * sigmoid(3 / 49) / 4)
    assert far == pytest.approx(before, abs=1e-4)
    assert score(300, 400, 800, profile=1) == pytest.approx(100 - 100 * 0.22 / 4)
    assert score(400, profile=2) == pytest.approx(100 * (1 - 2 + 4) / 6), "a missed window costs twice, and so does saying nothing"


def test_the_first_rows_are_not_judged() -> None:
    assert (probation(1000), probation(4032), probation(22_695)) == (150, 604, 750)
    assert score(*range(150), 400, 800) == pytest.approx(100.0)
    assert score(150, 400, 800) < 100.0


@given(st.integers(0, 2**32))
def test_no_threshold_is_better_than_the_optimised_one(seed: int) -> None:
    chance = Random(seed)
    scores, begin = [chance.choice([0.0, 0.2, 0.5, 0.7, 0.9]) for _ in range(chance.randrange(40, 120))], chance.randrange(10, 30)
    files = [place("x/a.csv", scores, [(begin, begin + 5)]), place("y/b.csv", scores[::-1], [])]
    for profile in PROFILES:
        tried = [judged(files, profile, threshold).score for threshold in (0.0, 0.2, 0.5, 0.7, 0.9, math.inf)]
        assert optimised(files, profile).score == pytest.approx(max(tried))


def test_categories_add_up() -> None:
    files = [place("x/a.csv", flags(400, 700), WINDOWS), place("y/b.csv", flags(800), WINDOWS), place("z/c.csv", flags(500), [])]
    found = by_category(files, STANDARD, 1.0)
    assert {name: (result.detected, result.false_positives) for name, result in found.items()} == {"x": (1, 1), "y": (1, 0), "z": (0, 1)}
    assert math.isnan(found["z"].score)


@pytest.mark.parametrize("labels", ["labels/combined_windows.json", "combined_windows.json"])
def test_folders_are_read_in_both_layouts(tmp_path: Path, labels: str) -> None:
    (tmp_path / "data" / "kind").mkdir(parents=True)
    (tmp_path / labels).parent.mkdir(exist_ok=True)
    rows = "".join(f"2014-04-01 00:{minute:02}:00,{minute / 2}\n" for minute in range(0, 60, 5))
    (tmp_path / "data" / "kind" / "a.csv").write_text("timestamp,value\n" + rows)
    (tmp_path / labels).write_text(json.dumps({"kind/a.csv": [["2014-04-01 00:10:00.000000", "2014-04-01 00:20:00.000000"]]}))
    (series,) = read(tmp_path)
    assert (series.file, list(series.windows), list(series.values)[:2]) == ("kind/a.csv", [(2, 4)], [0.0, 2.5])
    assert series.times_us[1] - series.times_us[0] == 300_000_000
    (tmp_path / labels).write_text(json.dumps({"kind/a.csv": [["2015-04-01 00:10:00", "2015-04-01 00:20:00"]]}))
    with pytest.raises(ValueError, match="no row in its window"):
        read(tmp_path)
    (tmp_path / labels).write_text("{}")
    with pytest.raises(ValueError, match=r"says nothing about kind/a\.csv"):
        read(tmp_path)


@pytest.mark.parametrize("name", DETECTORS)
def test_what_follows_a_row_does_not_change_its_score(name: str) -> None:
    series = jumping(300, 250)
    assert not looks_ahead(name, series, scored(DETECTORS[name](), series))


def test_looking_ahead_is_noticed() -> None:
    def scaled_by_the_whole_file() -> Observe:
        return lambda time_us, value: value / max(series.values)

    series = jumping(300, 250)
    honest = scored(DETECTORS["windowed Gaussian"](), series)
    assert looks_ahead("windowed Gaussian", series, [score * 0.5 for score in honest])
    assert looks_ahead("windowed Gaussian", series, scored(scaled_by_the_whole_file(), series))


def jumping(rows: int, at: int) -> Series:
    values = [float((row * 7919) % 13) for row in range(rows)]
    values[at] = 1e6
    return Series(file="x/a.csv", times_us=[row * 60_000_000 for row in range(rows)], values=values, windows=[])
