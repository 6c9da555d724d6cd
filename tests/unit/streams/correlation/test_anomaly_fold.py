"""`anomaly` as a rule: values of records, means and counts of windows; late records, checkpoints, what a composite says."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.correlation.engine import Engine
from streams.correlation.explain import composite
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule, Rule
from streams.correlation.seen import Draft, Seen
from streams.correlation.standing import standing
from streams.correlation.trial import Trial
from streams.records import CompositeEvent, from_micros, iso

SECOND = 1_000_000
MINUTE = 60 * SECOND
T0 = 1_767_225_600 * SECOND  # 2026-01-01
FIELD = {"field": "data.ms", "threshold": 0.99}


def rule(condition: dict[str, Any], **correlation: Any) -> Rule:
    events = {"call": {"type": "call.served"}}
    content = {"type": "anomaly", "events": ["call"], "condition": condition, **correlation}
    return parse_rule({"id": "unusual", "severity": "error", "events": events, "correlation": content})


def line(number: int, time_us: int, ms: Any = 1, host: str = "a") -> str:
    return orjson.dumps(
        {"id": f"r{number:05}", "type": "call.served", "time": iso(from_micros(time_us)), "data": {"ms": ms, "host": host}}
    ).decode()


def said(of: Rule, lines: Iterable[str]) -> list[CompositeEvent]:
    trial = Trial([of])
    found = [each for text in lines for each in trial.line(text)]
    return [*found, *trial.finish()]


def latencies(count: int, spikes: dict[int, float]) -> list[float]:
    chance = Random(1)
    return [spikes.get(number, chance.gauss(100, 5)) for number in range(count)]


@pytest.mark.parametrize("output", ["eager", "final"])
def test_the_value_of_a_record(output: str) -> None:
    of = rule(FIELD, output=output)
    (found,) = said(of, [line(number, T0 + number * MINUTE, ms) for number, ms in enumerate(latencies(500, {400: 400.5}))])
    assert (found.event_ids, found.event_count) == (("r00400",), 1)
    assert found.window_start == found.window_end == found.time
    assert 0.5 < found.confidence <= 1
    assert found.data["value"] > 0.99
    (told,) = [each for each in found.insights if each.type == "anomaly"]
    assert told.data["value"] == 400.5
    assert told.data["low"] < told.data["expected"] < told.data["high"] < 200
    assert found.explanation.startswith("data.ms is 400.5 at 2026-01-01 06:40:00")
    assert "was expected" in found.explanation
    assert "the rule asks for more than 0.99" in found.explanation


def test_each_group_has_a_history_of_its_own() -> None:
    of = rule(FIELD, **{"group-by": ["data.host"]})
    lines = []
    for number, ms in enumerate(latencies(500, {})):
        lines.append(line(2 * number, T0 + number * MINUTE, ms, "a"))
        lines.append(line(2 * number + 1, T0 + number * MINUTE + SECOND, ms + 1000 if number != 400 else ms, "b"))
    (found,) = said(of, lines)
    assert found.group_key == {"data.host": "b"}
    assert found.event_ids == ("r00801",)


@pytest.mark.parametrize("value", [None, "1000", True, [1000], {"ms": 1000}])
def test_what_is_no_number_takes_no_part(value: Any) -> None:
    lines = [line(number, T0 + number * MINUTE, value if number == 400 else ms) for number, ms in enumerate(latencies(500, {}))]
    assert said(rule(FIELD), lines) == []


def test_the_mean_of_a_window() -> None:
    of = rule(FIELD, timespan="10m")
    lines = [line(number, T0 + number * MINUTE, ms) for number, ms in enumerate(latencies(3000, dict.fromkeys(range(2500, 2510), 150)))]
    (found,) = [each for each in said(of, lines) if iso(each.time) > "2026-01-02"]
    assert (iso(found.window_start), iso(found.window_end)) == ("2026-01-02T17:40:00.000000Z", "2026-01-02T17:50:00.000000Z")
    assert found.event_ids == tuple(f"r{number:05}" for number in range(2500, 2510))
    assert found.explanation.startswith("the mean of data.ms is 150 over 10 records of call (from 2026-01-02 17:40:00")


def counts(rates: Iterable[int], per_us: int) -> list[str]:
    lines: list[str] = []
    for window, count in enumerate(rates):
        for index in range(count):
            lines.append(line(len(lines), T0 + window * per_us + index * per_us // (count + 1)))
    return lines


def steady(count: int, changed: dict[int, int]) -> list[int]:
    chance = Random(2)
    return [changed.get(window, chance.randrange(8, 13)) for window in range(count)]


def test_a_burst_in_the_count_of_a_window() -> None:
    (found,) = said(rule({"threshold": 0.99}, timespan="1m"), counts(steady(300, {250: 60}), MINUTE))
    assert found.event_count == 60
    assert iso(found.window_start) == "2026-01-01T04:10:00.000000Z"
    assert found.explanation.startswith("60 records of call in 1m (from 2026-01-01 04:10:00")


def test_silence_is_a_count_of_nothing_and_raised_once() -> None:
    silent = dict.fromkeys(range(250, 270), 0)
    found = said(rule({"threshold": 0.99}, timespan="1m"), counts(steady(300, silent), MINUTE))
    assert [(each.event_count, iso(each.window_start)) for each in found][:1] == [(0, "2026-01-01T04:10:00.000000Z")]
    assert len(found) <= 2, "the silence, and at most its end"
    assert found[0].event_ids == ()


def test_a_group_that_is_silent_for_long_rests() -> None:
    of = rule({}, timespan="1m")
    engine = Engine()
    engine.use(ActiveRule(rule=of, version=1, order=0))
    for number in range(100):
        engine.feed("unusual", "[]", Seen(T0 + number * 6 * SECOND, f"r{number}", names=("call",)), (number,))
    year_us = 365 * 86400 * SECOND
    engine.advance(T0 + year_us)
    assert engine.next_due_us() is None
    engine.feed("unusual", "[]", Seen(T0 + year_us, "again", names=("call",)), (10**6,))
    engine.advance(T0 + year_us + of.grace_us + SECOND)
    assert engine.next_due_us() == T0 + year_us + MINUTE + of.grace_us


def test_a_mean_of_nothing_is_no_value() -> None:
    of = rule(FIELD, timespan="1m", grace=0)
    engine = Engine()
    engine.use(ActiveRule(rule=of, version=1, order=0))
    engine.feed("unusual", "[]", Seen(T0, "r", names=("call",), value=5), (0,))
    engine.advance(T0 + 1)
    assert engine.next_due_us() == T0 + MINUTE
    engine.advance(T0 + MINUTE)
    assert engine.next_due_us() is None


def test_a_silence_goes_on_in_a_successor() -> None:
    of = rule({}, timespan="1m", grace=0)
    engine, successor = Engine(), Engine()
    for each in (engine, successor):
        each.use(ActiveRule(rule=of, version=1, order=0))
    for number in range(1000):
        engine.feed("unusual", "[]", Seen(T0 + number * 6 * SECOND, f"r{number}", names=("call",)), (number,))
        engine.advance(T0 + number * 6 * SECOND + 1)
    successor.resume([engine.clock_us], {})
    successor.load_group("unusual", "[]", orjson.loads(orjson.dumps(engine.dump_group("unusual", "[]"))))
    told = [[draft.found for draft in each.advance(T0 + 105 * MINUTE)] for each in (engine, successor)]
    assert told[0] == told[1]
    assert [found.window_start_us for found in told[0]] == [T0 + 100 * MINUTE]


# --- order, revisions, checkpoints ---


def test_a_record_in_between_revises_what_was_said() -> None:
    """A spike is said at once. A greater one that comes later but belongs before it makes it a part of that one's episode."""
    of = rule(FIELD, grace="5m")
    values = latencies(400, {})
    lines = [line(number, T0 + number * MINUTE, ms) for number, ms in enumerate(values)]
    lines.append(line(900, T0 + 401 * MINUTE, 200.0))
    lines.append(line(901, T0 + 400 * MINUTE, 900.0))
    found = said(of, lines)
    assert [(each.event_ids, each.revision, each.retracted) for each in found] == [
        (("r00900",), 0, False), (("r00900",), 1, True), (("r00901",), 0, False),
    ]  # fmt: skip
    assert found[1].explanation.startswith("No longer true after a later record:")


