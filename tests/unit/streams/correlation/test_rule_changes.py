"""Versions of rules: what a change makes of what is in force, and what is kept of it."""

from __future__ import annotations

from typing import Any

from streams.correlation.rule_changes import Change, Stock, applied, deleted, disabled, planned, text_of, versions
from streams.documents import read_yaml
from streams.records import ControlRecord


def rule(rule_id: str = "r", **more: Any) -> dict[str, Any]:
    counts = {"type": "event_count", "events": ["a"], "timespan": "1m", "condition": {"gte": 2}}
    return {"id": rule_id, "events": {"a": {"type": "x.y"}}, "correlation": counts, **more}


class Topic:
    """What a compacted topic does: of each key the last record stays."""

    def __init__(self) -> None:
        self.records: list[ControlRecord] = []

    def write(self, record: ControlRecord) -> None:
        key = {"id": f"{record.id}@{record.version}"}
        self.records += [ControlRecord(**{**{name: getattr(record, name) for name in record.__dataclass_fields__}, **key}), record]

    def stock(self, *, compacted: bool) -> Stock:
        stock = Stock()
        last = {record.id: offset for offset, record in enumerate(self.records)}
        for offset, record in enumerate(self.records):
            if not compacted or last[record.id] == offset:
                stock.take(record, offset)
        return stock

    def apply(self, document: dict[str, Any], who: str = "ann") -> list[Change]:
        changes = planned(self.stock(compacted=True), [document])
        for change in changes:
            if change.kind != "unchanged":
                self.write(applied(change, who, f"{who}'s reason"))
        return changes


def test_a_change_makes_the_next_version_and_equal_content_makes_none() -> None:
    topic = Topic()
    assert [(change.kind, change.version) for change in topic.apply(rule())] == [("new", 1)]
    assert [(change.kind, change.version) for change in topic.apply(dict(reversed(rule().items())))] == [("unchanged", 1)]
    (changed,) = topic.apply(rule(severity="error"))
    assert (changed.kind, changed.version) == ("changed", 2)
    assert "+severity: error" in changed.diff().splitlines()
    assert [line for line in changed.diff().splitlines() if line.startswith("-")] == ["--- in force"]


def test_the_history_is_the_same_before_and_after_compaction() -> None:
    topic = Topic()
    topic.apply(rule())
    topic.apply(rule(title="second"), who="bob")
    topic.write(disabled(Change(id="r", version=3, kind="changed", before=None, after=rule(enabled=False)), "worker-1", "too slow"))
    topic.write(deleted(Change(id="r", version=4, kind="deleted", before=None, after=rule(enabled=False)), "bob", "enough"))
    topic.apply(rule(title="again"))
    for compacted in (False, True):
        found = versions(topic.stock(compacted=compacted), "r")
        assert [(each.version, each.type, each.who, each.in_force) for each in found] == [
            (1, "rule.applied", "ann", False),
            (2, "rule.applied", "bob", False),
            (3, "rule.disabled", "worker-1", False),
            (4, "rule.deleted", "bob", False),
            (5, "rule.applied", "ann", True),
        ]
        assert found[1].document == rule(title="second")
        assert found[2].why == "too slow"


def test_a_deleted_rule_is_not_in_force_and_goes_on_counting_when_it_comes_back() -> None:
    topic = Topic()
    topic.apply(rule())
    topic.write(deleted(Change(id="r", version=2, kind="deleted", before=None, after=rule()), "bob", ""))
    stock = topic.stock(compacted=True)
    assert stock.in_force("r") is None
    assert [each.in_force for each in versions(stock, "r")] == [False, False]
    assert [(change.kind, change.version) for change in topic.apply(rule())] == [("new", 3)]


def test_rules_do_not_touch_each_others_versions() -> None:
    topic = Topic()
    topic.apply(rule())
    topic.apply(rule("s"))
    topic.apply(rule("s", title="t"))
    stock = topic.stock(compacted=True)
    assert [len(versions(stock, rule_id)) for rule_id in ("r", "s", "none")] == [1, 2, 0]


def test_the_text_of_a_rule_is_the_rule() -> None:
    document = rule(title="yes", tags=["no", "1e3", "12:30"], enabled=False, confidence=0.5, description="a: b\n# c")
    text = text_of(document)
    assert list(read_yaml(text.encode(), code="x")) == [document]
    assert text.startswith("id: r\ntitle: 'yes'\n")
