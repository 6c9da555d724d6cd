from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from streams.correlation.parse import parse_rule
from streams.correlation.trial import Trial, parse_until
from streams.errors import InvalidInput
from streams.records import CompositeEvent

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def rule(id: str = "r", **correlation: Any) -> Any:
    return parse_rule(
        {
            "id": id, "events": {"e": {"type": "x"}},
            "correlation": {"type": "event_count", "timespan": "1m", "grace": "5s", "condition": {"gte": 2}, **correlation},
        }
    )  # fmt: skip


def line(seconds: float, **fields: Any) -> bytes:
    return orjson.dumps({"type": "x", "time": (T0 + timedelta(seconds=seconds)).isoformat(), **fields})


def run(trial: Trial, *lines: bytes | str, until: datetime | None = None) -> list[CompositeEvent]:
    found = [composite for text in lines for composite in trial.line(text)]
    return found + list(trial.finish(until))


def test_ids_default_to_ones_that_sort_in_the_order_of_the_file() -> None:
    (composite,) = run(Trial([rule(output="final")]), line(1), line(1))
    assert list(composite.event_ids) == sorted(composite.event_ids)
    assert len(set(composite.event_ids)) == 2


def test_broken_lines_are_named_and_skipped() -> None:
    trial = Trial([rule()])
    broken = [b"{", b"[]", b"{}", b'{"type":"x"}', b'{"type":"x","time":"soon"}', b'{"type":5,"time":"2026-01-01T00:00:00Z"}',
              line(0, data="no json"), line(0, topic=3), line(0, id=3)]  # fmt: skip
    assert len(run(trial, line(0), *broken, b"", line(1))) == 1
    assert (trial.summary.records, trial.summary.errors, trial.summary.broken_count) == (2, 9, 9)
    assert [each.line for each in trial.summary.broken] == list(range(2, 11))


def test_data_may_be_a_text_that_is_json() -> None:
    made = rule(**{"group-by": ["data.u"]})
    (composite,) = run(Trial([made]), line(0, data={"u": 1}), line(1, data='{"u": 1.0}'))
    assert composite.group_key == {"data.u": "1"}


def test_every_record_moves_the_watermark_matched_or_not() -> None:
    trial = Trial([rule()])
    assert run(trial, line(0), line(100, type="other"), line(1)) == []
    assert trial.summary.late == 1


def test_at_the_end_everything_is_decided_or_what_until_allows() -> None:
    made = rule(output="final")
    assert len(run(Trial([made]), line(0), line(1))) == 1
    assert run(Trial([made]), line(0), line(1), until=T0 + timedelta(seconds=1)) == []
    assert len(run(Trial([made]), line(0), line(1), until=T0 + timedelta(seconds=1, microseconds=1))) == 1
    # Earlier than what was reached already: nothing changes.
    assert run(Trial([made]), line(0), line(1), until=T0 - timedelta(days=1)) == []


def test_a_topic_is_only_compared_when_it_is_given() -> None:
    of_mine = parse_rule(
        {"id": "r", "events": {"e": {"topic": "mine"}}, "correlation": {"type": "event_count", "timespan": "1m", "condition": {"gte": 1}}}
    )
    composites = run(Trial([of_mine]), line(0), line(1, topic="mine"), line(2, topic="theirs"))
    assert [composite.causation_id for composite in composites] == ["line-000000000001", "line-000000000002"]


def test_several_rules_run_together_disabled_ones_too() -> None:
    disabled = parse_rule({**rule("off").document, "enabled": False})
    assert {composite.rule_id for composite in run(Trial([rule(), disabled]), line(0), line(1))} == {"r", "off"}


def test_duplicates_and_failing_expressions_are_counted() -> None:
    made = parse_rule({**rule().document, "events": {"e": {"where": "data.n > 0"}}})
    trial = Trial([made])
    run(trial, line(0, id="a", data={"n": 1}), line(1, id="a", data={"n": 1}), line(2))
    assert (trial.summary.matched, trial.summary.duplicates, trial.summary.errors) == (2, 1, 1)


def test_until_is_a_time() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_until("tomorrow")
    assert caught.value.code == "time.invalid"
