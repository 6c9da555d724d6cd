"""Every offset of a block becomes exactly one row, whatever lies there, and the same rows again when it is built again."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.history.blocks import Span
from services.history.container import CHECK_FIELD, PLACE_FIELD, body_id, container, varint
from services.history.rows import REPEAT_WINDOW_OFFSETS, Rows, SeenIds, Source, build_rows, by_month, month_of
from services.history.source import source_of, sunk
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, all_tables
from streams.codec.avro import Codec, SchemaIds, headers_of
from streams.records import Delivery, Fence, Position, Record, SystemEvent, WorkflowTransition
from streams.topics import BY_NAME, SYSTEM_EVENTS, TRANSITIONS, TopicNames

CODEC = Codec(SchemaIds.local())
EVENTS = Source(catalogue=BY_NAME[SYSTEM_EVENTS], records=("SystemEvent",))
LOG = Source(catalogue=BY_NAME[TRANSITIONS], records=("WorkflowTransition", "Fence", "Position"))
DEAD = Source(catalogue=None, records=())
TIME_MS = 1_790_000_000_000


@dataclass
class FakeRaw:
    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    key: bytes | None = b"k"
    timestamp: int = TIME_MS


def raw(offset: int, record: Record, **more: Any) -> FakeRaw:
    return FakeRaw(offset, CODEC.encode(record), headers_of(record), **more)


def event(**fields: Any) -> SystemEvent:
    return SystemEvent(type="order.paid", **fields)


def transition(epoch: int, sequence: int) -> WorkflowTransition:
    return WorkflowTransition(type="step.started", execution_id="x", workflow_id="w", aggregate_id="x", sequence=sequence, epoch=epoch)


def fence(epoch: int) -> Fence:
    return Fence(type="log.fenced", log="mplp.workflow.transitions", partition=0, epoch=epoch, owner="o")


def build(
    records: list[FakeRaw], source: Source, first: int, end: int, *, epoch: int = 0, seen: SeenIds | None = None, strict: bool = False
) -> Rows:
    span = Span(topic="t", partition=0, first=first, end=end, epoch_before=epoch)
    return build_rows(span, records, source, CODEC, seen or SeenIds(), strict=strict)


def kinds(rows: Rows) -> dict[int, str]:
    schema = fastavro.parse_schema(dict(all_tables()[LOG_RECORDS].schema))
    return {
        offset: fastavro.schemaless_reader(io.BytesIO(body), schema, None)["kind"] for offset, _, body in rows.tables.get(LOG_RECORDS, [])
    }


def offsets(rows: Rows) -> list[int]:
    return sorted(offset for some in rows.tables.values() for offset, _, _ in some)


def test_readers_rule_and_epoch_are_carried_over_a_block() -> None:
    records = [
        raw(0, transition(1, 1)),
        raw(1, fence(2)),
        raw(2, transition(1, 2)),
        raw(3, transition(2, 2)),
        raw(4, fence(2)),
        raw(5, fence(3)),
    ]
    rows = build(records, LOG, 0, 6, epoch=1)
    assert [row[0] for row in rows.tables["workflow_transitions"]] == [0, 3]
    assert kinds(rows) == {1: "fence", 2: "void", 4: "fence-ignored", 5: "fence"}
    assert rows.epoch_after == 3


def test_positions_and_records_without_an_epoch_are_no_rows_of_a_log() -> None:
    position = Position(type="log.positioned", log="l", partition=0, epoch=1)
    rows = build([raw(0, fence(1)), raw(1, position), FakeRaw(2, b"junk")], LOG, 0, 3)
    assert kinds(rows) == {0: "fence", 1: "position", 2: "void"}


def test_what_cannot_be_a_row_says_why() -> None:
    good = event()
    misplaced = Delivery(type="x", event_id="e", route_id="r", destination="d", status="failed")
    records = [
        raw(0, good),
        FakeRaw(1, b"junk"),
        FakeRaw(2, b"\x00\xff\xff\xff\xff12"),
        raw(3, misplaced),
        FakeRaw(4, None),
        raw(5, good),
    ]
    rows = build(records, EVENTS, 0, 7)
    assert kinds(rows) == {1: "undecodable", 2: "unknown-schema", 3: "other", 4: "tombstone", 5: "repeat", 6: "gap"}
    assert [row[0] for row in rows.tables["system_events"]] == [0]


def test_strict_finds_bodies_that_clickhouse_could_not_read() -> None:
    value = CODEC.encode(event())
    rows = build([FakeRaw(0, value), FakeRaw(1, value[:30]), FakeRaw(2, CODEC.encode(event()))], EVENTS, 0, 3, strict=True)
    assert kinds(rows) == {1: "undecodable"}
    assert [row[0] for row in rows.tables["system_events"]] == [0, 2]


def test_dead_letters_keep_bytes_and_errors() -> None:
    headers = [
        ("__streams.errors.topic", b"orders"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"99999999999999999999999"),
        ("mplp.errors.attempts", b"x"),
        ("mplp.errors.route", b"billing"),
    ]
    rows = build([FakeRaw(0, b"\xff\x00raw", headers), FakeRaw(1, None, [])], DEAD, 0, 2)
    schema = fastavro.parse_schema(dict(all_tables()[DEAD_LETTERS].schema))
    first, second = (fastavro.schemaless_reader(io.BytesIO(body), schema, None) for _, _, body in rows.tables[DEAD_LETTERS])
    assert (first["value"], first["error_topic"], first["error_partition"], first["route"]) == (b"\xff\x00raw", "orders", 3, "billing")
    assert (first["error_offset"], first["attempts"], second["value"]) == (None, None, None)


def test_an_id_repeats_only_within_the_window() -> None:
    seen = SeenIds([(0, b"a")])
    assert not seen.is_new(REPEAT_WINDOW_OFFSETS, b"a")
    assert seen.is_new(REPEAT_WINDOW_OFFSETS + 1, b"a")
    assert not seen.is_new(REPEAT_WINDOW_OFFSETS + 2, b"a")


def test_a_block_built_anew_does_not_take_its_own_ids_for_repeats() -> None:
    seen = SeenIds()
    records = [raw(offset, event()) for offset in range(5)]
    before = build(records, EVENTS, 0, 5, seen=seen)
    seen.forget_from(0)
    assert build(records, EVENTS, 0, 5, seen=seen) == before


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_offset_is_one_row_and_cuts_do_not_matter(data: st.DataObject) -> None:
    pool = [event() for _ in range(4)]
    transitions = [transition(data.draw(st.integers(0, 4)), n + 1) for n in range(4)]
    source = data.draw(st.sampled_from([EVENTS, LOG, DEAD]))
    choices: list[Any] = [*pool, *transitions, fence(1), fence(2), fence(3)]
    records, offset = [], 0
    for _ in range(data.draw(st.integers(0, 25))):
        offset += data.draw(st.integers(0, 3))
        made = data.draw(st.sampled_from([*choices, b"", b"\x00", b"junk", None]))
        records.append(raw(offset, made) if isinstance(made, Record) else FakeRaw(offset, made))
        offset += 1
    end = offset + data.draw(st.integers(0, 2))
    whole = build(records, source, 0, end)
    assert offsets(whole) == list(range(end))

    cut = data.draw(st.integers(0, end))
    seen = SeenIds()
    head = build([record for record in records if record.offset < cut], source, 0, cut, seen=seen)
    tail = build([record for record in records if record.offset >= cut], source, cut, end, epoch=head.epoch_after, seen=seen)
    joined = {table: head.tables.get(table, []) + tail.tables.get(table, []) for table in {*head.tables, *tail.tables}}
    places = {table: [row[0] for row in rows] for table, rows in joined.items()}
    assert places == {table: [row[0] for row in rows] for table, rows in whole.tables.items()}
    assert tail.epoch_after == whole.epoch_after


@given(st.integers(-(2**63), 2**63 - 1))
def test_varint_is_avros_long(number: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert varint(number) == out.getvalue()


@given(st.text(max_size=200))
def test_body_id_is_the_first_field(record_id: str) -> None:
    assert body_id(CODEC.encode(event(id=record_id))) == record_id.encode()


@given(st.binary(max_size=40))
def test_body_id_of_garbage_is_bytes(value: bytes) -> None:
    assert isinstance(body_id(value), bytes)


def test_a_container_is_one_that_avro_reads() -> None:
    records = [event(data={"n": n}) for n in range(3)]
    rows = [(n + 10, TIME_MS, CODEC.encode(record)[5:]) for n, record in enumerate(records)]
    read = list(fastavro.reader(io.BytesIO(container(all_tables()["system_events"].schema, rows, check=-7))))
    assert [row["id"] for row in read] == [record.id for record in records]
    assert {row[CHECK_FIELD] for row in read} == {(-7).to_bytes(8, "little", signed=True)}
    assert read[2][PLACE_FIELD][:8] == (12).to_bytes(8, "little")
    assert orjson.loads(read[1]["data"]) == {"n": 1}


def test_rows_are_split_by_month() -> None:
    rows = [(0, 0, b""), (1, TIME_MS, b""), (2, TIME_MS + 40 * 86_400_000, b"")]
    assert {month: [row[0] for row in some] for month, some in by_month(rows).items()} == {197001: [0], 202609: [1], 202610: [2]}
    assert month_of(TIME_MS) == 202609


@pytest.mark.parametrize(
    ("topic", "records"),
    [
        ("acme.system.events", ("SystemEvent",)),
        ("acme.module.requests.billing", ("ModuleMessage",)),
        ("acme.system.events.dlq", ()),
        ("orders.dlq", ()),
        ("acme.billing.dlq", ()),
    ],
)
def test_what_is_sunk(topic: str, records: tuple[str, ...]) -> None:
    source = source_of(topic, TopicNames("acme"))
    assert source is not None
    assert source.records == records


@pytest.mark.parametrize(
    "topic",
    [
        "orders",
        "acme.internal.blocks",
        "acme.system.events.retry",
        "other.system.events",
        "other.system.events.dlq",
        "mplp.system.events",
        "mplp.workflow.transitions",
        "acme.control.rules",
        "other.module.requests.billing",
        "_schemas",
        "acme.module.requests.billing.retry",
    ],
)
def test_what_is_not_sunk(topic: str) -> None:
    assert sunk([topic], TopicNames("acme")) == {}
