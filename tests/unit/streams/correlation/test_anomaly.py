"""The detector of one series: what it raises, what it leaves alone, and that its state is all that it knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.correlation.anomaly import Detector, Range
from streams.correlation.anomaly_season import Error, Profile
from streams.correlation.seen import Judged

MINUTE = 60_000_000
DAY = 1440 * MINUTE
THRESHOLD = 0.99

NUMBERS = [0.0, 1.0, 2.5, -7.0, 100.0, 5e-324, 1e308, -1e308, 1e-9, 10**400, -(10**400)]


@st.composite
def a_series(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Minutes since the value before, and values: a few that repeat, so that there is history, and some of any kind."""
    chance = Random(draw(st.integers(0, 2**32)))

    def some(count: int, steps: list[int]) -> list[tuple[int, float]]:
        return [(chance.choice(steps), chance.choice([chance.choice(NUMBERS), chance.gauss(100, 10)])) for _ in range(count)]

    return [*some(chance.randrange(1, 8), [0, 1, 30, 60, 600]) * chance.randrange(60), *some(chance.randrange(8), [0, 1, 60, 7200])]


series = a_series()


def judged(values: Sequence[float], *, step_us: int = 5 * MINUTE, detector: Detector | None = None) -> list[Judged]:
    detector = Detector() if detector is None else detector
    return [detector.observe(row * step_us, value) for row, value in enumerate(values)]


def alarms(values: Sequence[float], *, step_us: int = 5 * MINUTE) -> list[int]:
    return [row for row, each in enumerate(judged(values, step_us=step_us)) if each.score > THRESHOLD]


def noise(count: int, seed: int = 1, middle: float = 100.0, spread: float = 5.0) -> list[float]:
    chance = Random(seed)
    return [chance.gauss(middle, spread) for _ in range(count)]


def daily(days: int, each: Callable[[int, float], float] | None = None, seed: int = 2) -> list[float]:
    """A value every five minutes: by day 100, by night 20, with some noise; `each` changes it, told day and hour."""
    chance = Random(seed)
    found = []
    for row in range(days * 288):
        day, hour = row // 288, row % 288 / 12
        value = 60 - 40 * math.cos(2 * math.pi * hour / 24)
        found.append((value if each is None else each(day, hour) * value) + chance.gauss(0, 2))
    return found


# --- what is raised ---


def test_a_spike_is_raised_at_once_and_told_in_numbers() -> None:
    values = noise(500)
    values[400] = 300.0
    told = judged(values)
    assert [row for row, each in enumerate(told) if each.score > THRESHOLD] == [400]
    spike = told[400]
    assert spike.kind == "value"
    assert spike.value == 300.0
    assert spike.expected == pytest.approx(100, abs=5)
    assert 70 < spike.low < 95 < 105 < spike.high < 130


def test_a_spike_is_told_as_a_value_though_it_changes_the_spread_more() -> None:
    spike = judged([*noise(90, middle=120.0, spread=10.0), 268.0])[-1]
    assert (spike.kind, spike.score > THRESHOLD) == ("value", True)


@pytest.mark.parametrize("factor", [-1.0, 1e-9, 1e12])
def test_neither_unit_nor_sign_matter(factor: float) -> None:
    values = noise(500)
    values[400] = 200.0
    assert alarms([value * factor for value in values]) == alarms(values) == [400]


def test_a_lasting_change_of_level_is_raised_once() -> None:
    rows = alarms([*noise(400), *noise(400, seed=3, middle=130.0)])
    assert len(rows) == 1
    assert 400 <= rows[0] < 412


def test_a_change_of_level_within_the_range_of_single_values_is_raised() -> None:
    chance = Random(4)
    before, after = [chance.choice([0.0, 100.0]) for _ in range(600)], [100.0] * 60
    rows = [row for row in alarms([*before, *after]) if row >= 500]
    assert rows
    assert 600 <= min(rows) < 612


def test_growing_spread_is_raised_by_its_kind() -> None:
    waves = [10 * math.sin(row / 30) for row in range(1000)]
    shaking = [9.0 if row % 2 else -9.0 for row in range(60)]  # nothing beyond what single values were
    found = [(row, each.kind) for row, each in enumerate(judged([*waves, *shaking])) if each.score > THRESHOLD and row >= 500]
    assert [kind for _, kind in found] == ["spread"]
    assert 1000 <= found[0][0] < 1012


