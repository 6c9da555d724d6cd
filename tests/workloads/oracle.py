"""An independent telling of what happens, written from the description of the language and not from the engine.

It knows a part of it: module operations, waits and transforms under dependencies and limits, in `parallel` and `conditional`, with retries,
time-outs and fallbacks, and compensation. Nobody commands anything. It goes by time: a list is told from its start to its end, and again
with the moment from which nothing new starts, once that is known. Times are milliseconds after the start.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, TypeAlias

from tests.workloads.behaviour import planned

KINDS = frozenset({"module-operation", "wait", "transform", "parallel", "conditional"})
#: A step of the document.
Value: TypeAlias = Mapping[str, Any]
NEVER = math.inf
RETRYABLE = frozenset({"timeout", "unavailable"})
NOT_RETRYABLE = frozenset({"invalid", "not-found", "conflict", "denied", "reference.missing", "expression.failed"})


class Tie(Exception):
    """Two things happen at one moment whose order this telling does not know."""


@dataclass(slots=True)
class Told:
    """How a step went. `end` is None while it has not begun."""

    status: str
    start: float = 0
    end: float = 0
    attempts: int = 0
    error: str = ""
    retryable: bool = False
    over: bool = False  #: the step's own time-out ended it: it is not tried again
    inside: dict[str, Told] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """How an execution went."""

    status: str
    duration_ms: float
    steps: dict[str, Told]


def tell(document: Value, execution_id: str = "test") -> Outcome:
    """The outcome of a workflow. Raises `Tie`."""
    return _Oracle(document, execution_id).tell()


class _Oracle:
    def __init__(self, document: Value, execution_id: str) -> None:
        self.document = document
        self.execution_id = execution_id

    def tell(self) -> Outcome:
        steps = self.list_of(self.document["steps"], 0, NEVER, limit=self.document.get("max-concurrency"))
        end = max(told.end for told in steps.values())
        every = _all(steps)
        failed = [told for told in steps.values() if told.status in ("failed", "timed_out")]
        if not failed:
            return Outcome(status="completed", duration_ms=end, steps=every)
        end += sum(self.undoing(self.document["steps"], every))
        return Outcome(status="failed", duration_ms=end, steps=every)

    def undoing(self, values: Sequence[Value], every: Mapping[str, Told]) -> list[float]:
        """How long each compensation takes; they run one after another."""
        took = []
        for value in _values(values):
            if "compensation" in value and value["id"] in every and every[value["id"]].status == "completed":
                undo = {**value["compensation"], "id": value["id"] + "~compensation"}
                took.append(self.step(undo, 0, NEVER, child=False).end)
        return took

    # --- lists --------------------------------------------------------------------------------------------------------

    def list_of(
        self,
        values: Sequence[Value],
        start: float,
        stop: float,
        *,
        limit: int | None,
        parallel: Value | None = None,
    ) -> dict[str, Told]:
        """All steps of a list that begins at `start`, where nothing new starts from `stop` on."""
        fails = parallel is None or parallel.get("fail-fast", False)
        first = self.run(values, start, stop, limit, child=parallel is not None)
        ends = sorted(told.end for told in first.values() if told.status in ("failed", "timed_out"))
        if not fails or not ends or ends[0] >= stop:
            return first
        if ends[1:2] == ends[:1]:
            raise Tie
        fast = parallel is not None
        cause = {name: told for name, told in first.items() if told.end == ends[0] and told.status in ("failed", "timed_out")}
        return self.run(values, start, ends[0], limit, child=fast, cancel_at=ends[0] if fast else NEVER, known=cause)

    def run(
        self,
        values: Sequence[Value],
        start: float,
        stop: float,
        limit: int | None,
        *,
        child: bool,
        cancel_at: float = NEVER,
        known: Mapping[str, Told] = MappingProxyType({}),
    ) -> dict[str, Told]:
        """`known`: what is told already, the step whose failure is the reason for `stop`."""
        told: dict[str, Told] = {}
        ready: list[tuple[float, int]] = [(start, index) for index, value in enumerate(values) if not value.get("dependencies")]
        running: list[tuple[float, int]] = []
        now = start
        while ready or running:
            ready.sort()
            while ready and ready[0][0] <= now and (limit is None or len(running) < limit):
                _, index = ready.pop(0)
                value = values[index]
                if now > stop or (now == stop and stop != start):
                    if now == stop and value["id"] not in known:
                        raise Tie
                    told[value["id"]] = Told(status="cancelled", start=stop, end=stop)
                    continue
                found = known.get(value["id"]) or self.step(value, now, stop, child=child)
                if found.end > cancel_at:
                    found = _cancelled(found, cancel_at)
                told[value["id"]] = found
                heapq.heappush(running, (found.end, index))
            if not running:
                if not ready:
                    break
                now = ready[0][0]
                continue
            now, index = heapq.heappop(running)
            if told[values[index]["id"]].status in ("completed", "skipped"):
                ready += [(now, other) for other in self.freed(values, told, values[index]["id"], running, now)]
            if running and running[0][0] == now and stop == now:
                raise Tie
        for value in values:
            told.setdefault(value["id"], Told(status="cancelled", start=now, end=min(stop, now)))
        return told

    def freed(
        self, values: Sequence[Value], told: Mapping[str, Told], ended: str, running: list[tuple[float, int]], now: float
    ) -> list[int]:
        """Steps that have become ready, since `ended` was the last of their dependencies."""
        busy = {values[index]["id"] for _, index in running}
        found = []
        for index, value in enumerate(values):
            needs = value.get("dependencies", ())
            if ended in needs and all(
                name in told and name not in busy and told[name].end <= now and told[name].status in ("completed", "skipped")
                for name in needs
            ):
                found.append(index)
        return found

    # --- steps --------------------------------------------------------------------------------------------------------

    def step(self, value: Value, start: float, stop: float, *, child: bool) -> Told:
        """A step that begins at `start`: attempts, delays, fallbacks."""
        handling = self.handling(value)
        timeout = value.get("timeout", {True: 30_000, False: 300_000}[child] if value["type"] == "module-operation" else NEVER)
        policy, attempt, now = handling.get("retry-policy"), 0, start
        while True:
            attempt += 1
            found = self.attempt(value, now, stop, attempt, start + timeout)
            found.start, found.attempts = start, attempt
            if found.status in ("completed", "cancelled"):
                return found
            if found.over or policy is None or attempt > policy.get("max-retries", 3) or not _retryable(policy, found):
                return self.fall_back(value, handling, found, stop)
            if found.end >= stop:
                if found.end == stop:
                    raise Tie
                return self.fall_back(value, handling, found, stop)
            delay = _delay(policy, attempt, f"{self.execution_id}/{value['id']}/{attempt}")
            again = found.end + delay
            if again >= stop:
                if again == stop:
                    raise Tie
                ended = min(stop, start + timeout)
                if ended < stop:
                    late = _late(ended, start, attempt)
                    return self.fall_back(value, handling, late, stop)
                return Told(status="cancelled", start=start, end=stop, attempts=attempt)
            if again >= start + timeout:
                late = Told(
                    status="timed_out", start=start, end=start + timeout, attempts=attempt, error="timeout", over=True, inside=found.inside
                )
                return self.fall_back(value, handling, late, stop)
            now = again

    def handling(self, value: Value) -> Value:
        inherited = self.document.get("error-handling", {}) if value["type"] == "module-operation" else {}
        return {**inherited, **value.get("error-handling", {})}

    def attempt(self, value: Value, now: float, stop: float, attempt: int, limit: float) -> Told:
        match value["type"]:
            case "module-operation":
                return _asked(value, now, attempt, limit)
            case "transform":
                return Told(status="completed", end=now)
            case "wait":
                end = now + value["for"]
                return (
                    Told(status="completed", end=end) if end <= limit else Told(status="timed_out", end=limit, error="timeout", over=True)
                )
            case "parallel":
                return self.parallel(value, now, stop, limit)
            case _:
                return self.conditional(value, now, stop, limit)

    def parallel(self, value: Value, now: float, stop: float, limit: float) -> Told:
        inside = self.list_of(value["steps"], now, stop, limit=value.get("max-concurrency"), parallel=value)
        end = max([now, *(told.end for told in inside.values())])
        if end > limit:
            raise Tie  # what a time-out cancels inside is not told
        rejected = sorted((told.end, told.error) for told in inside.values() if told.status in ("failed", "timed_out"))
        found = Told(status="completed", end=end, inside=inside)
        if rejected and (value.get("fail-fast") or value.get("require") == "all"):
            if len(rejected) > 1 and rejected[0][0] == rejected[1][0]:
                raise Tie
            found.status, found.error = "failed", rejected[0][1]
            found.end = rejected[0][0] if value.get("fail-fast") else end
        elif end >= stop and any(told.status == "cancelled" for told in inside.values()):
            found.status = "cancelled"
        return found

    def conditional(self, value: Value, now: float, stop: float, limit: float) -> Told:
        taken = value["condition"]["expression"] in ("true", "input.n > 0")
        chosen, other = (value["then"], value.get("else")) if taken else (value.get("else"), value["then"])
        inside = {step["id"]: Told(status="skipped", end=now) for step in _values([] if other is None else [other])}
        if chosen is None:
            return Told(status="completed", end=now, inside=inside)
        child = self.step(chosen, now, stop, child=False)
        if child.end > limit:
            raise Tie
        inside[chosen["id"]] = child
        status = {"completed": "completed", "skipped": "completed", "cancelled": "cancelled"}.get(child.status, "failed")
        return Told(status=status, end=child.end, error=child.error, inside=inside)

    def fall_back(self, value: Value, handling: Value, found: Told, stop: float) -> Told:
        if found.end == stop:
            raise Tie
        stopping = found.end > stop
        for fallback in handling.get("fallback-actions", ()):
            action = fallback["action"]
            if fallback["condition"] not in ("error", found.error) or (stopping and action not in ("skip", "use-value", "fail")):
                continue
            match action:
                case "skip":
                    return Told(status="skipped", start=found.start, end=found.end, attempts=found.attempts, inside=found.inside)
                case "use-value":
                    return Told(status="completed", start=found.start, end=found.end, attempts=found.attempts, inside=found.inside)
                case "fail":
                    break
                case _:
                    raise Tie  # not part of what is told
        return found


def _asked(value: Value, now: float, attempt: int, limit: float) -> Told:
    entry = planned(value["operation"], value["parameters"], attempt)
    answered = NEVER if entry is None else now + entry["after"]
    patience = now + value.get("attempt-timeout", NEVER)
    if answered <= min(limit, patience):  # an answer at the very moment of a time-out counts
        assert entry is not None
        failure = entry.get("error")
        if failure is None:
            return Told(status="completed", end=answered)
        return Told(status="failed", end=answered, error=failure["code"], retryable=failure.get("retryable", False))
    if limit <= patience:
        return _late(limit)
    return Told(status="timed_out", end=patience, error="timeout")


def _late(end: float, start: float = 0, attempts: int = 0) -> Told:
    """The step's own time-out."""
    return Told(status="timed_out", start=start, end=end, attempts=attempts, error="timeout", over=True)


