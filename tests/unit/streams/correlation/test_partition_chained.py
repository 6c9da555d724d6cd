"""Composites that a partition of matches reads: those that lie in the log twice, and those first said before the rule was there."""

from __future__ import annotations

from typing import Any

import orjson

from streams.correlation.partition import CorrelatePartition
from streams.records import CompositeEvent
from streams.topics import COMPOSITES

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
RULE = {
    "id": "r", "events": {"e": {"rule": "up"}},
    "correlation": {"type": "event_count", "group-by": ["data.u"], "timespan": "1m", "condition": {"gte": 2}, "after-match": "continue"},
}  # fmt: skip


class Reader:
    """Gives matches of composites to a partition."""

    def __init__(self) -> None:
        self.state = CorrelatePartition()
        self.offset = 0
        change = {"rule_id": "r", "rule_version": 0, "content": orjson.dumps(RULE).decode(), "deleted": False, "data": '{"version": 1}'}
        self.state.apply("RuleChange", change, T0)

    def read(self, id: str, second: int, revision: int, led_by: int, **extra: Any) -> list[CompositeEvent]:
        """The next record of the composites: a composite at some second, said because of the matches record `led_by`."""
        self.offset += 1
        told = {"after": [[T0, "t", 0, second], f"of-{id}", 0], "said": [led_by, revision], **extra}
        row = [0, self.offset, 0, T0 + second * SECOND, id, "composite.up", "s", "default", "", '["ann"]', "{}", told]
        data = orjson.dumps({"rules": [["r", 0, ["e"]]], "rows": [row]}).decode()
        return self.state.apply("MatchBatch", {"topic": COMPOSITES, "partition": 0, "data": data}, T0)

    def over_a_restart(self) -> None:
        """Another takes over from a checkpoint."""
        other = CorrelatePartition()
        other.load(orjson.loads(orjson.dumps(self.state.dump())))
        for rule_id, key in self.state.engine.groups():
            other.engine.load_group(rule_id, key, orjson.loads(orjson.dumps(self.state.engine.dump_group(rule_id, key))))
        self.state = other


def before(second: int) -> dict[str, Any]:
    return {"time_us": T0 + second * SECOND, "tenant": "default", "correlation_id": "", "names": ["e"], "data": "{}", "value": None}


def test_what_was_taken_back_does_not_come_back_when_its_append_was_stored_again_late() -> None:
    for restarted in (False, True):
        reader = Reader()
        assert reader.read("a", 1, 0, led_by=10) == []
        assert reader.read("b", 2, 0, led_by=11)[0].event_ids == ("a", "b")
        (taken_back,) = reader.read("a", 1, 1, led_by=12, gone=True)
        assert taken_back.retracted
        if restarted:
            reader.over_a_restart()
        assert reader.read("a", 1, 0, led_by=10) == []
        assert reader.read("b", 2, 0, led_by=11) == []
        assert reader.read("a", 1, 1, led_by=12, gone=True) == []
        assert reader.state.counters.repeated == 3
        assert reader.read("c", 3, 0, led_by=12)[0].event_ids == ("b", "c")  # another of the same record


def test_what_is_said_again_after_it_was_taken_back_counts() -> None:
    reader = Reader()
    reader.read("a", 1, 0, led_by=10)
    reader.read("a", 1, 1, led_by=11, gone=True)
    reader.read("a", 1, 2, led_by=11)
    assert [composite.event_ids for composite in reader.read("b", 2, 0, led_by=12)] == [("a", "b")]


def test_a_revision_of_what_was_said_before_the_rule_came_is_read_whether_or_not_its_group_is_kept() -> None:
    alone, beside = Reader(), Reader()
    beside.read("b", 3, 0, led_by=9)
    assert alone.read("a", 1, 1, led_by=10, before=before(1)) == []
    (said,) = beside.read("a", 1, 1, led_by=10, before=before(1))
    assert said.event_ids == ("a", "b")
    assert [composite.event_ids for composite in alone.read("b", 3, 0, led_by=11)] == [("a", "b")]
