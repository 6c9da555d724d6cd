"""Sums of buckets, pieces of partitions, and the judgement of single offsets: the pure parts of a verification."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.history.blocks import BLOCK_BYTES_MAX, BLOCK_OFFSETS_MAX
from services.history.pieces import Cutter
from services.history.verify_judge import Row, judge
from services.history.verify_report import PLACES_MAX, Kind, PartitionReport, Report
from services.history.verify_sums import BUCKET_OFFSETS, Range, Sum, Sums, bucket_of, differing, differing_offsets, range_of, ranges

places = st.sets(st.integers(0, 260_000), max_size=20)
rows = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 2**64 - 1)), max_size=30)


class TestSums:
    @given(rows)
    def test_the_order_of_rows_does_not_matter(self, some: list[tuple[int, str, int]]) -> None:
        one, other = Sums(), Sums()
        for bucket, table, digest in some:
            one.add(bucket, table, 1, digest)
        for bucket, table, digest in sorted(some, key=lambda row: row[2]):
            other.add(bucket, table, 1, digest)
        assert differing(one, other) == []
        assert one.rows() == len(some)
        assert sum(each.count for each in one.together().values()) == len(some)

    @given(rows.filter(bool), st.integers(1, 2**64 - 1))
    def test_another_digest_is_seen_in_its_bucket(self, some: list[tuple[int, str, int]], change: int) -> None:
        one, other = Sums(), Sums()
        for number, (bucket, table, digest) in enumerate(some):
            one.add(bucket, table, 1, digest)
            other.add(bucket, table, 1, digest + change if number == 0 else digest)
        assert differing(one, other) == [some[0][0]]

    def test_a_row_in_another_table_is_seen(self) -> None:
        one, other = Sums(), Sums()
        one.add(3, "a", 1, 7)
        other.add(3, "b", 1, 7)
        assert differing(one, other) == [3]

    def test_offsets_that_are_missing_or_too_many_are_seen(self) -> None:
        expected = {0: Sum(count=2, digest=5), 1: Sum(count=1, digest=3)}
        assert differing_offsets({0: Sum(count=2, digest=5)}, expected) == [1]
        assert differing_offsets({**expected, 2: Sum(count=1, digest=1)}, expected) == [2]


class TestRanges:
    @given(st.sets(st.integers(0, 60)))
    def test_ranges_have_the_offsets_and_are_as_few_as_can_be(self, offsets: set[int]) -> None:
        found = list(ranges(sorted(offsets)))
        assert {offset for of in found for offset in range(of.first, of.end)} == offsets
        assert all(before.end < after.first for before, after in itertools.pairwise(found))

    @given(st.integers(0, 10**12))
    def test_a_bucket_has_its_offsets(self, offset: int) -> None:
        of = range_of(bucket_of(offset))
        assert of.first <= offset < of.end
        assert of.offsets == BUCKET_OFFSETS

    @given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
    def test_what_two_ranges_have_in_common(self, a: int, b: int, c: int, d: int) -> None:
        common = Range(first=a, end=b).within(Range(first=c, end=d))
        assert set(range(common.first, common.end)) == set(range(a, b)) & set(range(c, d))
        assert common.offsets == len(set(range(a, b)) & set(range(c, d)))


@dataclass
class FakeRaw:
    offset: int
    size: int = 0
    timestamp: int = 0
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def value(self) -> bytes | None:
        return bytes(self.size)


class TestCutter:
    @given(st.integers(0, 100_000), st.integers(0, 160_000), places, st.sets(st.integers(0, 260_000), max_size=5))
    def test_pieces_have_every_offset_once_and_end_where_they_must(self, first: int, more: int, offsets: set[int], ends: set[int]) -> None:
        of = Range(first=first, end=first + more)
        cutter: Cutter[FakeRaw] = Cutter(of, sorted(ends))
        pieces = [piece for offset in sorted(offsets) for piece in cutter.take(FakeRaw(offset))]
        pieces += cutter.rest()
        at = of.first
        for end, records in pieces:
            assert at < end <= at + BLOCK_OFFSETS_MAX
            assert all(at <= record.offset < end for record in records)
            assert not any(at < each < end for each in ends)
            at = end
        assert at == of.end or not more
        within = sorted(offset for offset in offsets if of.first <= offset < of.end)
        assert [record.offset for _, records in pieces for record in records] == within

    def test_pieces_are_bounded_in_bytes(self) -> None:
        cutter: Cutter[FakeRaw] = Cutter(Range(first=0, end=4))
        size = BLOCK_BYTES_MAX // 2
        pieces = [piece for offset in range(4) for piece in cutter.take(FakeRaw(offset, size))]
        pieces += cutter.rest()
        assert [(end, [record.offset for record in records]) for end, records in pieces] == [(n + 1, [n]) for n in range(4)]


OF = Range(first=0, end=1)
RECORD = Row(table="system_events", digest=1, id="i", value_md5="m")


class TestJudge:
    def test_what_is_as_it_should_be(self) -> None:
        said = judge(OF, {0: [Row(table="system_events", digest=1, id="i")]}, {0: RECORD})
        assert (said.differences, said.gone, said.not_decoded, said.repeats) == ([], 0, 0, {})

    @pytest.mark.parametrize(
        ("found", "kind"),
        [
            ([], Kind.MISSING),
            ([RECORD, RECORD], Kind.DUPLICATE),
            ([Row(table="system_events", digest=2, id="i")], Kind.CHANGED),
            ([Row(table="deliveries", digest=1, id="i")], Kind.CHANGED),
            ([Row(table="log_records", digest=2, kind="gap")], Kind.CHANGED),
            ([Row(table="log_records", digest=2, kind="void", id="i", value_md5="m")], Kind.CHANGED),
            ([Row(table="log_records", digest=2, kind="repeat", id="other", value_md5="m")], Kind.CHANGED),
            ([Row(table="log_records", digest=2, kind="repeat", id="i", value_md5="other")], Kind.CHANGED),
            ([Row(table="log_records", digest=2, kind="undecodable", value_md5="other")], Kind.CHANGED),
        ],
    )
    def test_what_differs(self, found: list[Row], kind: Kind) -> None:
        assert [each[0] for each in judge(OF, {0: found}, {0: RECORD}).differences] == [kind]

    def test_a_record_that_was_not_read_is_kept_as_bytes(self) -> None:
        said = judge(OF, {0: [Row(table="log_records", digest=2, kind="unknown-schema", value_md5="m")]}, {0: RECORD})
        assert (said.differences, said.not_decoded) == ([], 1)

    def test_an_error_may_be_worded_differently(self) -> None:
        should = Row(table="log_records", digest=1, kind="undecodable", value_md5="m")
        said = judge(OF, {0: [Row(table="log_records", digest=2, kind="undecodable", value_md5="m")]}, {0: should})
        assert (said.differences, said.not_decoded) == ([], 0)

    def test_a_fence_that_is_kept_as_unreadable_differs(self) -> None:
        should = Row(table="log_records", digest=1, kind="fence", value_md5="m")
        said = judge(OF, {0: [Row(table="log_records", digest=2, kind="undecodable", value_md5="m")]}, {0: should})
        assert [each[0] for each in said.differences] == [Kind.CHANGED]

    def test_a_record_that_the_topic_has_lost_since(self) -> None:
        should = Row(table="log_records", digest=1, kind="gap")
        assert judge(OF, {0: [RECORD]}, {0: should}).gone == 1
        assert judge(OF, {0: [Row(table="log_records", digest=9, kind="gap")]}, {0: should}).gone == 0

    def test_a_repeat_from_farther_back_is_asked_for(self) -> None:
        said = judge(OF, {0: [Row(table="log_records", digest=2, kind="repeat", id="i", value_md5="m")]}, {0: RECORD})
        assert (said.differences, said.repeats) == ([], {0: "i"})

    def test_what_the_topic_cannot_be_asked_for_must_be_there_once(self) -> None:
        found = {0: [RECORD], 2: [RECORD, RECORD]}
        said = judge(Range(first=0, end=3), found, None)
        assert [(kind, offset) for kind, offset, _ in said.differences] == [(Kind.MISSING, 1), (Kind.DUPLICATE, 2)]


def part(**more: int) -> PartitionReport:
    return PartitionReport(topic="t", partition=0, kept=Range(first=5, end=25), topic_first=10, rows=18, log_records=2, **more)


class TestReport:
    def test_exact(self) -> None:
        said = Report(partitions=[part(compared=15)]).to_dict()
        assert (said["verdict"], said["exact"], said["offsets"], said["rows"], said["log_records"]) == ("exact", True, 20, 18, 2)
        assert said["topics"][0]["partitions"][0]["topic_first"] == 10

    def test_behind_is_not_exact(self) -> None:
        report = Report(partitions=[part(), part(pending=3)])
        assert (report.verdict, report.exact, report.to_dict()["pending"]) == ("behind", False, 3)

    def test_a_difference_weighs_more_than_being_behind(self) -> None:
        one = part(pending=3)
        one.differs(Kind.MISSING, Range(first=7, end=8))
        assert Report(partitions=[one]).verdict == "differs"

    def test_neighbours_that_differ_alike_are_one_place(self) -> None:
        one = part()
        for first in (5, 6, 8):
            one.differs(Kind.MISSING, Range(first=first, end=first + 1))
        one.differs(Kind.CHANGED, Range(first=9, end=10))
        assert [(each.kind, each.at.first, each.at.end) for each in one.differences] == [
            (Kind.MISSING, 5, 7), (Kind.MISSING, 8, 9), (Kind.CHANGED, 9, 10)
        ]  # fmt: skip
        assert one.counts() == {"missing": 3, "duplicate": 0, "stray": 0, "changed": 1}

    def test_a_report_names_so_many_places_and_counts_the_others(self) -> None:
        parts = [part(), part()]
        for one in parts:
            for first in range(0, 4 * PLACES_MAX, 2):
                one.differs(Kind.MISSING, Range(first=first, end=first + 1))
        said = Report(partitions=parts).to_dict()
        assert len(said["differences"]) == PLACES_MAX
        assert len(said["differences"]) + said["differences_left_off"] == 4 * PLACES_MAX
