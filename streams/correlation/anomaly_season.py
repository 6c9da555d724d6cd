"""What is usual at an hour of the day, and of the week. Pure; hours are those of UTC."""

from __future__ import annotations

from array import array

from streams.records import Json

HOUR_US = 3600 * 1_000_000
DAY_US = 24 * HOUR_US

#: A day has bins of half an hour, a week of an hour.
_DAILY_BINS, _WEEKLY_BINS = 48, 168
#: Days (or weeks) that a bin needs before it says what is usual, and over how many it averages.
_DAYS_LEAST, _DAYS_MEANT = 2, 7
#: Weight of one value in the mean error of a prediction, and how far beyond that mean a single error counts: an outlier is one.
_ERROR_WEIGHT, _ERROR_CLIP = 0.005, 5.0
#: How much smaller the error of the other profile must be before it is turned to.
_BETTER = 0.8


class Error:
    """The mean absolute error of a prediction, of which single outliers move little."""

    __slots__ = ("count", "mean")

    def __init__(self, mean: float = 0.0, count: int = 0) -> None:
        self.mean = mean
        self.count = count

    def add(self, error: float) -> None:
        """One more error, without sign."""
        self.count += 1
        if self.count > 20 and error > _ERROR_CLIP * self.mean:
            error = _ERROR_CLIP * self.mean or error
        self.mean += max(1.0 / self.count, _ERROR_WEIGHT) * (error - self.mean)


class Profile:
    """The mean of each bin: of the newest days, each of which counts as much however many values it had."""

    __slots__ = ("count", "day", "days", "total", "usual")

    def __init__(self, bins: int) -> None:
        self.usual = array("d", bytes(8 * bins))
        self.days = array("d", bytes(8 * bins))  #: that are in `usual`
        self.day = array("d", bytes(8 * bins))  #: the present one
        self.total = array("d", bytes(8 * bins))  #: of its values
        self.count = array("d", bytes(8 * bins))

    def see(self, bin_: int, day: int, value: float) -> float | None:
        """What was usual before this value; None: there are too few days. Learns the value."""
        if self.day[bin_] != day:
            count = self.count[bin_]
            if count:
                days = self.days[bin_] = self.days[bin_] + 1
                self.usual[bin_] += max(1.0 / days, 1.0 / _DAYS_MEANT) * (self.total[bin_] / count - self.usual[bin_])
            self.day[bin_], self.total[bin_], self.count[bin_] = day, 0.0, 0.0
        self.total[bin_] += value
        self.count[bin_] += 1
        return self.usual[bin_] if self.days[bin_] >= _DAYS_LEAST else None

    def copy(self) -> Profile:
        """One that learns apart from this one."""
        found = Profile(0)
        for name in self.__slots__:
            setattr(found, name, getattr(self, name)[:])
        return found

    def dump(self) -> Json:
        """As JSON."""
        return [list(getattr(self, name)) for name in self.__slots__]

    @classmethod
    def load(cls, state: Json) -> Profile:
        """From `dump`."""
        found = cls(0)
        for name, values in zip(cls.__slots__, state, strict=True):
            setattr(found, name, array("d", values))
        return found


class Season:
    """The daily and the weekly profile, and which of them predicts better."""

    __slots__ = ("_daily", "_daily_error", "_first_day", "_weekly", "_weekly_error", "by_week", "error", "since_us")

    def __init__(self) -> None:
        self._daily = Profile(_DAILY_BINS)
        self._weekly: Profile | None = None  # begins with the second day: most groups do not live as long
        self._daily_error, self._weekly_error = Error(), Error()
        self._first_day: int | None = None
        self.by_week = False  #: whether the last expectation came from the weekly profile
        self.since_us: int | None = None  #: since when all expectations came from that profile
        self.error = 0.0  #: the mean error of the profile that the last expectation came from

    def expect(self, time_us: int, value: float) -> float | None:
        """What was to be expected of this value; None: there is too little history. Learns the value."""
        day = time_us // DAY_US
        if self._first_day is None:
            self._first_day = day
        elif self._weekly is None and day != self._first_day:
            self._weekly = Profile(_WEEKLY_BINS)
        daily = self._daily.see(time_us % DAY_US * _DAILY_BINS // DAY_US, day, value)
        weekly = None if self._weekly is None else self._weekly.see(day % 7 * 24 + time_us % DAY_US // HOUR_US, day, value)
        if daily is not None:
            self._daily_error.add(abs(value - daily))
        if weekly is not None:
            self._weekly_error.add(abs(value - weekly))
        by_week = self.by_week
        if weekly is None or daily is None:
            self.by_week = daily is None and weekly is not None
        elif self._weekly_error.mean < _BETTER * self._daily_error.mean:
            self.by_week = True
        elif self._daily_error.mean < _BETTER * self._weekly_error.mean:
            self.by_week = False
        expected = weekly if self.by_week else daily
        self.error = (self._weekly_error if self.by_week else self._daily_error).mean
        if expected is not None and (self.since_us is None or self.by_week != by_week):
            self.since_us = time_us
        return expected

    def copy(self) -> Season:
        """One that learns apart from this one."""
        found = Season()
        found._daily = self._daily.copy()
        found._weekly = None if self._weekly is None else self._weekly.copy()
        found._daily_error = Error(self._daily_error.mean, self._daily_error.count)
        found._weekly_error = Error(self._weekly_error.mean, self._weekly_error.count)
        found._first_day, found.by_week = self._first_day, self.by_week
        found.since_us, found.error = self.since_us, self.error
        return found

    def dump(self) -> Json:
        """As JSON."""
        return {
            "daily": self._daily.dump(), "weekly": None if self._weekly is None else self._weekly.dump(),
            "errors": [[error.mean, error.count] for error in (self._daily_error, self._weekly_error)],
            "first_day": self._first_day, "by_week": self.by_week, "since_us": self.since_us, "error": self.error,
        }  # fmt: skip

    @classmethod
    def load(cls, state: Json) -> Season:
        """From `dump`."""
        found = cls()
        found._daily = Profile.load(state["daily"])
        found._weekly = None if state["weekly"] is None else Profile.load(state["weekly"])
        found._daily_error, found._weekly_error = (Error(mean, count) for mean, count in state["errors"])
        found._first_day, found.by_week = state["first_day"], state["by_week"]
        found.since_us, found.error = state["since_us"], state["error"]
        return found
