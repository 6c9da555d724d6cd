"""Judges single offsets where sums differ: what differs, and what only seems to. Pure.

Four things make sums differ although nothing is wrong: the topic has lost a record that was sunk before (compaction, retention);
a record could not be decoded when it was sunk and can be today (its bytes are kept); an error is worded differently; a repeat of an id
was recognised from farther back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.history.tables import LOG_RECORDS
from services.history.verify_report import Kind
from services.history.verify_sums import Range

#: Kinds of `log_records` whose row has the record's bytes, since it could not be read.
_NOT_READ = frozenset({"unknown-schema", "undecodable", "other"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of an offset, as it is or as it should be."""

    table: str
    digest: int
    kind: str = ""  #: of `log_records`
    id: str = ""
    value_md5: str = ""  #: of the bytes: of `log_records` those that are kept, of what should be those of the record


@dataclass(slots=True)
class Judgement:
    """What is to be said of some offsets."""

    differences: list[tuple[Kind, int, str]] = field(default_factory=list)  #: kind, offset, detail
    not_decoded: int = 0
    gone: int = 0
    expired: int = 0
    repeats: dict[int, str] = field(default_factory=dict)  #: offset → id that must have a row at an earlier offset


def judge(of: Range, found: Mapping[int, list[Row]], expected: Mapping[int, Row] | None, retained: Range | None = None) -> Judgement:
    """Judges the offsets of a range. `expected`: None where the topic cannot be asked any more; else one row for each offset.

    `retained`: offsets in it that nothing is expected of are beyond retention, whether their row is there still or not.
    """
    said = Judgement()
    for offset in range(of.first, of.end):
        rows = found.get(offset, [])
        should = None if expected is None else expected.get(offset)
        if should is None and len(rows) <= 1 and retained is not None and retained.first <= offset < retained.end:
            said.expired += 1
        elif not rows:
            said.differences.append((Kind.MISSING, offset, "" if should is None else f"belongs into {should.table}"))
        elif len(rows) > 1:
            said.differences.append((Kind.DUPLICATE, offset, f"{len(rows)} rows in {_names(row.table for row in rows)}"))
        elif should is not None:
            _compare(said, offset, rows[0], should)
    return said


def _names(tables: Iterable[str]) -> str:
    return ", ".join(sorted(set(tables)))


def _compare(said: Judgement, offset: int, row: Row, should: Row) -> None:
    if (row.table, row.digest) == (should.table, should.digest):
        return
    if should.kind == "gap":
        said.gone += row.kind != "gap"
    elif row.kind == "repeat" and should.kind != "repeat" and row.id == should.id and row.value_md5 == should.value_md5:
        said.repeats[offset] = row.id
    elif row.kind in _NOT_READ and row.value_md5 == should.value_md5 and (should.table != LOG_RECORDS or should.kind in _NOT_READ):
        said.not_decoded += should.table != LOG_RECORDS
    else:
        said.differences.append((Kind.CHANGED, offset, _how(row, should)))


def _how(row: Row, should: Row) -> str:
    is_in, belongs = (f"{each.table} ({each.kind})" if each.kind else each.table for each in (row, should))
    return f"is in {is_in}, belongs into {belongs}" if is_in != belongs else f"another content in {is_in}"
