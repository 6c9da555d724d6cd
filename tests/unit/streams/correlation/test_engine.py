"""The engine, given when then, and against an oracle that recomputes everything from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.correlation.engine import Engine
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule, Rule
from streams.correlation.seen import Draft, Seen

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
ARRIVALS = count()


def rule(**correlation: object) -> Rule:
    top = {name: correlation.pop(name) for name in ("suppress", "confidence") if name in correlation}
    settings_: dict[str, object] = {"type": "event_count", "events": ["e"], "timespan": "10s", "grace": "5s", "condition": {"gte": 3}}
    return parse_rule({"id": "r", "events": {"e": {"type": "x"}}, "correlation": {**settings_, **correlation}, **top})


def engine(of: Rule, *, groups_max: int = 100) -> Engine:
    made = Engine(groups_max=groups_max)
    made.use(ActiveRule(rule=of, version=1, order=0))
    return made


def seen(seconds: float, id: str | None = None) -> Seen:
    return Seen(T0 + round(seconds * SECOND), id or f"r{seconds:g}", "x")


def run(made: Engine, arrivals: Iterable[Seen], group: str = "[]") -> list[Draft]:
    drafts = []
    for record in arrivals:
        drafts += made.advance(max(made.clock_us, record.time_us))
        drafts += made.feed("r", group, record, (next(ARRIVALS),))
    return drafts


def ids(draft: Draft) -> list[str]:
    return [record.id for record in draft.found.records]


class TestSlidingCount:
    def test_fires_at_the_record_that_satisfies_the_condition_and_uses_the_records_up(self) -> None:
        drafts = run(engine(rule()), [seen(0), seen(1), seen(2), seen(3), seen(4)])
        assert [(ids(draft), draft.found.window_start_us - T0, draft.found.window_end_us - T0) for draft in drafts] == [
            (["r0", "r1", "r2"], 0, 2 * SECOND)
        ]

    def test_continue_uses_nothing_up(self) -> None:
        drafts = run(engine(rule(**{"after-match": "continue"})), [seen(0), seen(1), seen(2), seen(3)])
        assert [ids(draft) for draft in drafts] == [["r0", "r1", "r2"], ["r0", "r1", "r2", "r3"]]

    def test_exactly_timespan_apart_is_too_far(self) -> None:
        assert run(engine(rule()), [seen(0), seen(5), seen(10)]) == []
        assert len(run(engine(rule()), [seen(0), seen(5), seen(9.999999)])) == 1

    def test_gt_means_more_than(self) -> None:
        made = engine(rule(condition={"gt": 3}))
        assert run(made, [seen(0), seen(1), seen(2)]) == []
        assert [ids(draft) for draft in run(made, [seen(3)])] == [["r0", "r1", "r2", "r3"]]

    def test_groups_are_apart(self) -> None:
        made = engine(rule())
        assert run(made, [seen(0), seen(1)], '["a"]') + run(made, [seen(2)], '["b"]') == []
        assert [draft.group_key for draft in run(made, [seen(3)], '["a"]')] == ['["a"]']

    def test_a_held_id_is_a_duplicate(self) -> None:
        made = engine(rule())
        assert run(made, [seen(0, "a"), seen(1, "a"), seen(2, "b")]) == []
        assert made.counters("r").duplicates == 1

    def test_late_is_older_than_the_watermark_not_equal_to_it(self) -> None:
        made = engine(rule())
        run(made, [seen(20), seen(15)])
        assert made.counters("r").late == 0
        run(made, [seen(14.999999, "late")])
        assert made.counters("r").late == 1

    def test_suppressed_matches_use_up_their_records_and_are_counted_in_the_next(self) -> None:
        made = engine(rule(condition={"gte": 1}, suppress="10s"))
        drafts = run(made, [seen(0), seen(4), seen(9.9), seen(10), seen(12)])
        assert [(ids(draft), draft.found.suppressed) for draft in drafts] == [(["r0"], 0), (["r10"], 2)]

    def test_a_window_may_be_larger_than_what_is_kept_by_id(self, monkeypatch) -> None:  # type: ignore[no-untyped-def]
        monkeypatch.setattr("streams.limits.RULE_RECORDS_PER_GROUP_MAX", 3)
        drafts = run(engine(rule(condition={"gte": 5})), [seen(0), seen(1), seen(2), seen(3), seen(4)])
        assert [(draft.found.count, ids(draft), draft.found.window_start_us) for draft in drafts] == [(5, ["r2", "r3", "r4"], T0)]


class TestEager:
    def test_a_record_within_grace_moves_the_finding(self) -> None:
        made = engine(rule())
        first = run(made, [seen(1), seen(2), seen(4)])
        then = run(made, [seen(3)])
        assert [(ids(draft), draft.retracted, draft.revision) for draft in first + then] == [
            (["r1", "r2", "r4"], False, 0),
            (["r1", "r2", "r4"], True, 1),
            (["r1", "r2", "r3"], False, 0),
        ]
        assert first[0].composite_id == then[0].composite_id != then[1].composite_id

    def test_same_firing_record_more_records_is_a_revision(self) -> None:
        made = engine(rule(**{"after-match": "continue"}))
        first = run(made, [seen(1), seen(2), seen(4)])
        then = run(made, [seen(1.5)])
        assert {(draft.composite_id == first[0].composite_id, draft.revision, draft.retracted, len(ids(draft))) for draft in then} == {
            (True, 1, False, 4),
            (False, 0, False, 3),
        }

    def test_settled_findings_are_never_revised(self) -> None:
        made = engine(rule())
        run(made, [seen(1), seen(2), seen(4)])
        made.advance(T0 + 9 * SECOND + 1)
        assert run(made, [seen(3)]) == []
        assert made.counters("r").late == 1


class TestFinal:
    def test_speaks_once_the_watermark_is_later_than_the_record(self) -> None:
        made = engine(rule(output="final"))
        assert run(made, [seen(0), seen(2), seen(1)]) == []
        assert made.advance(T0 + 7 * SECOND) == []
        assert [ids(draft) for draft in made.advance(T0 + 7 * SECOND + 1)] == [["r0", "r1", "r2"]]

    def test_over_several_groups_in_the_order_of_event_time(self) -> None:
        made = engine(rule(output="final", condition={"gte": 1}))
        run(made, [seen(2)], '["a"]')
        run(made, [seen(1)], '["b"]')
        run(made, [seen(3)], '["a"]')
        assert [draft.found.firing for draft in made.advance(T0 + 60 * SECOND)] == ["r1", "r2", "r3"]


class TestLimits:
    def test_the_least_recently_used_group_is_evicted_and_counted(self) -> None:
        made = engine(rule(), groups_max=2)
        for group in ("a", "b", "a", "c"):
            run(made, [seen(0, f"{group}{len(list(made.groups()))}")], group)
        assert [key for _, key in made.groups()] == ["a", "c"]
        assert made.counters("r").evicted == 1

    def test_a_group_whose_records_are_over_is_forgotten(self) -> None:
        for output in ("eager", "final"):
            made = engine(rule(output=output))
            run(made, [seen(0)])
            made.advance(T0 + 14 * SECOND)
            assert list(made.groups()) == [("r", "[]")]
            made.advance(T0 + 15 * SECOND + 2)
            made.advance(T0 + 16 * SECOND)
            assert list(made.groups()) == []


class TestRules:
    def test_a_newer_version_starts_empty_and_an_older_one_is_ignored(self) -> None:
        made = engine(rule())
        run(made, [seen(0), seen(1)])
        made.use(ActiveRule(rule=rule(), version=2, order=7))
        made.use(ActiveRule(rule=rule(), version=1, order=0))
        assert made.rules()[0].version == 2
        assert run(made, [seen(2)]) == []


# --- against the oracle ---


@dataclass(frozen=True)
class Expected:
    firing: str
    ids: tuple[str, ...]
    suppressed: int


def oracle(of: Rule, records: list[Seen]) -> list[Expected]:
    """What stands in the end: every window counted anew at every record, as the definition says it."""
    ordered = sorted(records, key=lambda record: (record.time_us, record.id))
    said: list[Expected] = []
    used_to, silent_until, suppressed = 0, None, 0
    for index, record in enumerate(ordered):
        window = [other for other in ordered[used_to : index + 1] if other.time_us > record.time_us - of.timespan_us]
        if not of.condition.holds(len(window)):
            continue
        if of.after_match == "reset":
            used_to = index + 1
        if silent_until is not None and record.time_us < silent_until:
            suppressed += 1
            continue
        said.append(Expected(record.id, tuple(other.id for other in window), suppressed))
        suppressed = 0
        if of.suppress_us:
            silent_until = record.time_us + of.suppress_us
    return said


RULES = st.builds(
    rule,
    condition=st.sampled_from([{"gte": 1}, {"gte": 2}, {"gt": 2}, {"gte": 3, "gt": 1}]),
    timespan=st.sampled_from(["1s", "3s", "10s"]),
    grace=st.sampled_from(["0s", "2s", "7s"]),
    suppress=st.sampled_from([0, "2s", "5s"]),
    **{"after-match": st.sampled_from(["reset", "continue"])},
)


@st.composite
def arrivals(draw: st.DrawFn, of: Rule) -> list[Seen]:
    """Records of different times in an order of arrival in which none is late."""
    times = draw(st.lists(st.integers(0, 300), unique=True, min_size=1, max_size=40))
    delays = draw(st.lists(st.integers(0, of.grace_us // 100_000), min_size=len(times), max_size=len(times)))
    # A record may come after any that is at most `grace` newer.
    order = sorted(range(len(times)), key=lambda index: (times[index] + delays[index], times[index]))
    return [seen(times[index] / 10, f"r{times[index]:04d}") for index in order]


def said(drafts: list[Draft]) -> list[tuple[object, ...]]:
    return [(draft.composite_id, draft.revision, draft.retracted, ids(draft), draft.found.suppressed) for draft in drafts]


def standing(drafts: Iterable[Draft]) -> list[Expected]:
    last: dict[str, Draft] = {}
    for draft in drafts:
        before = last.get(draft.composite_id)
        assert draft.revision == (0 if before is None else before.revision + 1)
        last[draft.composite_id] = draft
    kept = [draft.found for draft in last.values() if not draft.retracted]
    kept.sort(key=lambda found: found.window_end_us)
    return [Expected(found.firing, tuple(record.id for record in found.records), found.suppressed) for found in kept]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_the_order_of_arrival_within_grace_eager_ends_and_final_begins_with_the_truth(data: st.DataObject) -> None:
    of = data.draw(RULES)
    arrived = data.draw(arrivals(of))
    expected = oracle(of, arrived)

    eager = engine(of)
    assert standing(run(eager, arrived) + eager.finish(T0 + 3600 * SECOND)) == expected
    assert eager.counters("r").late == 0

    final_rule = parse_rule({**of.document, "correlation": {**of.document["correlation"], "output": "final"}})
    final = engine(final_rule)
    drafts = run(final, arrived) + final.finish(T0 + 3600 * SECOND)
    assert all(draft.revision == 0 and not draft.retracted for draft in drafts)
    assert [Expected(d.found.firing, tuple(ids(d)), d.found.suppressed) for d in drafts] == expected


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_state_dumped_and_loaded_anywhere_goes_on_the_same(data: st.DataObject) -> None:
    of = data.draw(RULES)
    output = data.draw(st.sampled_from(["eager", "final"]))
    of = parse_rule({**of.document, "correlation": {**of.document["correlation"], "output": output}})
    arrived = data.draw(arrivals(of))
    cut = data.draw(st.integers(0, len(arrived)))
    whole = engine(of)
    before, after = run(whole, arrived[:cut]), None
    dumped = {key: whole.dump_group(*key) for key in whole.groups()}

    resumed = Engine()
    resumed.use(ActiveRule(rule=of, version=1, order=0))
    resumed.resume(whole.clocks_us, whole.floors_us())
    for key, state in dumped.items():
        resumed.load_group(*key, state)
    after = run(resumed, arrived[cut:]) + resumed.finish(T0 + 3600 * SECOND)
    assert said(after) == said(run(whole, arrived[cut:]) + whole.finish(T0 + 3600 * SECOND))
    assert standing(before + after) == oracle(of, arrived)