def test_a_small_lasting_change_is_raised_by_its_level() -> None:
    values = noise(700, spread=10.0)
    shifted = [*values[:600], *[value / 4 + 90 for value in values[600:]]]  # nothing beyond what single values were
    assert max(shifted[600:]) < max(values[:600])
    found = [(row, each.kind) for row, each in enumerate(judged(shifted)) if each.score > 0.5 and row >= 600]
    assert [kind for _, kind in found][:1] == ["level"]


def test_a_change_within_the_range_but_too_fast_is_raised_by_its_rate() -> None:
    waves = [100 * math.sin(row / 150) + step for row, step in enumerate(noise(1600, middle=0.0, spread=0.5))]
    values = [*waves[:942], *[waves[941] + 4 * row for row in range(24)]]
    told = judged(values)
    assert max(values[942:]) < max(waves)
    assert [row for row in range(900, len(told)) if told[row].score > THRESHOLD][:1] in ([943], [944], [945])
    assert "rate of change" in {each.kind for each in told[942:]}


def test_a_small_lasting_change_at_an_hour_is_raised_by_its_level_there() -> None:
    values = [value + step for value, step in zip(daily(12), noise(12 * 288, middle=0.0, spread=8.0), strict=True)]
    at = range(10 * 288 + 60, 10 * 288 + 100)
    lower = [value - 16 if row in at else value for row, value in enumerate(values)]
    found = {each.kind for row, each in enumerate(judged(lower)) if row in at and each.score > 0.5}
    assert "level at this time of day or week" in found


def test_a_series_that_goes_flat_where_it_varied_by_hour_is_raised() -> None:
    values = daily(10, lambda day, hour: 0.35 if day == 8 else 1.0)
    rows = [row for row in alarms(values) if row >= 288]
    assert rows
    assert all(8 * 288 <= row <= 9 * 288 + 24 for row in rows)


def test_the_night_level_by_day_is_raised_though_it_is_within_the_range() -> None:
    values = daily(12)
    values[9 * 288 + 120 : 9 * 288 + 168] = daily(1, seed=5)[:48]  # ten to two as at midnight
    rows = [row for row in alarms(values) if row >= 288]
    assert rows
    assert 9 * 288 + 120 <= min(rows) < 9 * 288 + 132
    assert "time of day" in judged(values)[min(rows)].kind


