"""What an attempt at a webhook says, and what its answer means: delivered, to be tried again after a while, or given up. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

#: Headers that say what the call is; a rule cannot set them.
OWN_HEADERS = frozenset(
    {
        "host", "content-length", "content-type", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect", "user-agent",
        "idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature",
    }
)  # fmt: skip
#: Answers that say "later": request timeout, too early, too many requests.
_LATER = frozenset({408, 425, 429})
#: Longest wait between two attempts that we choose, milliseconds.
DELAY_MS_MAX = 300_000
#: Longest wait that a receiver can ask for, milliseconds: who asks for years has made a mistake.
RETRY_AFTER_MS_MAX = 24 * 3600 * 1000
_DELAY_FACTOR = 3
#: How far a wait is spread, so that what failed together does not come again together.
_SPREAD = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    excerpt: str = ""  #: the beginning of the body


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The receiver does not have it, as far as is known. `after_ms`: what it asked us to wait; None: nothing."""

    code: str
    message: str
    retryable: bool
    after_ms: int | None = None


Outcome: TypeAlias = Delivered | Failed


def outcome_of(answer: Answer, now: datetime) -> Outcome:
    """Any 2xx is a delivery. 408, 425, 429 and 5xx are tried again; other answers are final, redirects among them."""
    status = answer.status
    if 200 <= status < 300:
        return Delivered()
    said = f": {answer.excerpt}" if answer.excerpt else ""
    if 300 <= status < 400:
        return Failed(code="webhook.redirected", message=f"HTTP {status}: redirects are not followed.", retryable=False)
    if status in _LATER or status >= 500:
        after_ms = retry_after_ms(answer.headers.get("retry-after"), now)
        return Failed(code="webhook.failed", message=f"HTTP {status}{said}", retryable=True, after_ms=after_ms)
    return Failed(code="webhook.refused", message=f"HTTP {status}{said}", retryable=False)


def retry_after_ms(value: str | None, now: datetime) -> int | None:
    """`Retry-After` (RFC 9110): seconds, or a date, at most `RETRY_AFTER_MS_MAX`; None if it is missing or neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:19]) * 1000, RETRY_AFTER_MS_MAX)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0, min(int((at - now).total_seconds() * 1000), RETRY_AFTER_MS_MAX))


def delay_ms(key: str, attempt: int, initial_ms: int, after_ms: int | None = None) -> int:
    """How long to wait after the failed `attempt` (from 1): three times as long each time, and no less than the receiver asked for,
    up to `DELAY_MS_MAX`.
    The spread derives from key and attempt, not from chance.
    """
    grown = min(initial_ms * _DELAY_FACTOR ** min(attempt - 1, 20), DELAY_MS_MAX)
    share = int.from_bytes(hashlib.sha256(f"{key}/{attempt}".encode()).digest()[:4], "big") / 2**32
    return max(int(grown * (1 + _SPREAD * (2 * share - 1))), min(after_ms or 0, DELAY_MS_MAX))