def _retryable(policy: Value, found: Told) -> bool:
    code = found.error
    if code in policy.get("non-retryable", ()):
        return False
    if code in policy.get("retryable", ()) or code in RETRYABLE:
        return True
    return code not in NOT_RETRYABLE and found.retryable


def _delay(policy: Value, retry: int, seed: str) -> int:
    first, multiplier = policy.get("initial-interval", 1000), Fraction(str(policy.get("multiplier", 2)))
    grown = {"fixed": first, "linear": first * retry, "exponential": first * multiplier ** (retry - 1)}
    delay = Fraction(min(grown[policy.get("backoff-strategy", "exponential")], policy.get("max-interval", 60_000)))
    u = Fraction(int(hashlib.sha256(seed.encode()).hexdigest(), 16) >> (256 - 53), 2**53)
    return math.floor(delay * (1 - Fraction(str(policy.get("jitter", 0))) * u))


def _cancelled(found: Told, at: float) -> Told:
    inside = {name: told if told.end <= at else _cancelled(told, at) for name, told in found.inside.items()}
    return Told(status="cancelled", start=found.start, end=at, attempts=-1, inside=inside)


def _values(values: Sequence[Value]) -> list[Value]:
    """Steps of a list at any depth."""
    found: list[Value] = []
    for value in values:
        found.append(value)
        found += _values([*value.get("steps", ()), *(value[name] for name in ("then", "else") if name in value)])
    return found


def _all(steps: Mapping[str, Told]) -> dict[str, Told]:
    found: dict[str, Told] = {}
    for name, told in steps.items():
        found |= {name: told, **_all(told.inside)}
    return found
