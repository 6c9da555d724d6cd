"""Erasures: kept in records, found again, and what they leave of rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.history import erasures as module
from services.history.blocks import Span
from services.history.container import Row
from services.history.erase_rows import ASSIGNMENTS, ERASED_DATA, erased, erasure_of
from services.history.erasures import Erasure, Erasures, Places, erasures_in, key_of, records_of
from services.history.rows import Rows, encode
from services.history.tables import LOG_RECORDS, all_tables
from services.history.verify_sums import Range
from streams.codec.avro import Codec, SchemaIds
from streams.errors import Defect
from streams.records import MessageError, ModuleMessage, SystemEvent

CODEC = Codec(SchemaIds.local())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def erasure(*places: Places, id: str = "one") -> Erasure:
    return Erasure(id=id, subject="ann", who="eve", why="asked to", time=NOW, places=places)


def at(*offsets: int, topic: str = "t", partition: int = 0, until_ms: int = 1000) -> Places:
    return Places(topic=topic, partition=partition, offsets=offsets, until_ms=until_ms)


PLACES = st.builds(
    Places,
    topic=st.sampled_from(["a", "b"]),
    partition=st.integers(0, 2),
    offsets=st.sets(st.integers(0, 10**12), min_size=1, max_size=12).map(lambda offsets: tuple(sorted(offsets))),
    until_ms=st.integers(0, 2**41),
)


@given(places=st.lists(PLACES, min_size=1, max_size=5), size=st.integers(1, 7))
def test_what_is_kept_is_found_again(places: list[Places], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PLACES_PER_RECORD", size)
        records = records_of(erasure(*places))
    assert len({key_of(record) for record in records}) == len(records)
    assert all(sum(len(each["offsets"]) for each in record.data["places"]) <= size for record in records)
    (found,) = erasures_in(_through_kafka(record) for record in reversed(records))
    assert replace(found, places=()) == erasure()
    assert _offsets(found) == _offsets(erasure(*places))
    assert found.rows == sum(len(each.offsets) for each in places)


def _through_kafka(record: SystemEvent) -> SystemEvent:
    found = CODEC.decode(CODEC.encode(record))
    assert isinstance(found, SystemEvent)
    return found


def _offsets(one: Erasure) -> list[tuple[str, int, int, int]]:
    return sorted((each.topic, each.partition, offset, each.until_ms) for each in one.places for offset in each.offsets)


def test_one_of_which_a_record_is_missing_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES_PER_RECORD", 2)
    first, second = records_of(erasure(at(1, 2, 3)))
    whole = records_of(erasure(at(9), id="two"))
    assert [each.id for each in erasures_in([first, *whole])] == ["two"]
    assert [each.id for each in erasures_in([first, *whole, second, first])] == ["one", "two"]


def test_which_offsets_of_a_range_are_meant() -> None:
    known = Erasures()
    known.replace([erasure(at(1, 5, 9), at(5, partition=1)), erasure(at(5, 6, until_ms=2000), id="two")])
    assert known.among("t", 0, Range(first=2, end=9)) == {5: 2000, 6: 2000}
    assert known.among("t", 1, Range(first=0, end=9)) == {5: 1000}
    assert known.among("other", 0, Range(first=0, end=9)) == {}


def test_an_erasure_is_never_forgotten() -> None:
    known = Erasures()
    known.replace([erasure(at(1))])
    known.replace([erasure(at(1)), erasure(at(2), id="two")])
    with pytest.raises(Defect, match=r"history\.erasure-lost"):
        known.replace([erasure(at(2), id="two")])
    assert len(known) == 2


def test_a_block_without_what_was_erased() -> None:
    known = Erasures()
    known.replace([erasure(at(1, 2, until_ms=1000))])
    rows = [event_row(offset, timestamp) for offset, timestamp in ((0, 5), (1, 1000), (2, 1001), (3, 5))]
    blanked = known.blanked("t", Span(topic="x.t", partition=0, first=0, end=4), Rows(tables={"system_events": list(rows)}))
    after = blanked.tables["system_events"]
    assert [old == new for old, new in zip(rows, after, strict=True)] == [True, False, True, True], "2 is of a topic that was made anew"
    assert plain("system_events", after[1]) == {**plain("system_events", rows[1]), "data": {"mplp_erased": True}}


def event_row(offset: int, timestamp: int) -> Row:
    return offset, timestamp, CODEC.encode(SystemEvent(id=str(offset), type="t", subject="ann", time=NOW, data={"mail": "m"}))[5:]


def plain(table: str, row: Row) -> dict[str, Any]:
    record = CODEC.decode(CODEC.encode(SystemEvent(type="t"))[:5] + row[2])
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def test_errors_keep_their_code() -> None:
    message = ModuleMessage(
        type="t", kind="response", source_module="m", operation="o", error=MessageError(code="c", message="about ann", retryable=True)
    )
    _, _, body = erased("module_messages", (0, 0, CODEC.encode(message)[5:]))
    found = CODEC.decode(CODEC.encode(message)[:5] + body)
    assert isinstance(found, ModuleMessage)
    assert found.error == MessageError(code="c", message="", retryable=True)


@pytest.mark.parametrize("table", list(all_tables()))
def test_a_body_that_is_none_stays(table: str) -> None:
    for body in (b"", b"\x00" * 3, b"\xff" * 40):
        assert erased(table, (7, 8, body)) == (7, 8, body)


def test_a_gap_has_nothing_to_lose() -> None:
    row = {"kind": "gap", "epoch": None, "id": "", "type": "", "key": None, "value": None, "headers": [], "error_code": "", "error": ""}
    assert erased(LOG_RECORDS, (0, 0, encode(LOG_RECORDS, row))) == (0, 0, encode(LOG_RECORDS, row))


def test_every_table_says_what_goes() -> None:
    assert set(ASSIGNMENTS) == set(all_tables())
    for table, assignments in ASSIGNMENTS.items():
        assert set(assignments) <= set(all_tables()[table].targets)


@pytest.mark.parametrize(
    ("data", "expected"), [({"mplp_erased": True}, True), ({"mplp_erased": True, "n": 1}, False), ({}, False), (None, False)]
)
def test_what_was_erased_is_recognised(data: Any, expected: bool) -> None:
    assert (erasure_of(data) is not None) is expected
    assert ERASED_DATA == '{"mplp_erased":true}'
