"""From the records of a block to rows by table: the reader's rule, repeats, what cannot be decoded, gaps. Pure.

Every offset of the block becomes exactly one row: of the record's table, of `dead_letters`, or of `log_records` with the reason.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol

import fastavro

from services.history.blocks import Span
from services.history.container import Row, body_id
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, TABLES, all_tables
from streams.codec.avro import Codec
from streams.errors import InvalidInput
from streams.log.rule import ReadersRule, Verdict, type_and_epoch
from streams.topics import Topic

#: Kafka timestamps outside of this are set to its nearer end (a row's month must be one that ClickHouse knows); milliseconds.
TIMESTAMP_MS_MAX = 4_102_444_800_000  # 2100-01-01
#: How many offsets back a repeated id is recognised, per partition.
REPEAT_WINDOW_OFFSETS = 50_000

_VERDICT_KINDS = {
    Verdict.FENCE: "fence", Verdict.FENCE_IGNORED: "fence-ignored", Verdict.POSITION: "position", Verdict.VOID: "void",
}  # fmt: skip
_ERRORS = "__streams.errors."
_OURS = "mplp.errors."


class Raw(Protocol):
    """A record as the consumer gives it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class SeenIds:
    """Ids of the latest offsets of one partition. Hashes only: 64 bits among so few do not collide in practice."""

    __slots__ = ("_offsets",)

    def __init__(self, entries: Iterable[tuple[int, bytes]] = ()) -> None:
        """`entries`: offset and id of what lies before the first record, ascending."""
        self._offsets: dict[int, int] = {}  #: hash of the id → offset, in order of offsets
        for offset, record_id in entries:
            self.is_new(offset, record_id)

    def is_new(self, offset: int, record_id: bytes) -> bool:
        """Whether the id was not seen in the last `REPEAT_WINDOW_OFFSETS` offsets; then it is taken in."""
        number = hash(record_id)
        before = self._offsets.get(number)
        if before is None:
            self._offsets[number] = offset
            return True
        del self._offsets[number]
        if offset - before <= REPEAT_WINDOW_OFFSETS:
            self._offsets[number] = before
            return False
        self._offsets[number] = offset
        return True

    def forget_from(self, offset: int) -> None:
        """Forgets what was taken in at `offset` and later: a block is built anew."""
        self._offsets = {number: at for number, at in self._offsets.items() if at < offset}

    def trim(self, offset: int) -> None:
        """Forgets what no record from `offset` on can repeat."""
        least = offset - REPEAT_WINDOW_OFFSETS
        if len(self._offsets) > 2 * REPEAT_WINDOW_OFFSETS:
            self._offsets = {number: at for number, at in self._offsets.items() if at >= least}


@dataclass(slots=True)
class Rows:
    """The rows of a block: table → rows, in order of their offsets."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    epoch_after: int = 0

    def add(self, table: str, row: Row) -> None:
        """One more row."""
        found = self.tables.get(table)
        if found is None:
            found = self.tables[table] = []
        found.append(row)

    @property
    def count(self) -> int:
        """Rows in all tables."""
        return sum(map(len, self.tables.values()))

    def without(self, offsets: Collection[int]) -> Rows:
        """The rows at other offsets than these."""
        kept = {table: [row for row in rows if row[0] not in offsets] for table, rows in self.tables.items()}
        return Rows(tables={table: rows for table, rows in kept.items() if rows}, epoch_after=self.epoch_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is known of a topic: its catalogue entry, None for dead letters of users' topics and inboxes of users' modules."""

    catalogue: Topic | None
    records: tuple[str, ...]  #: names of the records that may lie in it; empty: original bytes (dead letters)

    @property
    def is_log(self) -> bool:
        """Whether the reader's rule holds."""
        return self.catalogue is not None and self.catalogue.log


def build_rows(span: Span, records: Iterable[Raw], source: Source, codec: Codec, seen: SeenIds, *, strict: bool = False) -> Rows:
    """The rows of a block. `records` are those of its offsets, ascending; an offset without one becomes a row of kind `gap`.

    Bodies go to ClickHouse as they are if they were written with our own schema; `strict` decodes and encodes every one
    instead, which is what finds the ones that ClickHouse cannot read.
    """
    builder = _Builder(span, source, codec, seen, strict)
    builder.take_all(records)
    builder.rows.epoch_after = builder.rule.epoch
    return builder.rows


