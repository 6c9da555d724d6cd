"""A detector of anomalies in one series of numbers, told one by one. Pure, without look-ahead, of bounded size.

Theory of operation. A value is looked at in six *views*: itself; the mean of the last 12 (level); that mean less the one of the 12
before (rate of change); their standard deviation (spread); and how far the value, and the mean of the last 12, lie from what is
usual at this time of day or week (season), once there is enough history to say. Each view keeps the range in which it has been so
far. A value within all ranges is nothing new and scores 0. What lies beyond a range counts as the share of half that range by which
it exceeds it: so the series' own past is the scale, whatever its unit, its noise and its bursts. The *strength* is the sum of the
square roots of these shares; by the root several views that agree weigh more than one that is far off.

Ranges forget: both ends move towards the middle by 1/5000 of the way with each value. A single value moves an end by at most five
half ranges, so that one absurd number does not blind a view.

An *episode* begins with a strength above 0. Within it only what is a quarter stronger than all before scores; it is over when the
strength has been below half its peak for a while (3 % of the values so far, at least 30, at most 500). So a lasting change scores
at its onset, not at every value after it.

The score is 1 − 10^(−2 · strength / 0.75): 0.99 at the strength that served best on the series on which the settings were chosen
(see `docs/benchmarks`); each ninth more is half that strength on top. One threshold fits all series.
"""

from __future__ import annotations

from math import sqrt

from streams.correlation.anomaly_season import DAY_US, Error, Season
from streams.correlation.seen import Judged
from streams.records import Json

#: Values of the short windows.
_SHORT = 12
#: Values that a view must have had before what is new in it counts.
_WARM = 30
#: Over how many values the ends of a range go back to where the values are: a share of all so far, within bounds.
_MEMORY_LEAST, _MEMORY_SHARE, _MEMORY_MOST = 5000.0, 0.5, 50_000.0
#: What lies beyond a range by less than this share of it is not new.
_TOLERANCE = 0.02
#: The same for a range that is young: this, divided by how often it could have told something new.
_YOUNG = 1.0
#: How far an end of a range moves at once, in half ranges.
_STRIDE_MAX = 5.0
#: The half range of a view that was constant, as a share of its value, and of one that was 0: rounding is no anomaly.
_CONSTANT, _ZERO = 1e-6, 1e-12
#: Numbers beyond this count as this, so that their squares are numbers too.
_MOST = 1e150
#: An episode: how much stronger than its peak is worth saying again, what keeps it going, and how many values it outlives that.
_STRONGER, _ONGOING = 1.25, 0.5
_REST_SHARE, _REST_LEAST, _REST_MOST = 0.03, 30, 500
#: A pause so many times longer than the longest before is missing data: the short windows begin anew.
_PAUSE, _PAUSE_FORGET = 3.0, 1.0 / 5000.0
#: The strength at which the score is 0.99, and the greatest score.
_STRENGTH_99 = 0.75
_SCORE_MOST = 1.0 - 1e-12
#: What makes a mean absolute error three standard deviations (normal distribution).
_USUAL = 3.0 * 1.2533

#: A value that is itself beyond its range is told as that, unless another view is so many times further beyond its own.
_PLAIN = 4.0

#: What is unusual, by view.
_KINDS = ("value", "level", "rate of change", "spread", "value at this time of day or week", "level at this time of day or week")
#: Values that one of each view is made of.
_SPANS = (1, _SHORT, 2 * _SHORT, _SHORT, 1, _SHORT)


class Range:
    """The range in which a view has been so far."""

    __slots__ = ("_span", "count", "high", "low")

    def __init__(self, span: int) -> None:
        self._span = span  # values that one of the view is made of: how many it takes until it tells something new
        self.low = 0.0
        self.high = 0.0
        self.count = 0

    def near(self, value: float) -> float:
        """The value; if it is absurd, how far the range would go towards it."""
        if self.low <= value <= self.high or self.count < _WARM:
            return value
        stride = _STRIDE_MAX * self._half()
        return min(max(value, self.low - stride), self.high + stride)

    def _half(self) -> float:
        return (self.high - self.low) / 2.0 + _CONSTANT * max(abs(self.high), abs(self.low)) + _ZERO

    def excess(self, value: float) -> float:
        """By how many half ranges the value lies beyond the range; 0 within it, or as long as that says little. Learns the value."""
        low, high, count = self.low, self.high, self.count
        if count == 0:
            low = high = value
        self.count = count + 1
        memory = min(_MEMORY_SHARE * count, _MEMORY_MOST) if _MEMORY_SHARE * count > _MEMORY_LEAST else _MEMORY_LEAST
        if low <= value <= high:
            self.high = high + (value - high) / memory
            self.low = low + (value - low) / memory
            return 0.0
        near, half = self.near(value), self._half()
        self.high = near if near > high else high + (near - high) / memory
        self.low = near if near < low else low + (near - low) / memory
        if count < _WARM:
            return 0.0
        tolerated = (high - low) * (_TOLERANCE + _YOUNG * self._span / count)
        return max(0.0, (value - high if value > high else low - value) - tolerated) / half


