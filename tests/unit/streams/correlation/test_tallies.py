"""Figures of rules: counted in partitions and match stages, put together, told in parts, and reported when something was ignored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from streams.correlation.engine import Engine
from streams.correlation.ignored import INTERVAL_US, Ignored
from streams.correlation.index import RuleIndex
from streams.correlation.parse import parse_rule
from streams.correlation.partition import CorrelatePartition
from streams.correlation.rule_figures import FRESH_S, MATCHING, Reported, told
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Seen
from streams.correlation.tallies import MatchTallies, engine_figures, merged
from streams.matching.matchers import RecordView
from streams.records import Heartbeat, to_micros

SECOND = 1_000_000
T0 = to_micros(datetime(2026, 1, 1, tzinfo=UTC))


def active(rule_id: str = "r", *, order: int = 0, where: str | None = None, **correlation: Any) -> ActiveRule:
    matcher = {"type": "x.y", **({} if where is None else {"where": where})}
    counts = {"type": "event_count", "events": ["a"], "group-by": ["data.k"], "timespan": "1m", "condition": {"gte": 2}, **correlation}
    rule = parse_rule({"id": rule_id, "events": {"a": matcher}, "correlation": counts})
    return ActiveRule(rule=rule, version=order + 1, order=order)


def view(**data: Any) -> RecordView:
    return RecordView({"id": "e", "type": "x.y", "time": T0, "data": orjson.dumps(data).decode()})


def fed(engine: Engine, *seconds: int) -> Engine:
    for number, second in enumerate(seconds):
        engine.feed("r", '["k"]', Seen(T0 + second * SECOND, f"e{number}", names=("a",)), (number,))
    return engine


def test_late_records_are_counted_with_the_newest_ids_and_how_late_they_were() -> None:
    engine = Engine()
    engine.use(active(grace="10s"))
    engine.advance(T0 + 100 * SECOND)
    fed(engine, *range(7), 95)
    (figures,) = engine_figures(engine).values()
    assert (figures["matched"], figures["late"], figures["groups"]) == (8, 7, 1)
    assert figures["late_ids"] == ["e2", "e3", "e4", "e5", "e6"]
    assert figures["late_by_us"] == 84 * SECOND
    assert figures["last_matched_us"] == T0 + 95 * SECOND


def test_counters_are_part_of_a_checkpoint() -> None:
    partition = CorrelatePartition()
    partition.engine.use(active(grace="10s"))
    partition.engine.advance(T0 + 100 * SECOND)
    fed(partition.engine, 1, 95)
    partition.engine.counters("r").composites = 3
    successor = CorrelatePartition()
    successor.load(orjson.loads(orjson.dumps(partition.dump())))
    assert successor.engine.counters("r") == partition.engine.counters("r")
    assert successor.engine.counters("r").late == 1


def test_a_match_stage_counts_by_matcher_and_a_rule_that_stays_goes_on_counting() -> None:
    tallies = MatchTallies()
    stays, changes = active("stays", where="data.v > 1"), active("changes", where="data.w == 'x'")
    index = RuleIndex([stays, changes])
    tallies.use(index)
    for value in (2, 3, None):
        for hit in index.hits("mplp.system.events", view(k=1, **({} if value is None else {"v": value}))):
            tallies.hit(hit, T0)
    before = tallies.figures()
    assert before["stays"]["names"] == {"a": 2}
    assert before["stays"]["errors"] == 1
    assert before["stays"]["last_error"].startswith("a: data.v > 1: ")
    assert before["changes"]["errors"] == 3
    assert before["changes"]["last_error"] == "a: a record has no data.w"
    tallies.use(RuleIndex([stays, active("changes", order=5), active("new", order=6)]))
    after = tallies.figures()
    assert after["stays"] == before["stays"]
    assert [after["changes"][name] for name in ("names", "errors", "last_error", "order")] == [{}, 0, "", 5]
    assert set(after) == {"stays", "changes", "new"}


def test_figures_of_all_places_are_added_and_older_versions_left_out() -> None:
    old = {"version": 1, "order": 3, "matched": 100, "late": 9}
    one = {"version": 2, "order": 7, "matched": 3, "late": 1, "late_ids": ["x"], "late_by_us": 5, "groups": 2, "last_matched_us": 10}
    two = {"version": 2, "order": 7, "matched": 4, "groups": 1, "last_matched_us": 20}
    matching = {"version": 2, "order": 7, "names": {"a": 5, "b": 2}, "last_us": {"a": 9}, "errors": 1, "last_error": "no"}
    tally = merged([{"r": old}, {"r": one}, {"r": matching}, {"r": two, "s": old}])["r"]
    assert (tally.version, tally.matched, tally.late, tally.groups, tally.errors) == (2, 7, 1, 3, 1)
    assert (tally.names, tally.last_us, tally.last_matched_us, tally.late_ids) == ({"a": 5, "b": 2}, {"a": 9}, 20, ("x",))
    assert tally.to_dict()["matchers"]["b"] == {"matched": 2, "last": None}


def beat(worker: str, at_s: float, places: dict[str, Any]) -> list[Heartbeat]:
    time = datetime.fromtimestamp(at_s, UTC)
    return [Heartbeat(type="rules.counted", time=time, process=key, host="", data=data) for key, data in told(worker, places)]


def figures(matched: int, rule_id: str = "r") -> dict[str, Any]:
    return {rule_id: {"version": 1, "order": 1, "matched": matched, "errors": matched}}


def test_a_partition_that_has_moved_is_counted_once_and_a_worker_that_is_gone_no_more() -> None:
    reported = Reported()
    for each in beat("w1", 100.0, {MATCHING: figures(1), "0": figures(10), "1": figures(20)}):
        reported.take(each)
    for each in beat("w2", 102.0, {MATCHING: figures(2), "1": figures(25)}):
        reported.take(each)
    tally = reported.tallies(105.0)["r"]
    assert tally.matched == 1 + 2 + 10 + 25
    assert reported.tallies(101.0 + FRESH_S)["r"].matched == 2 + 25
    assert reported.tallies(110.0 + FRESH_S) == {}


def test_many_rules_are_told_in_parts_that_fit_a_record() -> None:
    places = {MATCHING: {f"r{n}": figures(1)["r"] for n in range(1200)}, "0": {f"r{n}": figures(2)["r"] for n in range(1200)}}
    parts = beat("w", 100.0, places)
    assert [part.process for part in parts] == ["w/rules/0", "w/rules/1", "w/rules/2"]
    reported = Reported()
    for part in parts:
        reported.take(part)
    tallies = reported.tallies(100.0)
    assert len(tallies) == 1200
    assert {tally.matched for tally in tallies.values()} == {3}


class TestIgnored:
    def late(self, count: int, *ids: str, order: int = 1) -> dict[str, Any]:
        return {"r": {"version": order, "order": order, "late": count, "late_ids": list(ids)}}

    def test_what_is_new_is_told_with_examples_and_then_not_for_a_while(self) -> None:
        ignored = Ignored("w")
        assert ignored.events({"0": {}}, 0) == []
        (event,) = ignored.events({"0": self.late(2, "a", "b")}, 1)
        assert (event.type, event.subject, event.severity) == ("rule.records-ignored", "r", "warning")
        assert {name: event.data[name] for name in ("reason", "count", "examples", "version")} == {
            "reason": "late", "count": 2, "examples": ["a", "b"], "version": 1,
        }  # fmt: skip
        assert ignored.events({"0": self.late(3, "a", "b", "c")}, 2) == []
        assert ignored.events({"0": self.late(4, "b", "c", "d")}, INTERVAL_US) == []
        (event,) = ignored.events({"0": self.late(4, "b", "c", "d")}, 1 + INTERVAL_US)
        assert (event.data["count"], event.data["examples"]) == (2, ["c", "d"])
        assert ignored.events({"0": self.late(4, "b", "c", "d")}, 1 + 3 * INTERVAL_US) == []

    def test_what_a_predecessor_counted_is_not_told_again_but_a_new_version_is(self) -> None:
        ignored = Ignored("w")
        assert ignored.events({"0": self.late(5)}, 0) == []
        (event,) = ignored.events({"0": self.late(1, order=2)}, 1)
        assert (event.data["count"], event.data["version"]) == (1, 2)
        assert ignored.events({}, 2) == []
        assert ignored.events({"0": self.late(9, order=2)}, 3 * INTERVAL_US) == []

    @pytest.mark.parametrize(
        ("figure", "type_", "reason"),
        [
            ("ahead", "rule.records-ignored", "ahead"),
            ("evicted", "rule.limit-reached", "groups"),
            ("overflowed", "rule.limit-reached", "records-per-group"),
        ],
    )
    def test_every_limit_has_its_reason(self, figure: str, type_: str, reason: str) -> None:
        ignored = Ignored("w")
        ignored.events({"0": {}, MATCHING: {}}, 0)
        (event,) = ignored.events({"0": {"r": {"version": 1, "order": 1, figure: 3}}, MATCHING: {}}, 1)
        assert (event.type, event.data["reason"], event.data["count"]) == (type_, reason, 3)
        assert event.data["message"].startswith("3 ")
