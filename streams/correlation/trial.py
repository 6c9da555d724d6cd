"""Trying rules on records from a file: the same index and engine as in the worker, one partition, no server. Pure.

Memory does not grow with the number of records: lines go in one by one, composites come out one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from streams import limits
from streams.correlation.actions import Intended, Unrendered, render
from streams.correlation.chain import Chain
from streams.correlation.confidence import event_values
from streams.correlation.rules import ActiveRule, Rule
from streams.errors import InvalidInput
from streams.matching.matchers import RecordView
from streams.nesting import parsed
from streams.records import FIRST_US, LAST_US, CompositeEvent, iso, to_micros

_FIELDS = {"source": "", "subject": "", "tenant": "default", "correlation_id": "", "severity": "info"}


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is no record, and why not."""

    line: int  #: number, from 1
    code: str
    pointer: str | None  #: to the field at fault
    message: str

    @classmethod
    def of(cls, line: int, error: InvalidInput) -> BrokenLine:
        """What the error says of the line."""
        return cls(line, error.code, error.pointer, error.message)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"line": self.line, "code": self.code, "pointer": self.pointer, "message": self.message}

    def __str__(self) -> str:
        return f"line {self.line}: {self.code}: {self.message}"


@dataclass(slots=True)
class Summary:
    """What happened to the lines of a trial."""

    records: int = 0
    matched: int = 0  #: matches: a record counts once per rule and group
    late: int = 0
    duplicates: int = 0
    errors: int = 0  #: broken lines, and records on which an expression of a rule failed
    broken_count: int = 0
    broken: list[BrokenLine] = field(default_factory=list)  #: the first of them
    composites: int = 0
    actions: int = 0  #: what composites would bring about
    unrendered: dict[str, int] = field(default_factory=dict)  #: why actions could not be performed, and how many: the first reasons

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "records": self.records, "matched": self.matched, "late": self.late, "duplicates": self.duplicates, "errors": self.errors,
            "composites": self.composites, "actions": self.actions, "unrendered": dict(self.unrendered),
            "broken": [line.to_dict() for line in self.broken],
        }  # fmt: skip


_BROKEN_NAMED_MAX = 100
_UNRENDERED_NAMED_MAX = 20


#: Lines between two looks for what groups have put off (`Engine.flush`).
_FLUSH_LINES = 1000


