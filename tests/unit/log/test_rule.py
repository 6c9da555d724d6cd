"""The reader's rule: fences that count, events that are void."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.log.rule import FENCED, POSITIONED, ReadersRule, Verdict, type_and_epoch

F, E, P = FENCED, "step.completed", POSITIONED


@pytest.mark.parametrize(
    ("records", "verdicts"),
    [
        ([(F, 1), (E, 1)], ["fence", "valid"]),
        ([(E, 1)], ["void"]),
        ([(F, 1), (F, 1), (E, 1)], ["fence", "fence-ignored", "valid"]),
        ([(F, 1), (F, 2), (E, 1), (E, 2)], ["fence", "fence", "void", "valid"]),
        ([(F, 2), (F, 1), (E, 2), (E, 1)], ["fence", "fence-ignored", "valid", "void"]),
        ([(F, 1), (E, 2)], ["fence", "void"]),
        ([(F, 1), (E, None), (F, None)], ["fence", "void", "fence-ignored"]),
        ([(F, 3), (P, 3), (P, 2)], ["fence", "position", "void"]),
    ],
)
def test_each_record_gets_its_verdict(records: list[tuple[str, int | None]], verdicts: list[str]) -> None:
    rule = ReadersRule()
    assert [rule.judge(*record).value for record in records] == verdicts


@given(st.lists(st.tuples(st.sampled_from([F, E, P]), st.integers(1, 5)), max_size=40), st.integers(0, 40))
def test_a_reader_that_resumes_with_its_epoch_says_the_same(records: list[tuple[str, int]], cut: int) -> None:
    whole = ReadersRule()
    expected = [whole.judge(*record) for record in records]
    first = ReadersRule()
    before = [first.judge(*record) for record in records[:cut]]
    second = ReadersRule(first.epoch)
    assert before + [second.judge(*record) for record in records[cut:]] == expected


@given(st.lists(st.tuples(st.sampled_from([F, E]), st.integers(1, 4)), max_size=40))
def test_epochs_never_go_back_and_valid_events_are_of_the_epoch_in_force(records: list[tuple[str, int]]) -> None:
    rule, highest = ReadersRule(), 0
    for record_type, epoch in records:
        verdict = rule.judge(record_type, epoch)
        highest = max(highest, epoch) if record_type == F else highest
        assert rule.epoch == highest
        assert (verdict is Verdict.VALID) == (record_type == E and epoch == highest)


def test_headers_are_read_without_decoding() -> None:
    assert type_and_epoch([("ce_type", b"step.completed"), ("mplp_epoch", b"12")]) == ("step.completed", 12)
    assert type_and_epoch([("mplp_epoch", b"x")]) == ("", None)
    assert type_and_epoch([]) == ("", None)
