"""What a route is: frozen values, complete and valid. `streams.routing.parse` makes them from documents. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from streams.matching.matchers import DEFAULT_TOPICS, CompiledMatcher, Matcher
from streams.matching.paths import Path
from streams.records import Json
from streams.topics import COMPOSITES
from streams.webhooks.addresses import Target

Backoff: TypeAlias = Literal["fixed", "linear", "exponential"]
Order: TypeAlias = Literal["key", "none"]

#: Errors that another attempt may mend, and that none can, whatever they say of themselves; a policy's lists come before.
_RETRYABLE = frozenset({"timeout", "unavailable"})
_NOT_RETRYABLE = frozenset({"invalid", "not-found", "conflict", "denied"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed attempt is made again, and after which delay. Intervals in milliseconds."""

    max_retries: int = 5
    strategy: Backoff = "exponential"
    initial_interval_ms: int = 1000
    max_interval_ms: int = 60_000
    multiplier: float = 2.0
    jitter: float = 0.0  #: share of a delay that may be taken off, by a hash of route, event and attempt
    retryable: frozenset[str] = frozenset()  #: codes
    non_retryable: frozenset[str] = frozenset()

    def allows(self, code: str, retryable: bool, attempts: int) -> bool:
        """Whether an attempt that failed with this code, the `attempts`th, is made again. `retryable` is what the failure says."""
        if attempts > self.max_retries or code in self.non_retryable:
            return False
        if code in self.retryable or code in _RETRYABLE:
            return True
        return code not in _NOT_RETRYABLE and retryable

    def delay_ms(self, attempts: int, seed: str, after_ms: int | None = None) -> int:
        """Milliseconds until the next attempt after `attempts` (from 1) failed; no less than the destination asked for."""
        interval = self._interval(attempts)
        if self.jitter:
            share = int.from_bytes(hashlib.sha256(f"{seed}/{attempts}".encode()).digest()[:7], "big") >> 3
            interval *= 1 - Fraction(str(self.jitter)) * Fraction(share, 1 << 53)
        return max(math.floor(interval), after_ms or 0)

    def _interval(self, attempts: int) -> Fraction:
        first, longest = Fraction(self.initial_interval_ms), Fraction(self.max_interval_ms)
        if self.strategy == "fixed":
            interval = first
        elif self.strategy == "linear":
            interval = first * attempts
        else:
            # Logarithms first: a power of hundreds of attempts is a number of thousands of digits.
            if not first or (attempts - 1) * math.log(self.multiplier) > math.log(longest / first + 1):
                return min(longest, first) if not first else longest
            interval = first * Fraction(str(self.multiplier)) ** (attempts - 1)
        return min(interval, longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFields:
    """Each path gets the value of its expression over the record as it was before this transform."""

    values: tuple[tuple[Path, str], ...]  #: path, CEL


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameFields:
    """What lies at a path moves to another; a path that does not exist stays so."""

    pairs: tuple[tuple[Path, Path], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropFields:
    """What lies at a path goes; a path that does not exist stays so."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFields:
    """The fields of the object that an expression gives replace those of the record."""

    expression: str


Transform: TypeAlias = SetFields | RenameFields | DropFields | MapFields


@dataclass(frozen=True, slots=True, kw_only=True)
class ToTopic:
    """To a topic, as a system event."""

    topic: str  #: logical name

    @property
    def shown(self) -> str:
        """For reports."""
        return self.topic


@dataclass(frozen=True, slots=True, kw_only=True)
class ToModule:
    """A request to an operation of a module; its answer is the outcome."""

    module: str
    operation: str
    parameters: tuple[tuple[str, str], ...]  #: name, CEL over the record; none: the payload
    timeout_ms: int = 30_000

    @property
    def shown(self) -> str:
        """For reports."""
        return f"module {self.module}/{self.operation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToWebhook:
    """A POST of the record as JSON."""

    target: Target
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """For reports."""
        return self.target.shown


Destination: TypeAlias = ToTopic | ToModule | ToWebhook


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A complete, valid route."""

    id: str
    title: str = ""
    enabled: bool = True  #: if not, it holds: what comes waits in the log
    match: Matcher
    filters: tuple[str, ...] = ()  #: CEL, all must hold
    transforms: tuple[Transform, ...] = ()
    destination: Destination
    retry: RetryPolicy = RetryPolicy()
    order: Order = "key"
    dead_letter: bool = True  #: if not, what is given up is told by its delivery alone
    document: Json = None  #: as it was given

    @property
    def topics(self) -> tuple[str, ...]:
        """What it reads (logical names)."""
        if self.match.rules is not None:
            return (COMPOSITES,)
        return self.match.topics if self.match.topics is not None else DEFAULT_TOPICS


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRoute:
    """A version of a route that is in use."""

    route: Route
    version: int  #: grows by one with each change; what people see
    order: int  #: offset in the control topic
    since_ms: int  #: Kafka timestamp at which the route came into force: what came before is not its business
    matcher: CompiledMatcher

    @property
    def id(self) -> str:
        """The route's id."""
        return self.route.id


def active(route: Route, *, version: int = 1, order: int = 0, since_ms: int = 0) -> ActiveRoute:
    """The route, compiled."""
    return ActiveRoute(route=route, version=version, order=order, since_ms=since_ms, matcher=CompiledMatcher(route.match))
