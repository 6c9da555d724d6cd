"""The fold of a matches partition: versions, repeats, clocks; and a dump that goes on the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from streams.correlation.partition import CorrelatePartition
from streams.records import CompositeEvent

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND


def rule(**correlation: Any) -> dict[str, Any]:
    return {
        "id": "r", "events": {"e": {"type": "x"}},
        "correlation": {"type": "event_count", "group-by": ["data.u"], "timespan": "1m", "condition": {"gte": 2}, **correlation},
    }  # fmt: skip


class Partition:
    """Feeds records as plain fields."""

    def __init__(self, *, batched: bool = True) -> None:
        self.batched = batched  #: or a `Match` each, as earlier versions of the product wrote them
        self.state = CorrelatePartition()
        self.offset = 0

    def change(self, order: int, document: dict[str, Any] | None = None, *, version: int = 1) -> None:
        content = orjson.dumps(document).decode() if document is not None else "{}"
        plain = {
            "rule_id": "r", "rule_version": order, "content": content, "deleted": document is None,
            "data": orjson.dumps({"version": version}).decode(),
        }  # fmt: skip
        assert self.state.apply("RuleChange", plain, T0) == []

    def match(
        self, seconds: float, *, order: int = 0, offset: int | None = None, ordinal: int = 0, id: str | None = None
    ) -> list[CompositeEvent]:
        self.offset = self.offset + 1 if offset is None else offset
        plain = {
            "id": id or f"e{self.offset}", "type": "x", "source": "s", "time": T0 + round(seconds * SECOND),
            "tenant": "default", "correlation_id": "c", "data": "{}", "rule_id": "r", "rule_version": order, "names": ["e"],
            "group_key": '["ann"]', "topic": "t", "partition": 0, "offset": self.offset, "ordinal": ordinal,
        }  # fmt: skip
        if self.batched:
            rule = [plain["rule_id"], order, plain["names"]]
            row = [0, self.offset, ordinal, *(plain[name] for name in ("time", "id", "type", "source", "tenant", "correlation_id")),
                   plain["group_key"], "{}", None]  # fmt: skip
            data = orjson.dumps({"rules": [rule], "rows": [row]}).decode()
            return self.state.apply("MatchBatch", {"topic": "t", "partition": 0, "data": data}, T0)
        return self.state.apply("Match", plain, T0)

    def watermark(self, seconds: float, *, offset: int = 0) -> list[CompositeEvent]:
        marks = [{"topic": "t", "partition": 0, "time": T0 + round(seconds * SECOND), "offset": offset, "idle": False}]
        return self.state.apply("Watermark", {"level": 0, "marks": marks, "data": '{"partitions": {"t": 1}}'}, T0)


@pytest.mark.parametrize("batched", [True, False])
def test_a_match_that_is_written_twice_counts_once(batched: bool) -> None:
    partition = Partition(batched=batched)
    partition.change(0, rule())
    assert partition.match(0, offset=5) == []
    assert partition.match(0, offset=5, id="another id, same place") == []
    assert partition.match(1, offset=4) == []
    assert partition.state.counters.repeated == 2
    assert [composite.event_count for composite in partition.match(1, offset=5, ordinal=1, id="b")] == [2]


@pytest.mark.parametrize("batched", [True, False])
def test_what_was_matched_by_an_older_version_does_not_hide_it_from_the_newer(batched: bool) -> None:
    """Given a worker that did not know the new version yet, when another matches the same records by it, then they count."""
    partition = Partition(batched=batched)
    partition.change(0, rule())
    partition.match(0, offset=5)
    partition.change(1, rule(), version=2)
    partition.match(1, offset=7)  # by somebody who sleeps
    assert partition.match(0, order=1, offset=5) == []
    assert [composite.event_count for composite in partition.match(1, order=1, offset=7)] == [2]
    assert partition.state.counters.repeated == 0


@pytest.mark.parametrize("batched", [True, False])
def test_matches_of_other_versions_are_ignored_and_told_apart(batched: bool) -> None:
    partition = Partition(batched=batched)
    assert partition.match(0, order=7) == []
    assert partition.state.counters.unknown == 1
    partition.change(7, rule(), version=2)
    assert partition.match(0, order=3) == []
    assert partition.state.counters.outdated == 1
    assert partition.match(0, order=7) == []
    (composite,) = partition.match(1, order=7)
    assert (composite.rule_version, composite.group_key, composite.correlation_id) == (2, {"data.u": "ann"}, "c")


def test_a_deleted_rule_does_not_come_back_by_a_late_marker() -> None:
    partition = Partition()
    partition.change(3, rule())
    partition.match(0, order=3)
    partition.change(5, None)
    partition.change(3, rule())
    assert partition.match(1, order=3) == []
    assert partition.state.counters.outdated == 1
    partition.change(8, rule(), version=3)
    assert partition.match(2, order=8) == []
    assert [composite.rule_version for composite in partition.match(3, order=8)] == [3]


def test_a_rule_of_a_later_product_version_stops_the_older_version_and_nothing_else() -> None:
    partition = Partition()
    partition.change(0, rule())
    partition.change(4, rule(type="of-the-future"))
    assert partition.match(0, order=0) == []
    assert partition.match(0, order=4) == []


def test_the_clock_makes_records_late_and_final_output_speak() -> None:
    partition = Partition()
    partition.change(0, rule(output="final", grace="10s"))
    partition.match(0)
    partition.match(5)
    assert partition.watermark(15) == []
    assert [composite.event_ids for composite in partition.watermark(15.000001)] == [("e1", "e2")]
    partition.match(5)
    assert partition.state.engine.counters("r").late == 1


def test_dumped_and_loaded_it_goes_on_the_same() -> None:
    partition = Partition()
    partition.change(0, rule())
    partition.change(2, rule(), version=2)
    partition.watermark(0)
    partition.match(0, order=2)
    loaded = Partition()
    loaded.state.load(orjson.loads(orjson.dumps(partition.state.dump())))
    for rule_id, key in partition.state.engine.groups():
        loaded.state.engine.load_group(rule_id, key, orjson.loads(orjson.dumps(partition.state.engine.dump_group(rule_id, key))))
    loaded.offset = partition.offset
    assert loaded.match(1, order=2, offset=1) == partition.match(1, order=2, offset=1) == []  # below the last of its source
    assert loaded.match(1, order=2) == partition.match(1, order=2) != []


def test_a_batch_is_its_matches_one_after_the_other() -> None:
    """Of two versions and a rule that is not known, with repeats."""
    rules = [["r", 7, ["e"]], ["r", 3, ["e"]], ["unknown", 1, ["e"]]]
    places = [(0, 1, 0), (0, 2, 0), (0, 2, 0), (1, 2, 1), (2, 3, 0), (0, 1, 5), (0, 4, 0)]
    rows = [[rule_, offset, ordinal, T0 + number, f"e{number}", "x", "s", "default", "c", '["ann"]', "{}", None]
            for number, (rule_, offset, ordinal) in enumerate(places)]  # fmt: skip
    once, apart = Partition(), Partition()
    for partition in (once, apart):
        partition.change(7, rule(condition={"gte": 3}))
    data = orjson.dumps({"rules": rules, "rows": rows}).decode()
    said = once.state.apply("MatchBatch", {"topic": "t", "partition": 0, "data": data}, T0)
    assert [composite.event_ids for composite in said] == [("e0", "e1", "e6")]
    assert said == [
        composite
        for row in rows
        for composite in apart.state.apply(
            "MatchBatch", {"topic": "t", "partition": 0, "data": orjson.dumps({"rules": rules, "rows": [row]}).decode()}, T0
        )
    ]
    counters = once.state.counters
    assert counters == apart.state.counters
    assert (counters.matches, counters.repeated, counters.outdated, counters.unknown) == (7, 2, 1, 1)