class Trial:
    """One run of some rules over records in the order in which they arrive."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        active = [ActiveRule(rule=rule, version=1, order=0) for rule in rules]
        self._chain = Chain(active)
        self._rules = [rule.rule for rule in active]
        self._by_id = {rule.id: rule for rule in self._rules}
        self._actions: list[Intended] = []
        self._last_us: int | None = None
        self._lines = 0
        self.summary = Summary()

    def line(self, text: bytes | str) -> Iterator[CompositeEvent]:
        """The next line; the composites that it leads to. A broken line is counted and named in `summary`; an empty one is skipped."""
        self._lines += 1
        if not text.strip():
            return
        try:
            topic, plain = read_record(text, default_id=f"line-{self._lines:012d}")
        except InvalidInput as error:
            self.summary.errors += 1
            self.summary.broken_count += 1
            if len(self.summary.broken) < _BROKEN_NAMED_MAX:
                self.summary.broken.append(BrokenLine.of(self._lines, error))
            return
        self.summary.records += 1
        time_us = plain["time"]
        if self._last_us is None or time_us > self._last_us:
            self._last_us = time_us
            yield from self._counted(self._chain.advance(time_us))
        yield from self._counted(self._chain.record(topic, RecordView(plain), self._lines))
        if self._lines % _FLUSH_LINES == 0:
            yield from self._counted(self._chain.flush())

    def finish(self, until: datetime | None = None) -> Iterator[CompositeEvent]:
        """The end of the records: the watermark moves to `until`, by default far enough for everything to be decided."""
        for _ in range(2):  # the first only notes that nothing more has come
            yield from self._counted(self._chain.flush())
        if until is not None:
            yield from self._counted(self._chain.finish(to_micros(until)))
        elif self._last_us is not None:
            longest = max((rule.timespan_us + rule.gap_us + rule.grace_us for rule in self._rules), default=0)
            yield from self._counted(self._chain.finish(self._last_us + max(1, longest)))
        for rule in self._rules:
            counters = self._chain.engine.counters(rule.id)
            self.summary.matched += counters.matched
            self.summary.late += counters.late
            self.summary.duplicates += counters.duplicates
        self.summary.errors += sum(self._chain.index.errors.values())

    def actions(self) -> list[Intended]:
        """What the composite given last would bring about."""
        return self._actions

    def _counted(self, composites: Iterable[CompositeEvent]) -> Iterator[CompositeEvent]:
        for composite in composites:
            self.summary.composites += 1
            draft, rule = self._chain.made_from, self._by_id[composite.rule_id]
            self._actions = [] if draft is None or not rule.actions else render(rule, composite, event_values(draft.found.records))
            for each in self._actions:
                self.summary.actions += 1
                if isinstance(each, Unrendered):
                    self._unrendered(f"{rule.id}/{each.index} ({each.action}): {each.message}")
            yield composite

    def _unrendered(self, reason: str) -> None:
        known = self.summary.unrendered
        if reason in known or len(known) < _UNRENDERED_NAMED_MAX:
            known[reason] = known.get(reason, 0) + 1


def read_record(text: bytes | str, *, default_id: str, default_time_us: int | None = None) -> tuple[str | None, dict[str, Any]]:
    """Topic (if given) and plain fields of a record written as a JSON object. Raises `InvalidInput` (`record.invalid`).

    Without a default a record must say its time: windows hang on it.
    """
    try:
        record = parsed(text, levels=limits.PAYLOAD_DEPTH_MAX + 1)  # its payload lies one level down
    except ValueError as error:
        raise InvalidInput("record.invalid", f"This is no JSON: {error}.") from error
    if not isinstance(record, dict):
        raise InvalidInput("record.invalid", "A record is a JSON object.")
    topic = record.pop("topic", None)
    if topic is not None and not isinstance(topic, str):
        raise InvalidInput("record.invalid", "topic is a text.", pointer="/topic")
    if not isinstance(record.get("type"), str) or not record["type"]:
        raise InvalidInput("record.invalid", "A record needs a type.", pointer="/type")
    plain = {**_FIELDS, "id": default_id, **{name: value for name, value in record.items() if value is not None}}
    for name in ("id", "source", "subject", "tenant", "correlation_id"):
        if not isinstance(plain[name], str):
            raise InvalidInput("record.invalid", f"{name} is a text.", pointer=f"/{name}")
    given = record.get("time")
    plain["time"] = default_time_us if given is None and default_time_us is not None else _time(given)
    data = plain.get("data", {})
    if isinstance(data, str):
        try:
            parsed(data)
        except ValueError as error:
            raise InvalidInput("record.invalid", f"data is a text, but no JSON: {error}.", pointer="/data") from error
        plain["data"] = data
    else:
        plain["data"] = orjson.dumps(data).decode()
    return topic, plain


def _time(value: Any) -> int:
    if isinstance(value, str):
        try:
            time_us = to_micros(datetime.fromisoformat(value))
        except ValueError:
            pass
        else:
            if FIRST_US <= time_us <= LAST_US:
                return time_us
    raise InvalidInput("record.invalid", "A record needs a time, e.g. 2026-01-31T12:00:00Z.", pointer="/time")


def parse_until(text: str) -> datetime:
    """An instant as text. Raises `InvalidInput` (`time.invalid`)."""
    try:
        time = datetime.fromisoformat(text)
        iso(time)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("time.invalid", f"{text!r} is not a time: write e.g. 2026-01-31T12:00:00Z.") from error
    return time