def test_a_working_day_on_a_sunday_is_raised_once_the_week_is_known() -> None:
    def weekly(day: int, hour: float) -> float:
        return 0.3 if day % 7 in (5, 6) and day != 41 else 1.0  # day 41 is such a weekend

    rows = alarms(daily(42, weekly))
    known = [row for row in rows if row >= 21 * 288]
    assert known
    assert all(row // 288 == 41 for row in known)


def test_after_one_absurd_number_a_spike_is_still_raised_some_time_later() -> None:
    values = noise(4000)
    values[1000] = 1e30
    values[2000] = 500.0
    assert [row for row in alarms(values) if row in (1000, 2000)] == [1000, 2000]
    assert len(alarms(values)) <= 2 + 3


# --- what is left alone ---


@pytest.mark.parametrize("value", [0.0, 7.5, -1e100, 10**400])
def test_a_constant_is_never_raised_and_its_first_change_is(value: float) -> None:
    assert alarms([value] * 500) == []
    changed = 1.0 if value == 0.0 else value / 2 if isinstance(value, float) else 0.0
    assert alarms([*[value] * 300, changed, *[value] * 300]) == [300]


def test_rounding_is_no_change() -> None:
    assert alarms([0.1 + 0.2 if row % 50 else 0.3 for row in range(500)]) == []


@pytest.mark.parametrize("draw", [
    lambda chance: chance.gauss(0, 1), lambda chance: chance.expovariate(1), lambda chance: chance.lognormvariate(0, 1),
    lambda chance: chance.paretovariate(2.5), lambda chance: float(chance.randrange(3)),
])  # fmt: skip
def test_noise_of_any_shape_is_raised_rarely(draw: Callable[[Random], float]) -> None:
    count = 0
    for seed in range(4):
        chance = Random(seed)
        count += len(alarms([draw(chance) for _ in range(4000)]))
    assert count <= 2 * 16, "two in a thousand"


def test_days_and_nights_are_nothing_new() -> None:
    assert [row for row in alarms(daily(14)) if row >= 3 * 288] == []


def test_little_history_says_little() -> None:
    assert alarms([1.0, 2.0, 1.0, 50.0, 1.0, 3.0, 1000.0]) == []


def test_missing_data_is_no_anomaly_but_what_comes_after_it_may_be() -> None:
    def over(values: Sequence[float], pause_us: int, at: int) -> list[int]:
        detector, found = Detector(), []
        for row, value in enumerate(values):
            if detector.observe(row * MINUTE + (pause_us if row >= at else 0), value).score > THRESHOLD:
                found.append(row)
        return found

    waves = [50 * math.sin(row / 100) + step for row, step in enumerate(noise(2000, middle=0.0, spread=0.1))]
    waves = [*waves[:1571], *waves[1571 + 157 :]]  # the middle of the next half wave is missing
    assert [row for row in over(waves, 157 * MINUTE, 1571) if row >= 600] == []
    assert [row for row in over(waves, 0, 1571) if row >= 600] == [1571]
    spiked = noise(600)
    spiked[300] = 300.0
    assert 300 in over(spiked, 6 * 60 * MINUTE, 300)


# --- its parts ---


def test_a_range_goes_back_to_where_the_values_are() -> None:
    of = Range(1)
    for row in range(100):
        of.excess(row % 2)
    assert of.excess(1e30) > 1e29
    assert of.high < 4, "an absurd number moves it by five half ranges at most"
    assert of.near(1e30) < 20
    before = of.high
    for row in range(5000):
        of.excess(row % 2)
    assert 1 < of.high < 1 + (before - 1) / 2
    assert of.low == pytest.approx(0, abs=1e-3)


def test_each_day_counts_as_much_in_the_mean_of_an_hour() -> None:
    of = Profile(2)
    assert [of.see(1, 0, value) for value in (0.0, 0.0, 0.0)] == [None] * 3
    assert of.see(1, 1, 30.0) is None
    assert of.see(1, 2, 7.0) == 15.0
    assert of.see(1, 3, 7.0) == pytest.approx((0 + 30 + 7) / 3)
    assert of.see(0, 3, 7.0) is None


def test_one_outlier_moves_the_error_of_a_prediction_little() -> None:
    of = Error()
    for _ in range(100):
        of.add(1.0)
    of.add(1e9)
    assert of.mean < 1.1


def test_most_groups_are_young_and_then_small() -> None:
    detector, old = Detector(), Detector()
    for row in range(100):
        detector.observe(row * MINUTE, 1 / 3)
        old.observe(row * 60 * MINUTE, 1 / 3)
    assert len(orjson.dumps(detector.dump())) < 3000 < len(orjson.dumps(old.dump()))


# --- what it is ---


@given(series, st.integers(0, 400))
def test_its_dump_is_all_that_it_knows(rows: list[tuple[int, float]], cut: int) -> None:
    detector, now_us = Detector(), 0
    for step, value in rows[:cut]:
        now_us += step * MINUTE
        detector.observe(now_us, value)
    copied, loaded = detector.copy(), Detector.load(orjson.loads(orjson.dumps(detector.dump())))
    for step, value in rows[cut:]:
        now_us += step * MINUTE
        told = detector.observe(now_us, value)
        assert copied.observe(now_us, value) == loaded.observe(now_us, value) == told
    assert copied.dump() == loaded.dump() == detector.dump()


@given(series)
def test_a_copy_learns_apart(rows: list[tuple[int, float]]) -> None:
    detector = Detector()
    for row, value in enumerate(noise(30)):
        detector.observe(row, value)
    before = orjson.dumps(detector.dump())
    copied, now_us = detector.copy(), 30
    for step, value in rows:
        now_us += step * MINUTE
        copied.observe(now_us, value)
    assert orjson.dumps(detector.dump()) == before


@given(series)
def test_all_that_it_says_is_finite_whatever_the_numbers(rows: list[tuple[int, float]]) -> None:
    detector, now_us = Detector(), 0
    for step, value in rows:
        now_us += step * MINUTE
        told = detector.observe(now_us, value)
        assert all(math.isfinite(each) for each in (told.value, told.expected, told.low, told.high))
        assert 0 <= told.score < 1
        assert told.low <= told.expected <= told.high


@given(series)
def test_what_comes_later_changes_nothing(rows: list[tuple[int, float]]) -> None:
    values = [value for _, value in rows]
    assert judged([*values, 1e6])[:-1] == judged(values)


def test_its_size_is_bounded() -> None:
    chance = Random(1)
    detector = Detector()
    for row in range(40 * 288):
        detector.observe(row * 5 * MINUTE, chance.gauss(1e6, 1e5) / 3)
    size = len(orjson.dumps(detector.dump()))
    for row in range(40 * 288, 60 * 288):
        detector.observe(row * 5 * MINUTE, chance.gauss(1e6, 1e5) / 3)
    assert len(orjson.dumps(detector.dump())) < 1.1 * size < 32 * 1024
