"""What rules mean, sentence by sentence, with times a microsecond before, at and after each boundary."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from streams.correlation.chain import Chain
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent, to_micros

SECOND = 1_000_000
T0 = 1_699_999_200 * SECOND  # a multiple of 12 s
EVENTS = {name: {"type": name} for name in "abcu"}


class Run:
    """One rule over records; `said` are the composites so far."""

    def __init__(self, *, suppress: int = 0, matchers: dict[str, Any] | None = None, **correlation: Any) -> None:
        of = {"timespan": "10s", "grace": 0, **correlation}
        document = {
            "id": "r",
            "events": matchers or EVENTS,
            "correlation": {k: v for k, v in of.items() if v is not None},
            "suppress": suppress,
        }
        self.chain = Chain([ActiveRule(rule=parse_rule(document), version=1, order=0)])
        self.said: list[CompositeEvent] = []
        self._arrivals = 0

    def see(self, text: str) -> Run:
        """Records in order of arrival: `a0 b1.5 a2=7`: type, seconds, and the value of data.v."""
        for word in text.split():
            word, _, value = word.partition("=")
            kind, seconds = word[0], float(word[1:])
            self._arrivals += 1
            data = {"v": orjson.loads(value) if value else None}
            time_us = T0 + round(seconds * SECOND)
            plain = {"id": f"{word}", "type": kind, "source": "s", "subject": "", "time": time_us, "data": orjson.dumps(data).decode()}
            self.said += self.chain.advance(time_us)
            self.said += self.chain.record(None, RecordView(plain), self._arrivals)
        return self

    def until(self, seconds: float) -> Run:
        """The watermark moves."""
        self.said += self.chain.finish(T0 + round(seconds * SECOND))
        return self

    @property
    def ids(self) -> list[str]:
        """The records of each composite."""
        return [" ".join(composite.event_ids) for composite in self.said]

    @property
    def windows(self) -> list[tuple[float, float]]:
        """The window of each composite, seconds."""
        return [
            tuple((to_micros(time) - T0) / SECOND for time in (composite.window_start, composite.window_end))
            for composite in self.said  # type: ignore[misc]
        ]

    @property
    def values(self) -> list[float]:
        """The figure of each composite."""
        return [composite.data["value"] for composite in self.said]


def counted(least: int = 2, **correlation: Any) -> dict[str, Any]:
    return {"type": "event_count", "events": ["a"], "condition": {"gte": least}, **correlation}


class TestWithinMeansLessThanTimespanApart:
    @pytest.mark.parametrize(
        "of",
        [
            counted(),
            {"type": "temporal", "events": ["a", "b"]},
            {"type": "temporal_ordered", "events": ["a", "b"]},
            {"type": "value_sum", "events": ["a", "b"], "condition": {"field": "data.v", "gte": 2}},
        ],
    )
    def test_for_records(self, of: dict[str, Any]) -> None:
        second = "a" if of["type"] == "event_count" else "b"
        assert len(Run(**of).see(f"a0=1 {second}9.999999=1").said) == 1
        assert Run(**of).see(f"a0=1 {second}10=1").said == []

    def test_for_an_answer_at_the_deadline(self) -> None:
        assert Run(type="absence", events=["a", "b"]).see("a0 b9.999999").until(30).said == []
        late = Run(type="absence", events=["a", "b"]).see("a0 b10").until(30)
        assert (late.ids, late.windows) == (["a0"], [(0, 10)])

    def test_for_a_tumbling_window_that_does_not_include_its_end(self) -> None:
        run = Run(**counted(timespan="12s", window="tumbling", condition={"lt": 3})).see("a0 a11.999999 a12").until(24)
        assert (run.ids, run.windows) == (["a0 a11.999999", "a12"], [(0, 12), (12, 24)])

    def test_for_a_session(self) -> None:
        of = counted(timespan=None, window="session", gap="5s", condition={"eq": 2})
        assert Run(**of).see("a0 a4.999999").until(60).windows == [(0, 9.999999)]
        assert Run(**of).see("a0 a5").until(60).said == []
        limited = Run(**{**of, "timespan": "6s"}).see("a0 a4 a6").until(60)
        assert (limited.ids, limited.windows) == (["a0 a4"], [(0, 6)])

    def test_for_a_last_not(self) -> None:
        of = {"type": "temporal_ordered", "events": ["a", "b", {"not": "c"}]}
        assert Run(**of).see("a0 b1 c9.999999").until(60).said == []
        run = Run(**of).see("a0 b1 c10").until(60)
        assert (run.ids, run.windows) == (["a0 b1"], [(0, 10)])


class TestTime:
    def test_late_is_older_than_the_watermark(self) -> None:
        run = Run(**counted(grace="5s")).see("a20 a15 a14.999999")
        assert (run.ids, run.chain.engine.counters("r").late) == (["a15 a20"], 1)

    def test_final_speaks_about_a_record_once_the_watermark_is_later_than_its_time(self) -> None:
        run = Run(**counted(output="final", grace="5s")).see("a0 a1 b6")
        assert run.said == []
        assert run.see("b6.000001").ids == ["a0 a1"]

    def test_about_a_deadline_once_it_is_reached(self) -> None:
        run = Run(type="absence", events=["a", "b"], grace="5s").see("a0 c14.999999")
        assert run.said == []
        assert run.see("c15").ids == ["a0"]

    def test_a_record_within_grace_gives_the_same_id_with_the_next_revision_or_takes_it_back(self) -> None:
        run = Run(**counted(grace="5s", **{"after-match": "continue"})).see("a2 a4 a3")
        assert [(c.event_ids, c.revision, c.retracted) for c in run.said] == [
            (("a2", "a4"), 0, False), (("a2", "a3"), 0, False), (("a2", "a3", "a4"), 1, False),
        ]  # fmt: skip
        assert run.said[0].id == run.said[2].id
        run = Run(type="temporal_ordered", events=["a", {"not": "c"}, "b"], grace="5s").see("a0 b3 c2")
        assert [(c.revision, c.retracted) for c in run.said] == [(0, False), (1, True)]
        assert run.said[1].explanation.startswith("No longer true")

    def test_records_of_one_time_are_ordered_by_arrival_eagerly_and_by_id_finally(self) -> None:
        of = {"type": "temporal_ordered", "events": ["b", "a"]}
        assert Run(**of).see("b0 a0").ids == ["b0 a0"]
        assert Run(**of, output="final").see("b0 a0").until(60).said == []


class TestWindows:
    def test_rising_conditions_on_growing_figures_fire_at_the_record_whatever_follows(self) -> None:
        run = Run(type="value_sum", events=["a"], window="tumbling", timespan="12s", condition={"field": "data.v", "gte": 5}).see(
            "a0=5 a1=-5"
        )
        assert (run.ids, run.windows, run.values) == (["a0"], [(0, 0)], [5])

    @pytest.mark.parametrize("kind", ["value_avg", "value_min", "value_percentile"])
    def test_others_are_judged_when_the_window_closes(self, kind: str) -> None:
        condition = {"field": "data.v", "gte": 5, **({"percentile": 50} if kind == "value_percentile" else {})}
        run = Run(type=kind, events=["a"], window="tumbling", timespan="12s", condition=condition).see("a0=5 a1=7")
        assert run.said == []
        assert run.see("c12").windows == [(0, 12)]

    def test_a_window_exists_from_its_first_record_on(self) -> None:
        run = Run(**counted(window="tumbling", timespan="12s", condition={"lt": 1})).see("a0 a40").until(60)
        assert run.said == []

    def test_after_a_match_with_reset_the_window_starts_empty_within_the_same_tumbling_window(self) -> None:
        assert Run(**counted(window="tumbling", timespan="12s")).see("a0 a1 a2 a3 a4 a12").ids == ["a0 a1", "a2 a3"]
        going_on = Run(**counted(window="tumbling", timespan="12s", **{"after-match": "continue"})).see("a0 a1 a2")
        assert going_on.ids == ["a0 a1", "a0 a1 a2"]

    def test_in_a_session_the_next_record_begins_a_new_one(self) -> None:
        of = counted(window="session", timespan="6s", gap="5s")
        run = Run(**of).see("a0 a1 a4 a7 a9.999999").until(60)
        assert run.ids == ["a0 a1", "a4 a7"], "the second session began at 4, so it lasts beyond 6"

    def test_rate_compares_with_the_mean_of_the_windows_before_empty_ones_included(self) -> None:
        of = {"type": "rate_change", "events": ["a"], "timespan": "1s", "condition": {"baseline": 2, "gte": 4}}
        run = Run(**of).see("a0 a0.1 a2 a2.1 a2.2 a2.3").until(60)
        assert (run.values, run.windows) == ([4], [(2, 3)])
        assert Run(**of).see("a0 a1 a1.1 a1.2 a1.3").until(60).said == [], "fewer windows than the baseline"
        assert Run(**of).see("a0 a3 a3.1").until(60).said == [], "a mean of 0"


class TestPatterns:
    def test_temporal_uses_the_latest_record_of_each_name(self) -> None:
        run = Run(type="temporal", events=["a", "b"]).see("a0 a1 b2 b3 b4")
        assert run.ids == ["a1 b2", "a0 b3"]

    def test_a_record_may_stand_for_several_names_of_temporal(self) -> None:
        both = Run(matchers={"one": {"type": "a"}, "two": {"type": "*"}}, type="temporal")
        assert both.see("a0").ids == ["a0"]

    def test_but_for_one_element_of_temporal_ordered(self) -> None:
        both = Run(matchers={"one": {"type": "a"}, "two": {"type": "*"}}, type="temporal_ordered")
        assert both.see("a0").said == []
        assert both.see("a1").ids == ["a0 a1"]

    def test_ordered_takes_the_latest_begin_and_the_latest_records_between(self) -> None:
        run = Run(type="temporal_ordered", events=["a", "b", "c"]).see("a0 b1 a2 b3 b4 c5")
        assert (run.ids, run.windows) == (["a2 b4 c5"], [(2, 5)])
        assert run.see("c6").ids[1:] == ["a0 b3 c6"], "what was not used may still match"

    def test_times(self) -> None:
        assert Run(type="temporal_ordered", events=[{"event": "a", "times": 3}, "b"]).see("a0 a1 b2 a3 a4 b5").ids == ["a1 a3 a4 b5"]

    def test_not_is_none_between_its_neighbours_in_the_order_of_the_records(self) -> None:
        of = {"type": "temporal_ordered", "events": ["a", {"not": "c"}, "b"]}
        assert Run(**of).see("a0 c1 b2").said == []
        assert Run(**of).see("c0 a0 b2 c2").ids == ["a0 b2"], "the records at 0 and 2 arrived before and after"
        assert Run(**of).see("a0 c1 a2 b3").ids == ["a2 b3"]

    def test_until_drops_what_was_begun(self) -> None:
        of = {"type": "temporal_ordered", "events": ["a", "b"], "until": "u"}
        assert Run(**of).see("a0 u1 b2").said == []
        assert Run(**of).see("a0 u1 a2 b3").ids == ["a2 b3"]
        assert Run(**{**of, "events": ["a", {"not": "b"}]}).see("a0 u1").until(60).said == []

    def test_every_a_has_its_own_deadline(self) -> None:
        run = Run(type="absence", events=["a", "b"], **{"after-match": "reset"}).see("a0 a1 b20")
        assert run.windows == [(0, 10), (1, 11)]
        alone = Run(type="absence", events=["a"]).see("a0 a5").until(60)
        assert alone.windows == [(5, 15)], "the first was followed by another"

    def test_equal_times_are_an_answer_only_if_it_comes_after(self) -> None:
        assert Run(type="absence", events=["a", "b"]).see("a0 b0").until(60).said == []
        assert len(Run(type="absence", events=["a", "b"]).see("b0 a0").until(60).said) == 1


class TestValues:
    def test_what_lacks_the_field_or_a_number_takes_no_part(self) -> None:
        run = Run(type="value_sum", events=["a"], condition={"field": "data.v", "gte": 3}).see('a0=1 a1 a2="2" a3=true a4=[2] a5=2')
        assert (run.ids, run.values) == (["a0 a5"], [3])
        assert run.chain.engine.counters("r").matched == 2

    def test_distinct_values_are_json_values(self) -> None:
        run = Run(type="value_count", events=["a"], condition={"field": "data.v", "gte": 3}).see('a0=1 a1=1.0 a2="1" a3=true')
        assert (run.ids, run.values) == (["a0 a1 a2 a3"], [3])


class TestSuppress:
    def test_silent_while_window_end_is_before_the_last_said_plus_suppress(self) -> None:
        run = Run(**counted(1), suppress=5000).see("a0 a4.999999 a5 a6 a9.999999 a10")
        assert (run.ids, [c.suppressed_count for c in run.said]) == (["a0", "a5", "a10"], [0, 1, 2])
        assert run.said[2].insights[-1].data["suppressed"] == 2

    def test_a_suppressed_match_uses_up_its_records(self) -> None:
        run = Run(type="temporal", events=["a", "b"], suppress=5000).see("a0 b0 a1 b2 b6")
        assert run.ids == ["a0 b0"], "a1 was used by the match that nobody heard of"


def test_the_id_comes_from_the_firing_record_and_not_from_what_was_used() -> None:
    of = counted(grace="5s", **{"after-match": "continue"})
    ids = [{composite.id for composite in Run(**of).see(text).said if composite.causation_id == "a4"} for text in ("a2 a4", "a3 a4")]
    assert ids[0] == ids[1] != set()


def test_more_records_than_are_kept_count_without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.limits.RULE_RECORDS_PER_GROUP_MAX", 3)
    run = Run(type="value_sum", events=["a"], condition={"field": "data.v", "gte": 5}).see("a0=1 a1=1 a2=1 a3=1 a4=1")
    assert (run.ids, run.values, run.said[0].event_count, run.windows) == (["a2 a3 a4"], [5], 5, [(0, 4)])
    assert run.chain.engine.counters("r").overflowed == 1


def test_a_deadline_beyond_the_last_year_crashes_nothing() -> None:
    run = Run(type="absence", events=["a", "b"])
    far = (253_402_300_799 * SECOND - T0) / SECOND
    assert len(run.see(f"a{far}").until(far + 60).said) == 1


def test_a_held_id_is_a_duplicate_until_its_timespan_is_over() -> None:
    run = Run(**counted(grace="5s")).see("a0 a0 b1")
    assert (run.said, run.chain.engine.counters("r").duplicates) == ([], 1)


def test_records_used_up_at_a_deadline_are_gone_for_all_that_wait_for_theirs() -> None:
    run = Run(type="temporal_ordered", events=["b", "b", {"not": "a"}]).see("b0 b1 b3").until(60)
    assert run.ids == ["b0 b1"]
    again = Run(type="temporal_ordered", events=["b", "b", {"not": "a"}], **{"after-match": "continue"}).see("b0 b1 b3").until(60)
    assert again.ids == ["b0 b1", "b1 b3"]
