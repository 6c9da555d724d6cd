"""Records that wait for the close of their window: whatever waits how long, the same is said, and the same is seen by who looks."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import limits
from streams.correlation import group
from streams.correlation.engine import Engine
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import SAMPLES_MAX, Draft, Seen

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
GRACE_S = 4

_CORRELATIONS: list[dict[str, Any]] = [
    {"type": "event_count", "window": "tumbling", "timespan": "10s", "condition": {"lte": 6}},
    {"type": "event_count", "window": "session", "gap": "3s", "condition": {"lte": 6}},
    {"type": "event_count", "window": "session", "gap": "3s", "timespan": "9s", "condition": {"neq": 2}},
    {"type": "value_avg", "window": "tumbling", "timespan": "5s", "condition": {"field": "data.v", "gte": 2}},
    {"type": "value_min", "output": "final", "timespan": "5s", "condition": {"field": "data.v", "gte": 1}, "after-match": "continue"},
    {"type": "rate_change", "timespan": "5s", "condition": {"baseline": 2, "gte": 1}},
]


def engine(correlation: dict[str, Any]) -> Engine:
    made = Engine()
    document = {"id": "r", "events": {"e": {"type": "x"}}, "correlation": {"events": ["e"], "grace": f"{GRACE_S}s", **correlation}}
    made.use(ActiveRule(rule=parse_rule(document), version=1, order=0))
    return made


def record(seconds: int, number: int) -> Seen:
    return Seen(T0 + seconds * SECOND, f"r{number}", "x", data='{"v":"' + "x" * 80 + '"}', value=seconds % 4)


def run(made: Engine, times: list[int], *, batch: int, hurry: bool = False) -> tuple[list[list[Draft]], list[Any]]:
    """Records in batches, the clock after each; what is said at each step, and what somebody sees who looks in between.

    In a hurry: every group is settled at every step.
    """
    said: list[list[Draft]] = []
    looks: list[Any] = []
    for first in range(0, len(times), batch):
        fed = [(f'["{seconds % 2}"]', record(seconds, number), (number,)) for number, seconds in enumerate(times[first:][:batch], first)]
        drafts = made.feed_all("r", fed)
        drafts += made.advance(max(made.clock_us, T0 + max(times[: first + batch]) * SECOND))
        if hurry:
            drafts += made.finish(made.clock_us - GRACE_S * SECOND)
        said.append(sorted(drafts, key=lambda draft: draft.composite_id))
        for key in ('["0"]', '["1"]'):
            found = made.group("r", key)
            looks.append(None if found is None else (found[0].standing(), found[0].waiting, found[1]))
    return [*said, made.finish(T0 + 10_000 * SECOND)], looks


@settings(max_examples=100, deadline=None)
@given(
    correlation=st.sampled_from(_CORRELATIONS),
    times=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    batch=st.integers(1, 7),
    patience=st.integers(0, 5) | st.just(1000),
)
def test_how_long_records_wait_changes_nothing(correlation: dict[str, Any], times: list[int], batch: int, patience: int) -> None:
    with mock.patch.object(group, "_PATIENCE", patience):
        said, looks = run(engine(correlation), times, batch=batch)
    assert said == run(engine(correlation), times, batch=batch, hurry=True)[0]
    assert looks == run(engine(correlation), times, batch=batch)[1]


@settings(max_examples=30, deadline=None)
@given(correlation=st.sampled_from(_CORRELATIONS), times=st.lists(st.integers(0, 40), min_size=1, max_size=40), at=st.integers(0, 39))
def test_what_waits_survives_a_checkpoint(correlation: dict[str, Any], times: list[int], at: int) -> None:
    whole = [draft for drafts in run(engine(correlation), times, batch=1)[0] for draft in drafts]
    made, drafts = engine(correlation), list[Draft]()
    for number, seconds in enumerate(times):
        if number == at:
            after = engine(correlation)
            after.resume(made.clocks_us, made.floors_us())
            for rule_id, key in made.groups():
                after.load_group(rule_id, key, made.dump_group(rule_id, key))
            made = after
        drafts += made.feed("r", f'["{seconds % 2}"]', record(seconds, number), (number,))
        drafts += made.advance(max(made.clock_us, T0 + seconds * SECOND))
    drafts += made.finish(T0 + 10_000 * SECOND)
    assert sorted(drafts, key=lambda draft: draft.composite_id) == sorted(whole, key=lambda draft: draft.composite_id)


def test_many_records_are_folded_together_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RULE_RECORDS_PER_GROUP_MAX", 150)
    correlation = {"type": "value_sum", "window": "tumbling", "timespan": "60s", "condition": {"field": "data.v", "lte": 1e9}}
    times = [number // 5 for number in range(400)]
    said = {}
    for batch in (1, 400):
        made = engine(correlation)
        steps, _ = run(made, [seconds // 2 * 2 for seconds in times], batch=batch)
        draft = next(draft for drafts in steps for draft in drafts)
        said[batch] = draft.found, made.counters("r").overflowed
        kept = [seen for seen in draft.found.records if len(seen.data) > 2]
        assert (draft.found.count, len(draft.found.records), len(kept)) == (200, 150, SAMPLES_MAX)
    assert said[1] == said[400]
