"""The `retry` part of a route, and of a handler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.correlation.reading import Fields
from streams.errors import InvalidDocument
from streams.routing.routes import RetryPolicy

_RETRY_FIELDS = (
    "max-retries", "backoff-strategy", "initial-interval", "max-interval", "multiplier", "jitter", "retryable", "non-retryable",
)  # fmt: skip
_RETRIES_MAX = 1000
_DAY_MS = 24 * 3600 * 1000


class RetryFields(Fields):
    """Reads the `retry` part."""

    def fault(self, code: str, pointer: str, message: str) -> None:
        """What rules and routes have in common is told as a fault of a route."""
        super().fault(f"route.{code[5:]}" if code.startswith("rule.") else code, pointer, message)

    def retry(self, document: Mapping[str, Any]) -> RetryPolicy:
        """The policy of a document."""
        content = self.section(document, "retry", "")
        if content is None:
            return RetryPolicy()
        at, default = "/retry", RetryPolicy()
        self.known(content, _RETRY_FIELDS, at)
        retries = self.whole(content, "max-retries", at, least=0, most=_RETRIES_MAX)
        first = self.duration(content, "initial-interval", at, default=default.initial_interval_ms, most=_DAY_MS)
        longest = self.duration(content, "max-interval", at, default=max(default.max_interval_ms, first), most=_DAY_MS)
        multiplier = self.number(content, "multiplier", at)
        if multiplier is not None and not 1 <= multiplier <= 100:
            self.fault("route.value-invalid", f"{at}/multiplier", "multiplier is a number from 1 to 100.")
        jitter = self.number(content, "jitter", at)
        if jitter is not None and not 0 <= jitter <= 1:
            self.fault("route.value-invalid", f"{at}/jitter", "jitter is a number from 0 to 1.")
        return RetryPolicy(
            max_retries=default.max_retries if retries is None else retries,
            strategy=self.one_of(content, "backoff-strategy", at, ("fixed", "linear", "exponential"), default="exponential"),
            initial_interval_ms=first, max_interval_ms=longest,
            multiplier=default.multiplier if multiplier is None else float(multiplier), jitter=float(jitter or 0.0),
            retryable=frozenset(self.texts(content, "retryable", at) or ()),
            non_retryable=frozenset(self.texts(content, "non-retryable", at) or ()),
        )  # fmt: skip


def parse_retry(content: Mapping[str, Any] | None) -> RetryPolicy:
    """The policy of a handler; without one nothing is tried again. Raises `InvalidDocument` (`retry.invalid`) with all faults."""
    if content is None:
        return RetryPolicy(max_retries=0)
    reader = RetryFields()
    policy = reader.retry({"retry": content})
    if reader.faults:
        raise InvalidDocument("retry.invalid", "The retry policy has faults.", reader.faults)
    return policy
