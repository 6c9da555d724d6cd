"""Records that nobody should send: each is refused, counted or used, the others go on as ever, and nothing crashes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from streams.correlation.chain import Chain
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.correlation.trial import Trial
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent, to_micros

FIRST, LAST = '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"'
DEEP = "[" * 1000 + "]" * 1000

#: Rules that read records in every way there is; each fires at every record that takes part.
RULES: list[dict[str, Any]] = [
    {"id": "counts", "correlation": {"type": "event_count", "condition": {"gte": 1}}},
    {"id": "groups", "correlation": {"type": "event_count", "group-by": ["data.v", "subject"], "condition": {"gte": 1}}},
    {
        "id": "asks", "events": {"e": {"where": "data.v == data.v && data.v != 7"}},
        "correlation": {"type": "event_count", "condition": {"gte": 1}},
    },
    {"id": "sums", "correlation": {"type": "value_sum", "condition": {"field": "data.v", "gte": -1e308}}},
    {"id": "means", "correlation": {"type": "value_avg", "window": "tumbling", "condition": {"field": "data.v", "lt": 1e308}}},
    {"id": "distinct", "correlation": {"type": "value_count", "condition": {"field": "data.v", "gte": 1}}},
    {"id": "ranks", "correlation": {"type": "value_percentile", "condition": {"field": "data.v", "percentile": 50, "gte": -1e308}}},
    {"id": "misses", "correlation": {"type": "absence", "timespan": "30d"}},
    {"id": "rates", "correlation": {"type": "rate_change", "condition": {"baseline": 1, "gte": 0}}},
    {"id": "chains", "events": {"e": {"rule": ["counts", "sums"]}}, "correlation": {"type": "event_count", "condition": {"gte": 1}}},
    {
        "id": "trusts", "confidence": "size(events) > 0 && events[0].data.v == 1 ? 0.5 : 0.6",
        "correlation": {"type": "event_count", "condition": {"gte": 1}},
    },
]  # fmt: skip


def rules() -> list[Any]:
    def whole(rule: dict[str, Any]) -> dict[str, Any]:
        correlation = {"timespan": "1m", "after-match": "continue", **rule["correlation"]}
        return {"events": {"e": {"type": "x"}}, **rule, "correlation": correlation}

    return [parse_rule(whole(rule)) for rule in RULES]


def line(fields: str, time: str = '"2026-01-01T00:00:00Z"') -> bytes:
    return f'{{"type": "x", "time": {time}{"," if fields else ""} {fields}}}'.encode()


def tried(*lines: bytes) -> tuple[Trial, list[CompositeEvent]]:
    trial = Trial(rules())
    found = [composite for text in lines for composite in trial.line(text)]
    found += trial.finish()
    for composite in found:
        orjson.dumps([composite.data, composite.explanation, composite.group_key, [insight.data for insight in composite.insights]])
    return trial, found


def before_and_after(*hostile: bytes) -> tuple[Trial, list[CompositeEvent]]:
    """Good records around: they must come through."""
    good = line('"id": "good", "data": {"v": 3}')
    after = line('"id": "after", "data": {"v": 4}', '"2026-01-01T00:00:01Z"')
    trial, found = tried(good, *hostile, after)
    said = {composite.rule_id for composite in found if "after" in composite.event_ids}
    assert said >= {"counts", "groups", "asks", "sums", "means", "distinct", "ranks", "misses", "trusts"}
    return trial, found


@pytest.mark.parametrize(
    "text",
    [
        b"\0", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"\xed\xa0\x80", line('"data": {"v": NaN}'), line('"data": {"v": Infinity}'),
        line('"data": {"v": 1e999}'), line('"data": {"v": "\\ud800"}'), line(f'"data": {DEEP}'), line(f'"data": "{DEEP}"'),
        line(f'"other": {DEEP}'), line('"data": "no json"'), line('"id": 5'), line('"id": null, "subject": []'), line("", "5"),
        line("", '"soon"'),
        line("", '"2026-02-30T00:00:00Z"'), line("", '"0001-01-01T00:00:00+14:00"'), line("", '"9999-12-31T23:59:59-14:00"'),
        line("", "true"),
        b"[" * 1_000_000, b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_record_is_named_and_skipped(text: bytes) -> None:
    trial, _ = before_and_after(text)
    assert (trial.summary.records, trial.summary.broken_count) == (2, 1)
    assert trial.summary.broken[0].line == 2
    assert trial.summary.broken[0].code
    assert trial.summary.broken[0].message


@pytest.mark.parametrize(
    "fields",
    [
        '"data": {"v": null}', '"data": {}', '"data": null', '"data": []', '"data": 5', '"data": "{}"', '"data": {"v": "5"}',
        '"data": {"v": true}', '"data": {"v": [1]}', '"data": {"v": {"a": 1}}', '"data": {"v": ""}', '"data": {"v": "\\u0000"}',
        '"data": {"v": -0.0}', '"data": {"v": 1e308}', '"data": {"v": -1e308}', '"data": {"v": 5e-324}',
        '"data": {"v": 9223372036854775807}', '"data": {"v": 9223372036854775808}', '"data": {"v": -9223372036854775809}',
        '"data": {"v": 100000000000000000000000000000000}', '"data": {"v": 0.1111111111111111111111111111111111111111}',
        '"id": "\\u0000"', '"subject": "\\u0000", "source": "\\u0000"', '"data": {"\\u0000": 1, "v": 1}',
        f'"data": {{"v": {"[" * 98 + "]" * 98}}}', '"severity": "no severity"', '"severity": null',
        '"type": "x", "execution_id": {"a": []}',
    ],
)  # fmt: skip
def test_odd_values_are_used_or_count_as_errors(fields: str) -> None:
    trial, found = before_and_after(line(fields))
    assert (trial.summary.records, trial.summary.broken_count) == (3, 0)
    assert max(composite.event_count for composite in found if composite.rule_id == "counts") == 3, "a rule that reads nothing takes it"


def test_sums_beyond_every_number_stay_numbers() -> None:
    _, found = before_and_after(*[line(f'"id": "{sign}{n}", "data": {{"v": {sign}1e308}}') for n in range(3) for sign in ("", "-")])
    values = [composite.data["value"] for composite in found]
    assert all(-1.8e308 < value < 1.8e308 for value in values)


def test_huge_values_take_part_and_huge_groups_do_not() -> None:
    trial, found = before_and_after(line(f'"data": {{"v": "{"x" * 10_000_000}"}}'), line(f'"id": "{"i" * 100_000}", "data": {{"v": 1}}'))
    assert trial.summary.records == 4
    assert max(len(text) for composite in found for text in composite.group_key.values()) < 100
    assert trial.summary.errors == 1, "the group's text is too long for a key"


def test_a_group_may_be_as_long_as_a_key() -> None:
    _, found = before_and_after(line(f'"data": {{"v": "{"x" * 8000}"}}'))
    assert max(len(composite.group_key.get("data.v", "")) for composite in found) == 8000


@pytest.mark.parametrize("order", [(FIRST, LAST), (LAST, FIRST)])
def test_the_ends_of_time(order: tuple[str, str]) -> None:
    trial, found = tried(*[line(f'"id": "r{number}", "data": {{"v": 1}}', time) for number, time in enumerate(order)])
    assert trial.summary.records == 2
    assert trial.summary.late == (0 if order[0] == FIRST else 10)
    firsts = {composite.window_start.isoformat() for composite in found if composite.rule_id == "counts"}
    assert firsts == {f"{text[1:-2]}+00:00" for text in ((FIRST, LAST) if order[0] == FIRST else (LAST,))}
    assert any(composite.rule_id == "misses" for composite in found), "a deadline beyond the end of time is reached"


@pytest.mark.parametrize(
    "data", ["no json", "", DEEP, "[" * 3000, "[" * 9000 + "]" * 9000, '{"v": NaN}', "x" * 20_000, '"' + "\\ud800" + '"']
)
def test_payloads_of_foreign_records_are_no_objects(data: str) -> None:
    """In the service a record's payload is whatever text somebody has encoded."""
    chain = Chain([ActiveRule(rule=rule, version=1, order=0) for rule in rules()])
    found: list[CompositeEvent] = []
    for number, text in enumerate((data, '{"v": 3}')):
        plain = {"id": f"r{number}", "type": "x", "source": "", "subject": "", "time": number, "data": text}
        found += chain.advance(number)
        found += chain.record(None, RecordView(plain), number)
    found += chain.finish(to_micros(found[0].time) + 40 * 86_400_000_000)
    assert [list(composite.event_ids) for composite in found if composite.rule_id == "counts"] == [["r0"], ["r0", "r1"]]
    assert {composite.rule_id for composite in found if list(composite.event_ids) == ["r1"]} >= {"groups", "asks", "sums", "distinct"}
    assert chain.index.errors["groups"] == 1
