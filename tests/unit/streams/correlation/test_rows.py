"""Matches in rows: what goes in comes out, and what would not fit does not go in."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.correlation.chain import seen_of
from streams.correlation.index import Hit
from streams.correlation.parse import parse_rule
from streams.correlation.rows import ROW_CHARACTERS_MAX, ROWS_CHARACTERS, RowsWriter, read_rows, seen_of_row
from streams.correlation.rules import ActiveRule
from streams.matching.matchers import RecordView

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def active(id: str = "r", order: int = 3) -> ActiveRule:
    correlation = {"type": "value_count", "timespan": 1000, "condition": {"gte": 1, "field": "data.v"}, "group-by": ["data.u"]}
    return ActiveRule(rule=parse_rule({"id": id, "events": {"e": {}, "f": {}}, "correlation": correlation}), version=1, order=order)


def record(data: Any = None, **fields: Any) -> RecordView:
    plain = {"id": "1", "type": "x", "source": "s", "tenant": "acme", "correlation_id": "c", "time": 5, **fields}
    return RecordView({**plain, "data": orjson.dumps(data if data is not None else {}).decode()})


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([("e",), ("e", "f")]), text, text,
                          st.sampled_from([None, 0, 1, 2.5, "v", ("", "[1]")])), min_size=1, max_size=8))  # fmt: skip
def test_rows_give_back_what_was_matched(given: list[tuple[str, tuple[str, ...], str, str, Any]]) -> None:
    writer, expected = RowsWriter(), []
    for number, (rule_id, names, group, id, value) in enumerate(given):
        view = record({"n": number}, id=id, source=group, time=number)
        hit = Hit(active(rule_id), names, group, value)
        assert writer.add(hit, view, 100 + number, number % 3, number % 2)
        seen = seen_of(view, hit)._replace(depth=number % 2)
        expected.append((rule_id, 3, names, 100 + number, number % 3, group, seen))
    rules, rows = read_rows(writer.text())
    found = [(*rules[row[0]], row[1], row[2], row[9], seen_of_row(row, rules[row[0]][2])) for row in rows]
    assert found == expected
    assert writer.first() == (100, 0)


def test_of_a_large_payload_only_what_the_rule_reads_goes_along() -> None:
    writer = RowsWriter()
    large = record({"u": "ann", "v": 1, "rest": "x" * limits.MATCH_PAYLOAD_BYTES_MAX})
    assert writer.add(Hit(active(), ("e",), '["ann"]', 1), large, 0, 0)
    (row,) = read_rows(writer.text())[1]
    assert (orjson.loads(row[10]), row[11]) == ({"u": "ann", "v": 1}, {"value": 1, "truncated": True})


def test_a_batch_ends_before_it_is_too_large_whatever_is_in_it() -> None:
    writer = RowsWriter()
    hit = Hit(active(), ("e",), "[]", None)
    assert not writer.add(hit, record(id="\0" * ROW_CHARACTERS_MAX), 0, 0)
    assert len(writer) == 0
    number = 0
    while not writer.full:
        assert writer.add(hit, record(id="\0" * (ROW_CHARACTERS_MAX - 200)), number, 0)
        number += 1
    assert number == -(-ROWS_CHARACTERS // (ROW_CHARACTERS_MAX - 200 + len("xsacmec[]{}") + 64))
    # A zero byte is six characters of JSON: the worst that can be.
    assert len(writer.text()) < 1024 * 1024 < limits.TOPIC_MESSAGE_BYTES_MAX
