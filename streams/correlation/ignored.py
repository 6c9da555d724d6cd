"""What a rule did not take part of, or had to forget, is reported: which events tell of it, and how often. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.correlation.rule_changes import SOURCE
from streams.correlation.tallies import EXAMPLES_MAX
from streams.records import Json, SystemEvent, derived_id, from_micros

#: Of one rule and reason at most one event in this time, microseconds.
INTERVAL_US = 60_000_000

#: Figure → (type of the event, reason, where its examples are, what it means).
_REASONS: Mapping[str, tuple[str, str, str, str]] = {
    "late": (
        "rule.records-ignored", "late", "late_ids",
        "older than the watermark when they came; a longer grace would take them",
    ),
    "ahead": (
        "rule.records-ignored", "ahead", "ahead_ids",
        "more than five minutes ahead of their arrival: the clock of their source is wrong",
    ),
    "evicted": ("rule.limit-reached", "groups", "", "groups forgotten because there were too many: group by fewer different values"),
    "overflowed": ("rule.limit-reached", "records-per-group", "", "counted, but no longer named: their group holds too many"),
}  # fmt: skip

_Place = str  #: where figures come from: a partition, or the match stage


class Ignored:
    """Compares figures with what they were, and tells what is new, seldom enough."""

    def __init__(self, reporter: str) -> None:
        self._reporter = reporter
        self._known: dict[_Place, dict[tuple[str, int], Json]] = {}  # place → (rule, order) → its figures of the last look
        self._pending: dict[tuple[str, str], _Pending] = {}  # (rule, figure) → what is to be told
        self._told_us: dict[tuple[str, str], int] = {}

    def events(self, places: Mapping[_Place, Mapping[str, Json]], now_us: int) -> list[SystemEvent]:
        """The events to be written now. What a place had counted when it was first seen was told by the one who had it before."""
        for place, by_rule in places.items():
            before = self._known.get(place)
            now = {(rule_id, figures["order"]): dict(figures) for rule_id, figures in by_rule.items()}
            if before is not None:
                for key, figures in now.items():
                    self._compare(key[0], before.get(key, {}), figures)
            self._known[place] = now
        for gone in self._known.keys() - places.keys():
            del self._known[gone]
        return [self._event(key, now_us) for key in list(self._pending) if now_us - self._told_us.get(key, -INTERVAL_US) >= INTERVAL_US]

    def _compare(self, rule_id: str, before: Json, figures: Json) -> None:
        for name, (_, _, examples, _) in _REASONS.items():
            more = figures.get(name, 0) - before.get(name, 0)
            if more > 0:
                pending = self._pending.setdefault((rule_id, name), _Pending())
                pending.count += more
                pending.version = figures["version"]
                if examples:
                    pending.examples = [*pending.examples, *figures.get(examples, ())[-more:]][-EXAMPLES_MAX:]

    def _event(self, key: tuple[str, str], now_us: int) -> SystemEvent:
        rule_id, name = key
        pending = self._pending.pop(key)
        self._told_us[key] = now_us
        type_, reason, _, meaning = _REASONS[name]
        what = "record was" if pending.count == 1 else "records were"
        message = f"{pending.count} {what} {meaning}." if type_ == "rule.records-ignored" else f"{pending.count} {meaning}."
        data: dict[str, Any] = {
            "rule": rule_id, "version": pending.version, "reason": reason, "count": pending.count, "examples": pending.examples,
            "message": message,
        }  # fmt: skip
        return SystemEvent(
            id=derived_id(type_, self._reporter, rule_id, name, now_us), type=type_, source=SOURCE, subject=rule_id,
            time=from_micros(now_us), correlation_id=rule_id, severity="warning", data=data,
        )  # fmt: skip


class _Pending:
    """What is to be told of one rule and figure."""

    __slots__ = ("count", "examples", "version")

    def __init__(self) -> None:
        self.count = 0
        self.version = 0
        self.examples: list[str] = []