class Detector:
    """See the module."""

    __slots__ = ("_age", "_count", "_last_us", "_level_error", "_pause_us", "_peak", "_ranges", "_recent", "_season", "_unseasonal")

    def __init__(self) -> None:
        self._ranges = [Range(span) for span in _SPANS]
        self._season = Season()
        self._recent: list[float] = []  # the newest values, two short windows
        self._unseasonal: list[float] = []  # their differences from the season, one short window
        self._level_error = Error()
        self._count = 0
        self._last_us = 0
        self._pause_us = 0.0  # the longest between two values, slowly forgotten
        self._peak = 0.0  # of the present episode
        self._age = 0  # values since it was ongoing

    def observe(self, time_us: int, value: float) -> Judged:
        """The next value, a finite number, at a time (microseconds) not before that of the last one."""
        value = float(min(max(value, -_MOST), _MOST))
        self._count += 1
        self._notice_pause(time_us)
        near = self._ranges[0].near(value)  # an absurd value is raised as what it is, but not learned
        expected, error = self._expect(near)
        seasonal = self._season.expect(time_us, near)
        if seasonal is not None and self._season.error < error:
            expected, error = seasonal, self._season.error
        strength, kind = self._strength(time_us, self._views(time_us, value, near, seasonal))
        strength = self._onset(strength)
        score = min(1.0 - 10.0 ** (-2.0 * strength / _STRENGTH_99), _SCORE_MOST) if strength else 0.0
        usual = _USUAL * error
        return Judged(value=value, score=score, expected=expected, low=expected - usual, high=expected + usual, kind=_KINDS[kind])

    def _notice_pause(self, time_us: int) -> None:
        if self._count > 1:
            pause_us: float = time_us - self._last_us
            if self._count > _WARM:
                if pause_us > _PAUSE * self._pause_us:
                    self._recent.clear()
                    self._unseasonal.clear()
                pause_us = min(pause_us, _PAUSE * self._pause_us)
            self._pause_us = max(self._pause_us * (1.0 - _PAUSE_FORGET), pause_us)
        self._last_us = time_us

    def _expect(self, value: float) -> tuple[float, float]:
        """What the level leads to expect of this value, and the mean error of that."""
        recent = self._recent[-_SHORT:]
        expected = sum(recent) / len(recent) if recent else value
        error = self._level_error.mean
        if recent:
            self._level_error.add(abs(value - expected))
        return expected, error

    def _strength(self, time_us: int, views: list[tuple[int, float]]) -> tuple[float, int]:
        """How far all views are beyond their ranges, and the view that tells it best."""
        total, furthest, kind = 0.0, 0.0, 0
        for view, figure in views:
            excess = self._ranges[view].excess(figure)
            if excess and (view < 4 or time_us - (self._season.since_us or 0) >= DAY_US):
                total += sqrt(excess)
                told = kind == 0 and excess < _PLAIN * furthest
                if excess > furthest and not told:
                    furthest, kind = excess, view
        return total, kind

    def _views(self, time_us: int, value: float, near: float, seasonal: float | None) -> list[tuple[int, float]]:
        recent, unseasonal = self._recent, self._unseasonal
        recent.append(near)
        del recent[: -2 * _SHORT]
        views = [(0, value)]
        if len(recent) >= _SHORT:
            newest = recent[-_SHORT:]
            level = sum(newest) / _SHORT
            views.append((1, level))
            if len(recent) == 2 * _SHORT:
                views.append((2, level - sum(recent[:_SHORT]) / _SHORT))
            views.append((3, sqrt(sum([(each - level) ** 2 for each in newest]) / _SHORT)))
        if seasonal is None:
            unseasonal.clear()
            return views
        if self._season.since_us == time_us:  # the differences are other ones from here on
            self._ranges[4:] = [Range(span) for span in _SPANS[4:]]
            unseasonal.clear()
        unseasonal.append(near - seasonal)
        del unseasonal[:-_SHORT]
        views.append((4, value - seasonal))
        if len(unseasonal) == _SHORT:
            views.append((5, sum(unseasonal) / _SHORT))
        return views

    def _onset(self, strength: float) -> float:
        """The strength if it begins an episode, or is stronger than all that the present one had; else 0."""
        if strength > _STRONGER * self._peak:
            self._peak, self._age = strength, 0
            return strength
        ongoing = strength > _ONGOING * self._peak
        self._age = 0 if ongoing else self._age + 1
        if self._age > min(max(_REST_LEAST, _REST_SHARE * self._count), _REST_MOST):
            self._peak = 0.0
        return 0.0

    # --- state ---

    def copy(self) -> Detector:
        """One that learns apart from this one."""
        found = Detector()
        for one, other in zip(found._ranges, self._ranges, strict=True):
            one.low, one.high, one.count = other.low, other.high, other.count
        found._season = self._season.copy()
        found._recent, found._unseasonal = self._recent[:], self._unseasonal[:]
        found._level_error = Error(self._level_error.mean, self._level_error.count)
        found._count, found._last_us, found._pause_us = self._count, self._last_us, self._pause_us
        found._peak, found._age = self._peak, self._age
        return found

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        return {
            "ranges": [[each.low, each.high, each.count] for each in self._ranges], "season": self._season.dump(),
            "recent": self._recent[:], "unseasonal": self._unseasonal[:],
            "level_error": [self._level_error.mean, self._level_error.count],
            "count": self._count, "last_us": self._last_us, "pause_us": self._pause_us, "peak": self._peak, "age": self._age,
        }  # fmt: skip

    @classmethod
    def load(cls, state: Json) -> Detector:
        """From `dump`."""
        found = cls()
        for each, ends in zip(found._ranges, state["ranges"], strict=True):
            each.low, each.high, each.count = ends
        found._season = Season.load(state["season"])
        found._recent, found._unseasonal = list(state["recent"]), list(state["unseasonal"])
        found._level_error = Error(*state["level_error"])
        found._count, found._last_us, found._pause_us = state["count"], state["last_us"], state["pause_us"]
        found._peak, found._age = state["peak"], state["age"]
        return found
