"""Whether and when a failed attempt is tried again. Pure arithmetic, exactly as documented in `docs/concepts/workflows.md`."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

from services.orchestrator.definition import RetryPolicy
from services.orchestrator.state import Error

_RETRYABLE = frozenset({"timeout", "unavailable"})
_NOT_RETRYABLE = frozenset({"invalid", "not-found", "conflict", "denied", "reference.missing", "expression.failed"})


def is_retryable(policy: RetryPolicy, error: Error) -> bool:
    """Whether an error is worth another attempt: the policy's lists, then the code, then what the error says of itself."""
    if error.code in policy.non_retryable:
        return False
    if error.code in policy.retryable or error.code in _RETRYABLE:
        return True
    return error.code not in _NOT_RETRYABLE and error.retryable


def delay_ms(policy: RetryPolicy, retry: int, seed: str) -> int:
    """Milliseconds before retry number `retry` (from 1); `seed` (`execution/step/attempt`) decides the jitter."""
    interval = _interval(policy, retry)
    if policy.jitter:
        interval *= 1 - _exact(policy.jitter) * _unit(seed)
    return math.floor(interval)


def _interval(policy: RetryPolicy, retry: int) -> Fraction:
    first, longest = Fraction(policy.initial_interval_ms), Fraction(policy.max_interval_ms)
    match policy.strategy:
        case "fixed":
            interval = first
        case "linear":
            interval = first * retry
        case "exponential":
            # Logarithms first: a power of hundreds of retries is a number of thousands of digits.
            growth = (retry - 1) * math.log(policy.multiplier)
            if not first or growth < -math.log(first + 1) - 1:
                return Fraction(0)
            if growth > math.log(longest / first + 1):
                return longest
            interval = first * _exact(policy.multiplier) ** (retry - 1)
    return min(interval, longest)


def _exact(number: float) -> Fraction:
    """The decimal number that was written: 1.2 is 6/5, not the double next to it, so that 1000 ms · 1.2 is 1200 ms."""
    return Fraction(str(number))


def _unit(seed: str) -> Fraction:
    """A number in [0, 1) from the first 53 bits of SHA-256 of `seed`."""
    return Fraction(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big") >> 3, 1 << 53)