class _Builder:
    """The state of one `build_rows`."""

    def __init__(self, span: Span, source: Source, codec: Codec, seen: SeenIds, strict: bool) -> None:
        self.rows = Rows()
        self.rule = ReadersRule(span.epoch_before)
        self._span, self._source, self._codec, self._seen = span, source, codec, seen
        #: framing of a body that is written with our own schema of a record that belongs here → table
        self._plain = {b"\x00" + codec.schema_id(name).to_bytes(4, "big"): TABLES[name] for name in source.records if name in TABLES}
        #: the same → takes a row of that table as it is; what is not in it has to be looked into
        self._as_it_is: dict[bytes, Callable[[Row], None]] = {}
        if not strict:
            self._as_it_is = {frame: self.rows.tables.setdefault(table, []).append for frame, table in self._plain.items()}

    def take_all(self, records: Iterable[Raw]) -> None:
        """The rows of all offsets of the block. This is what every record of the history goes through: little is done for each."""
        expected, timestamp = self._span.first, 0
        is_log, judge, as_it_is, is_new = self._source.is_log, self.rule.judge_headers, self._as_it_is, self._seen.is_new
        for record in records:
            offset, value, timestamp = record.offset, record.value, record.timestamp or 0
            if not 0 <= timestamp <= TIMESTAMP_MS_MAX:
                timestamp = min(max(timestamp, 0), TIMESTAMP_MS_MAX)
            if offset > expected:
                self._gaps(expected, offset, timestamp)
            expected = offset + 1
            if is_log and (verdict := judge(record.headers)) is not Verdict.VALID:
                self._note(record, timestamp, _VERDICT_KINDS[verdict])
                continue
            add = as_it_is.get(value[:5]) if value else None
            if add is None or value is None:
                self._take_other(record, timestamp)
                continue
            record_id = body_id(value)
            if not record_id or is_new(offset, record_id):
                add((offset, timestamp, value[5:]))
            else:
                self._note(record, timestamp, "repeat")
        self._gaps(expected, self._span.end, timestamp)
        self.rows.tables = {table: rows for table, rows in self.rows.tables.items() if rows}

    def _take_other(self, record: Raw, timestamp: int) -> None:
        """A record that is no body of our own schema, as far as its first bytes say."""
        if not self._source.records:
            self.rows.add(DEAD_LETTERS, (record.offset, timestamp, _dead_letter(record)))
        elif record.value is None:
            self._note(record, timestamp, "tombstone")
        else:
            self._take_decoded(record, timestamp, record.value)

    def _take_decoded(self, record: Raw, timestamp: int, value: bytes) -> None:
        """A body that must be read here: of another version of a schema, of a foreign one, or not what it says."""
        try:
            name, plain = self._codec.decode_raw(value)
            if name not in TABLES or name not in self._source.records:
                self._note(record, timestamp, "other", "record.misplaced", f"A {name} does not belong into this topic.")
                return
            body = self._codec.encode_raw(name, plain)[5:]
        except InvalidInput as error:
            kind = "unknown-schema" if error.code == "schema.unknown" else "undecodable"
            self._note(record, timestamp, kind, error.code, error.message)
            return
        record_id = plain["id"].encode()
        if record_id and not self._seen.is_new(record.offset, record_id):
            self._note(record, timestamp, "repeat")
            return
        self.rows.add(TABLES[name], (record.offset, timestamp, body))

    def _gaps(self, first: int, end: int, timestamp: int) -> None:
        """Offsets without a record: deleted by retention or compaction before they were read, or a transaction's markers."""
        for offset in range(first, end):
            self.rows.add(LOG_RECORDS, (offset, timestamp, _gap_body()))

    def _note(self, record: Raw, timestamp: int, kind: str, code: str = "", message: str = "") -> None:
        record_type, epoch = type_and_epoch(record.headers)
        row = {
            "kind": kind, "epoch": epoch, "id": _header_texts(record).get("ce_id", ""), "type": record_type, "key": record.key,
            "value": record.value, "headers": _headers(record), "error_code": code, "error": message,
        }  # fmt: skip
        self.rows.add(LOG_RECORDS, (record.offset, timestamp, encode(LOG_RECORDS, row)))


@cache
def _gap_body() -> bytes:
    row: dict[str, Any] = {
        "kind": "gap",
        "epoch": None,
        "id": "",
        "type": "",
        "key": None,
        "value": None,
        "headers": [],
        "error_code": "",
        "error": "",
    }
    return encode(LOG_RECORDS, row)


@cache
def _parsed(table: str) -> Any:
    return fastavro.parse_schema(dict(all_tables()[table].schema))


def encode(table: str, row: Mapping[str, Any]) -> bytes:
    """The Avro body of a row of a table whose rows are made here."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _parsed(table), row)
    return out.getvalue()


def _headers(record: Raw) -> list[dict[str, Any]]:
    return [{"name": name, "value": value or b""} for name, value in record.headers]


def _header_texts(record: Raw) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in record.headers}


def _number(text: str | None, bits: int) -> int | None:
    """A number as headers carry it, None if it is none or does not fit."""
    if text is None or not text.lstrip("-").isdecimal() or len(text) > 20:
        return None
    number = int(text)
    return number if -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) else None


def _dead_letter(record: Raw) -> bytes:
    texts = _header_texts(record)
    row = {
        "id": texts.get("ce_id", ""), "type": texts.get("ce_type", ""), "source": texts.get("ce_source", ""),
        "subject": texts.get("ce_subject", ""), "key": record.key, "value": record.value, "headers": _headers(record),
        "error_topic": texts.get(_ERRORS + "topic", ""), "error_partition": _number(texts.get(_ERRORS + "partition"), 32),
        "error_offset": _number(texts.get(_ERRORS + "offset"), 64), "exception": texts.get(_ERRORS + "exception", ""),
        "message": texts.get(_ERRORS + "message", ""), "stacktrace": texts.get(_ERRORS + "stacktrace", ""),
        "stage": texts.get(_OURS + "stage", ""), "route": texts.get(_OURS + "route", ""),
        "attempts": _number(texts.get(_OURS + "attempts"), 32), "first_time": texts.get(_OURS + "first_time", ""),
    }  # fmt: skip
    return encode(DEAD_LETTERS, row)


def month_of(timestamp_ms: int) -> int:
    """The month partition of a row: year and month as one number, e.g. 202601."""
    time = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    return time.year * 100 + time.month


def by_month(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Rows by their month partition."""
    timestamps = [row[1] for row in rows]
    first, last = month_of(min(timestamps)), month_of(max(timestamps))
    if first == last:
        return {first: list(rows)}
    months: dict[int, list[Row]] = {}
    for row in rows:
        months.setdefault(month_of(row[1]), []).append(row)
    return months