def fed(of: Rule, seen: Iterable[Seen], *, save_every: int | None = None) -> dict[str, Draft]:
    """The last draft of each composite, less the retracted."""

    def engine_of() -> Engine:
        engine = Engine()
        engine.use(ActiveRule(rule=of, version=1, order=0))
        return engine

    engine, clock, drafts = engine_of(), 0, list[Draft]()
    for number, each in enumerate(seen):
        clock = max(clock, each.time_us)
        drafts += engine.advance(clock)
        drafts += engine.feed("unusual", "[]", each, (number,))
        if save_every is not None and number % save_every == 0:
            state = orjson.loads(orjson.dumps(engine.dump_group("unusual", "[]")))
            engine = engine_of()
            engine.resume([clock], {})
            engine.load_group("unusual", "[]", state)
    drafts += engine.flush()
    drafts += engine.flush()
    drafts += engine.advance(clock + of.timespan_us + of.grace_us + 1)
    last = {draft.composite_id: draft for draft in drafts}
    return {key: draft for key, draft in last.items() if not draft.retracted}


@st.composite
def disordered(draw: st.DrawFn) -> list[Seen]:
    """Records of which some arrive up to 9 s after others that are newer; a few stand out."""
    chance = Random(draw(st.integers(0, 2**32)))
    found = []
    for number in range(draw(st.integers(40, 140))):
        value = chance.gauss(100, 5) * (10 if chance.random() < 0.03 else 1)
        found.append((number + chance.choice([0, 0, 0, 3, 9]), Seen(T0 + number * SECOND, f"r{number}", names=("call",), value=value)))
    return [seen for _, seen in sorted(found, key=lambda each: each[0])]


