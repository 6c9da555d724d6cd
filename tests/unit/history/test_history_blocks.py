"""Block planning: what is cut, decided, folded back and resumed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from services.history.blocks import BLOCK_OFFSETS_MAX, Progress, Span, behind, block_record, fold, inserted_record, token
from services.history.migrate import migrations, statements_of
from services.history.partition import Partition
from services.history.rows import Source
from services.history.tables import PLACE_COLUMNS, all_tables
from streams.records import EPOCH, Fence

SOURCE = Source(catalogue=None, records=("SystemEvent",))


@dataclass
class FakeRaw:
    offset: int
    value: bytes | None = b"v"
    key: bytes | None = None
    timestamp: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def span(first: int, end: int, epoch_after: int = 0) -> Span:
    return Span(topic="t", partition=1, first=first, end=end, epoch_after=epoch_after)


def block(one: Span) -> object:
    return block_record(one, history="h", epoch=1, time=EPOCH, source="s")


def test_blocks_without_a_note_are_pending_and_reading_goes_on_after_the_last() -> None:
    progress: dict[tuple[str, int], Progress] = {}
    for record in (
        block(span(0, 10, 2)),
        inserted_record(span(0, 10), history="h", rows=10, epoch=1, time=EPOCH, source="s"),
        block(span(10, 15, 3)),
        Fence(type="log.fenced", log="l", partition=0, epoch=2, owner="o"),
    ):
        fold(progress, record, "h")  # type: ignore[arg-type]
    found = progress["t", 1]
    assert (found.end, found.epoch, [(one.first, one.end) for one in found.pending]) == (15, 3, [(10, 15)])


def test_a_resumed_partition_inserts_exactly_what_was_decided_then_what_follows() -> None:
    part = Partition(topic="t", partition=1, source=SOURCE, decided=20, epoch=5, read=5)
    part.pending.append(span(5, 10))
    assert part.start == 5
    part.take([FakeRaw(offset) for offset in range(5, 25)], 25, now_s=0.0)
    assert part.due(0.0, age_s=60, hurry=False)
    decided, records, was_decided = part.cut(0.0)
    assert ((decided.first, decided.end), [record.offset for record in records], was_decided) == ((5, 10), [5, 6, 7, 8, 9], True)
    # Offsets 10 to 19 were inserted by the block in between: they are read again, and not taken again.
    following, records, was_decided = part.cut(0.0)
    assert ((following.first, following.end), [record.offset for record in records], was_decided) == ((20, 25), list(range(20, 25)), False)
    assert following.epoch_before == 5
    assert part.bytes == 0


def test_a_block_is_due_when_old_large_or_hurried_and_not_before() -> None:
    part = Partition(topic="t", partition=0, source=SOURCE, decided=0)
    assert not part.due(0.0, age_s=0.5, hurry=True)
    part.take([FakeRaw(0)], 1, now_s=1.0)
    assert not part.due(1.4, age_s=0.5, hurry=False)
    assert part.due(1.5, age_s=0.5, hurry=False)
    assert part.due(1.0, age_s=0.5, hurry=True)
    part.take([], BLOCK_OFFSETS_MAX, now_s=1.0)
    assert part.due(1.0, age_s=60, hurry=False)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4_000_000)), max_size=30), st.integers(0, 5))
def test_cuts_are_gapless_and_lose_nothing(steps: list[tuple[int, int]], trailing: int) -> None:
    part = Partition(topic="t", partition=0, source=SOURCE, decided=0)
    offset, given_offsets = 0, []
    for gap, size in steps:
        offset += gap
        part.take([FakeRaw(offset, bytes(size))], offset + 1, now_s=0.0)
        given_offsets.append(offset)
        offset += 1
    part.take([], offset + trailing, now_s=0.0)
    position, taken = 0, []
    while part.due(0.0, age_s=0, hurry=True):
        one, records, _ = part.cut(0.0)
        assert one.first == position
        assert one.end > one.first
        assert all(one.first <= record.offset < one.end for record in records)
        position, taken = one.end, taken + [record.offset for record in records]
    assert (position, taken, part.bytes) == (offset + trailing, given_offsets, 0)


def test_tokens_tell_inserts_apart() -> None:
    tokens = {token(span(0, 5), table, month) for table in ("a", "b") for month in (202601, 202602)} | {token(span(0, 6), "a", 202601)}
    assert len(tokens) == 5


def test_behind_counts_what_is_missing() -> None:
    assert behind([(("t", 0), 10), (("t", 1), 3), (("u", 0), 4)], {("t", 0): 7, ("t", 1): 9}) == 3 + 0 + 4


def test_migrations_are_numbered_without_gaps_and_make_every_column() -> None:
    found = migrations()
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    created = {re.search(r"CREATE TABLE IF NOT EXISTS (\w+)", statement)[1]: statement for statement in found[0].statements}  # type: ignore[index]
    for name, table in all_tables().items():
        columns = [line.split()[0] for line in created[name].splitlines() if line.startswith("    ") and not line.startswith("    INDEX")]
        expected = {*table.targets, *PLACE_COLUMNS} | ({"data"} if "data_text" in table.targets else set())
        assert set(columns) == expected
        assert "non_replicated_deduplication_window = 10000" in created[name]


def test_statements_end_at_a_semicolon_at_the_end_of_a_line() -> None:
    assert statements_of("A;\nB 'x;y'\nC;\n") == ("A", "B 'x;y'\nC")
