"""A row has the same digest in its table and in the container that it came by; a row that says something else has another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.history import verify_sql
from services.history.blocks import Span
from services.history.rows import Rows, SeenIds, Source, build_rows
from services.history.store import History
from services.history.tables import LOG_RECORDS, all_tables
from services.history.verify_reads import TableSide, over_rows
from services.history.verify_sums import Range
from streams.codec.avro import Codec, SchemaIds, headers_of
from streams.records import CompositeEvent, Delivery, ModuleMessage, Record, SystemEvent, WorkflowCommand, WorkflowTransition
from streams.settings import Settings
from streams.testing.controls import FULL, LEAST
from streams.topics import BY_NAME, COMMANDS, COMPOSITES, DELIVERIES, RESPONSES, SYSTEM_EVENTS, TRANSITIONS

CODEC = Codec(SchemaIds.local())
OF = Range(first=0, end=100)


@dataclass
class FakeRaw:
    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = field(default_factory=list)
    key: bytes | None = b"k"
    timestamp: int = 1_790_000_000_123


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    async with History(Settings(data_dir=tmp_path)) as history:
        yield history


def rows_of(topic: str, records: list[FakeRaw], *, epoch: int = 0) -> Rows:
    known = BY_NAME[topic]
    source = Source(catalogue=known, records=tuple(record.__name__ for record in known.records))
    span = Span(topic=topic, partition=0, first=records[0].offset, end=records[-1].offset + 1, epoch_before=epoch)
    return build_rows(span, records, source, CODEC, SeenIds())


async def digests(history: History, topic: str, rows: Rows) -> tuple[dict[int, tuple[str, int]], dict[int, tuple[str, int]]]:
    """Offset → table and digest, in the containers and in the tables."""
    own = history.connections("test", size=1)
    local = history.local_connections("test-local", size=1)
    try:
        hashed = await over_rows(local, rows, verify_sql.container_digests)
        for table, some in rows.tables.items():
            await history.tables.insert(Span(topic=topic, partition=0, first=0, end=100), table, some, within_s=60)
        found = await TableSide(own, history.settings).rows(topic, 0, OF, list(all_tables()))
    finally:
        await own.close()
        await local.close()
    expected = {int(offset): (table, int(digest)) for table, some in hashed.items() for offset, digest in some}
    return expected, {offset: (row.table, row.digest) for offset, (row,) in found.items()}


@pytest.mark.parametrize(
    ("topic", "record"),
    [
        (TRANSITIONS, WorkflowTransition),
        (RESPONSES, ModuleMessage),
        (SYSTEM_EVENTS, SystemEvent),
        (COMPOSITES, CompositeEvent),
        (DELIVERIES, Delivery),
        (COMMANDS, WorkflowCommand),
    ],
)
async def test_every_record_has_the_same_digest_on_both_sides(history: History, topic: str, record: type[Record]) -> None:
    epoch = getattr(FULL[record.__name__], "epoch", None) or 0
    both = [FakeRaw(n, CODEC.encode(each), headers_of(each)) for n, each in enumerate((FULL[record.__name__], LEAST[record.__name__]))]
    expected, found = await digests(history, topic, rows_of(topic, both, epoch=epoch))
    assert expected == found
    assert len({digest for _, digest in found.values()}) == 2


async def test_what_is_no_record_has_the_same_digest_on_both_sides(history: History) -> None:
    headers: list[tuple[str, bytes]] = [("a", b"\x00\xff"), ("ce_id", b"i"), ("a", b"")]
    odd = [FakeRaw(0, None), FakeRaw(2, b"\xff\x00'\\", headers), FakeRaw(3, b"", key=None)]
    expected, found = await digests(history, SYSTEM_EVENTS, rows_of(SYSTEM_EVENTS, odd))
    assert expected == found
    assert {table for table, _ in found.values()} == {LOG_RECORDS}
    assert len({digest for _, digest in found.values()}) == 4, "the gap at offset 1, too"


async def test_every_column_counts(history: History) -> None:
    full = FULL["WorkflowTransition"]
    assert isinstance(full, WorkflowTransition)
    rows = rows_of(TRANSITIONS, [FakeRaw(0, CODEC.encode(full), headers_of(full))], epoch=full.epoch or 0)
    _, before = await digests(history, TRANSITIONS, rows)
    own = history.connections("test", size=1)
    table = all_tables()["workflow_transitions"]
    changes: dict[str, Any] = {"_timestamp": "_timestamp + 1"} | {
        target: "NULL" if column.type.startswith("Nullable") else "type || 'x'" if column.type == "String" else f"{target} + 1"
        for column, target in zip(table.columns, table.targets, strict=True)
    }
    changes["status"] = "'failed'"
    seen = {before[0]}
    for column, value in changes.items():
        change = f"SELECT * REPLACE ({value} AS {column}) FROM workflow_transitions"
        sql = f"SELECT {verify_sql.digest('workflow_transitions')} FROM ({change})"
        seen.add(("workflow_transitions", int((await own.run(lambda client, sql=sql: client.query(sql).result_rows))[0][0])))  # type: ignore[misc]
    await own.close()
    assert len(seen) == 1 + len(changes)