RULES = [FIELD, {"field": "data.ms", "threshold": 0.3}]


@settings(deadline=None, max_examples=40)
@given(disordered(), st.sampled_from(RULES), st.sampled_from([{}, {"timespan": "4s"}]), st.sampled_from([1, 7, 30]))
def test_neither_order_nor_output_nor_checkpoints_matter(
    seen: list[Seen], condition: dict[str, Any], timespan: dict[str, Any], every: int
) -> None:
    eager, final = (rule(condition, output=output, **timespan) for output in ("eager", "final"))
    expected = fed(final, sorted(seen))
    assert {key: draft.found for key, draft in fed(final, seen).items()} == {key: draft.found for key, draft in expected.items()}
    for of in (eager, final):
        for save_every in (None, every):
            found = fed(of, seen, save_every=save_every)
            assert found.keys() == expected.keys()
            assert all(found[key].found.says(expected[key].found) for key in expected)


def test_disorder_finds_something() -> None:
    values = latencies(200, {150: 900.0})
    seen = [Seen(T0 + number * SECOND, f"r{number}", names=("call",), value=value) for number, value in enumerate(values)]
    assert len(fed(rule(FIELD), seen)) == 1


# --- how it stands ---


@pytest.mark.parametrize(
    ("condition", "timespan", "sentence"),
    [
        (FIELD, {}, "Seen: call, the last at 2026-01-01 00:04:59 UTC, which scored 0.0000. Missing: a score above 0.99."),
        (
            {},
            {"timespan": "1m"},
            "Seen: 60 records of call in this window, the last at 2026-01-01 00:04:59 UTC; the window before scored 0.0000. "
            "It is judged (a score above 0.99) when the window closes, at 2026-01-01 00:05:00 UTC.",
        ),
    ],
)
def test_standing(condition: dict[str, Any], timespan: dict[str, Any], sentence: str) -> None:
    active = ActiveRule(rule=rule(condition, grace=0, **timespan), version=1, order=0)
    engine = Engine()
    engine.use(active)
    for number in range(300):
        engine.advance(T0 + number * SECOND)
        engine.feed("unusual", "[]", Seen(T0 + number * SECOND, f"r{number}", type="call.served", names=("call",), value=5.0), (number,))
    engine.advance(T0 + 299 * SECOND + 1)
    group, watermark_us = engine.group("unusual", "[]") or (None, 0)
    found = standing(active, "[]", group, watermark_us)
    which, value = ("last window", 60) if timespan else ("newest record", 5)
    assert found.sentences == (sentence, f"The {which} has {value}; {value} was expected, and {value} to {value} is usual.")
    assert found.judged is not None
    assert found.to_dict()["judged"] | {"score": 0.0} == {
        "value": value, "score": 0.0, "expected": value, "low": value, "high": value, "kind": found.judged.kind,
    }  # fmt: skip
    assert found.value == 0.0
    assert (found.until is None) == (not timespan)
    nothing = standing(active, "[]", None, watermark_us)
    assert "the next match needs a score above 0.99, of call" in nothing.sentences[0]


def test_the_explanation_shows_that_the_score_is_above_the_threshold() -> None:
    of = rule({"field": "data.ms", "threshold": 0.999999})
    seen = [
        Seen(T0 + number * MINUTE, f"r{number}", names=("call",), value=value) for number, value in enumerate(latencies(300, {200: 1e6}))
    ]
    (draft,) = fed(of, seen).values()
    told = composite(ActiveRule(rule=of, version=1, order=0), draft).explanation
    score = float(told.split("score ")[1].split(",")[0])
    assert score > 0.999999
