"""What goes along with a composite, and what the rules that read it make of it: first said, revised, moved, taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from streams.correlation.composites import Fed, Link, composite_plain, composite_rows, fed_of, link_of
from streams.correlation.engine import Engine
from streams.correlation.explain import composite
from streams.correlation.index import RuleIndex
from streams.correlation.parse import parse_rule
from streams.correlation.rows import RowsWriter, read_rows, seen_of_row
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import BEFORE_ALL, Draft, Found, Seen
from streams.records import CompositeEvent

AT = (1_700_000_000_000_000, "t", 3, 17)


def rule(id: str, matcher: dict[str, Any], *, order: int = 0, **correlation: Any) -> ActiveRule:
    of = {"type": "event_count", "timespan": "1m", "condition": {"gte": 1}, **correlation}
    return ActiveRule(rule=parse_rule({"id": id, "events": {"e": matcher}, "correlation": of}), version=1, order=order)


UP = rule("up", {"type": "a"}, **{"group-by": ["data.g"], "condition": {"gte": 2}})
DOWN = rule("down", {"rule": "up", "where": "data.count > 2"}, order=5, **{"group-by": ["data.count"]})
FIRST, SECOND, THIRD, FOURTH = (Seen(number, f"e{number}", "a") for number in range(1, 5))


def engine(*rules: ActiveRule) -> Engine:
    made = Engine()
    for each in rules:
        made.use(each)
    return made


def draft(*records: Seen, before: tuple[Seen, ...] | None = None, revision: int = 0, retracted: bool = False) -> Draft:
    def found(of: tuple[Seen, ...]) -> Found:
        return Found("e4", of[0].time_us, of[-1].time_us, of, len(of), float(len(of)))

    place = BEFORE_ALL if retracted else (AT, "e4")
    return Draft("up", '["g"]', "the-id", found(records), revision, retracted, place, None if before is None else found(before))


def said(of: Draft) -> tuple[CompositeEvent, Link]:
    composite_ = composite(UP, of)
    link = link_of(engine(UP, DOWN), of, composite_)
    assert link is not None
    loaded = Link.load(link.dump())
    assert loaded == replace(link, readers=dict(link.readers))
    return composite_, loaded


def fed(of: Draft, *, index: RuleIndex | None = None) -> list[Fed]:
    """What arrives at the correlate stages."""
    composite_, link = said(of)
    arrived = []
    for ordinal, (hit, view, extra) in enumerate(
        composite_rows(index or RuleIndex([UP, DOWN]), composite_plain(composite_), link, retracted=of.retracted)
    ):
        writer = RowsWriter()
        assert writer.add(hit, view, 9, ordinal, more=extra)
        rules, (row,) = read_rows(writer.text())
        arrived.append(fed_of(seen_of_row(row, rules[0][2]), row[9], row[11] or {}))
    return arrived


def counts(of: list[Fed]) -> list[tuple[Any, Any]]:
    """Per match: (group, count that the rule reads) before and after."""

    def count(read: tuple[str, Seen] | None) -> tuple[str, int] | None:
        return None if read is None else (read[0], orjson.loads(read[1].data)["count"])

    return [(count(each.before), count(each.after)) for each in of]


def test_a_composite_that_no_rule_reads_has_no_link() -> None:
    assert link_of(engine(UP), draft(FIRST, FOURTH), composite(UP, draft(FIRST, FOURTH))) is None
    assert link_of(engine(UP, DOWN), replace(draft(FIRST), rule_id="down"), composite(DOWN, replace(draft(FIRST), group_key="[1]"))) is None


def test_it_is_read_behind_the_record_that_fired_it() -> None:
    (only,) = fed(draft(FIRST, SECOND, FOURTH))
    assert only.before is None
    assert only.after is not None
    assert only.after[0] == "[3]"
    assert only.after[1].after == (AT, "e4", 0)
    assert (only.after[1].id, only.after[1].type, only.after[1].time_us) == ("the-id", "composite.up", 4)
    assert only.arrival == AT


def test_what_the_matcher_does_not_want_is_not_read() -> None:
    assert fed(draft(FIRST, FOURTH)) == []


def test_a_revision_leaves_the_group_that_read_it_and_enters_another() -> None:
    of = draft(FIRST, SECOND, THIRD, FOURTH, before=(FIRST, SECOND, FOURTH), revision=1)
    assert counts(fed(of)) == [(("[3]", 3), None), (None, ("[4]", 4))]


def test_a_revision_within_a_group_is_one_match_with_both() -> None:
    down = rule("down", {"rule": "up"}, order=5)
    of = draft(FIRST, SECOND, FOURTH, before=(FIRST, FOURTH), revision=1)
    assert counts(fed(of, index=RuleIndex([UP, down]))) == [(("[]", 2), ("[]", 3))]


def test_a_revision_in_which_readers_see_no_difference_concerns_nobody() -> None:
    down = rule("down", {"rule": "up"}, order=5)
    of = draft(FIRST, SECOND, FOURTH, before=(FIRST, THIRD, FOURTH), revision=1)
    assert fed(of, index=RuleIndex([UP, down])) == []


def test_what_comes_back_after_it_was_taken_back_is_read_anew() -> None:
    assert counts(fed(draft(FIRST, SECOND, FOURTH, revision=2))) == [(None, ("[3]", 3))]


def test_what_is_taken_back_leaves_those_who_read_it() -> None:
    of = draft(FIRST, SECOND, FOURTH, before=(FIRST, SECOND, FOURTH), revision=1, retracted=True)
    assert counts(fed(of)) == [(("[3]", 3), None)]


def test_a_version_that_the_partition_did_not_know_yet_does_not_read_it() -> None:
    newer = rule("down", {"rule": "up"}, order=6)
    assert fed(draft(FIRST, SECOND, FOURTH), index=RuleIndex([UP, newer])) == []
    late_index = rule("down", {"rule": "up"}, order=4)
    assert len(fed(draft(FIRST, SECOND, FOURTH), index=RuleIndex([UP, late_index]))) == 1  # the correlate stage ignores the older version
