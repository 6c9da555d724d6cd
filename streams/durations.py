"""Durations as people write them: `250ms 30s 5m 1h 7d`, ISO 8601 (`PT5M`, `P1DT12H`, `P2W`), or a whole number of milliseconds.

Pure. Years and months are refused: they have no fixed length.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

from streams.errors import InvalidInput

#: Longest duration, milliseconds: 100 years of 365.25 days, so that a time plus a duration stays a valid time.
DURATION_MS_MAX = 36_525 * 24 * 3600 * 1000

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TEXT_CHARACTERS_MAX = 64
_NUMBER = r"[0-9]+(?:[.][0-9]+)?"
_SHORT = re.compile(rf"({_NUMBER}) ?(ms|s|m|h|d)")
_WHOLE = re.compile(r"[0-9]+")
_ISO_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
_ISO = re.compile(
    rf"P(?=.)(?:({_ISO_NUMBER})W|(?:({_ISO_NUMBER})D)?(?:T(?=.)(?:({_ISO_NUMBER})H)?(?:({_ISO_NUMBER})M)?(?:({_ISO_NUMBER})S)?)?)"
)
_ISO_UNITS_MS = (7 * 86_400_000, 86_400_000, 3_600_000, 60_000, 1000)


def parse_duration_ms(value: str | int) -> int:
    """The duration in milliseconds, at least 0; a fraction of a millisecond is refused, not rounded.

    Raises `InvalidInput` (`duration.invalid`): neither a whole number nor one of the forms above, negative, or longer
    than `DURATION_MS_MAX`.
    """
    exact = _number(value) if not isinstance(value, str) else _text(value)
    if exact is None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        shown = f"{value[:40]!r}" if isinstance(value, str) else str(value)[:40] if is_number else f"This {type(value).__name__}"
        raise InvalidInput(
            "duration.invalid", f"{shown} is not a duration: write 250ms, 30s, 5m, 1h, 7d, PT5M or a whole number of milliseconds."
        )
    if exact.denominator != 1:
        raise InvalidInput("duration.invalid", f"The duration {value} is no whole number of milliseconds.")
    if exact > DURATION_MS_MAX:
        raise InvalidInput("duration.invalid", "The duration is longer than 100 years.")
    return int(exact)


def _number(value: object) -> Fraction | None:
    """JSON has one kind of number, so `5.0` is as good as `5`; a truth value is no number."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value < 0
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        return None
    return Fraction(value)


def _text(text: str) -> Fraction | None:
    text = text.strip()
    if len(text) > _TEXT_CHARACTERS_MAX:
        return None
    if _WHOLE.fullmatch(text):
        return Fraction(text)
    if found := _SHORT.fullmatch(text):
        return Fraction(found[1]) * _UNITS_MS[found[2]]
    if found := _ISO.fullmatch(text):
        parts = zip(found.groups(), _ISO_UNITS_MS, strict=True)
        return sum((Fraction(number.replace(",", ".")) * unit for number, unit in parts if number), Fraction(0))
    return None


@lru_cache(maxsize=1024)
def format_duration(milliseconds: int) -> str:
    """The shortest exact text that `parse_duration_ms` reads back: `90000` → `90s`, `3600000` → `1h`."""
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _UNITS_MS[unit] == 0:
            return f"{milliseconds // _UNITS_MS[unit]}{unit}"
    return f"{milliseconds}ms"
