"""Dead letters: bytes, headers, what is put back, which are meant; the breaker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.bus.handling import error_headers
from streams.codec.avro import Codec, SchemaIds
from streams.errors import BackboneError
from streams.log.ports import Stored
from streams.records import SystemEvent
from streams.routing.letters import HISTORY, Letter, letter_of, redrive_headers, redriven_of, resolved_by
from streams.routing.selection import LetterSelection
from streams.topics import TopicNames

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CODEC = Codec(SchemaIds.local())
HEADERS = st.lists(st.tuples(st.sampled_from(["a", "ce_id", "x-y"]), st.binary(max_size=8)), max_size=4)


def letter(
    value: bytes | None = b"v", key: bytes | None = b"k", headers: tuple[tuple[str, bytes], ...] = (), stage: str = "deliver"
) -> Letter:
    raw = Stored(topic="pre.system.events", partition=1, offset=7, timestamp_ms=5, key=key, value=value, headers=headers)
    errors = error_headers(raw, route="r", stage=stage, attempts=3, first_time=NOW, error=BackboneError("a.b", "it is so"))
    stored = Stored(topic="pre.system.events.dlq", partition=1, offset=2, timestamp_ms=9, key=key, value=value, headers=(*headers, *errors))
    return letter_of(stored, TopicNames("pre"))


@given(value=st.none() | st.binary(max_size=50), key=st.none() | st.binary(max_size=8), headers=HEADERS)
def test_what_is_put_back_has_the_bytes_of_what_came(value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    found = letter(value, key, tuple(headers))
    assert (found.value, found.key, found.headers) == (value, key, tuple(headers))
    back = redriven_of(redrive_headers(found, redrive="d", who="ann", at="now", edited=False))
    assert back is not None
    assert (back.headers, back.route, back.topic, back.partition, back.offset, back.attempts, back.for_route) == (
        tuple(headers), "r", "mplp.system.events", 1, 7, 3, True,
    )  # fmt: skip


def test_a_letter_says_what_went_wrong_and_keeps_its_history() -> None:
    found = letter()
    assert {**found.to_dict(), "first_time": None} == {
        "id": "mplp.system.events.dlq/1/2", "route": "r", "topic": "mplp.system.events", "partition": 1, "offset": 7, "key": "k",
        "code": "a.b", "message": "it is so", "attempts": 3, "first_time": None, "stage": "deliver",
    }  # fmt: skip
    headers = redrive_headers(found, redrive="d", who="ann", at="now", edited=True)
    assert resolved_by(headers) == (found.id, False)
    back = redriven_of(headers)
    assert back is not None
    again = letter(headers=((HISTORY, back.history),))
    assert [(past["who"], past["edited"], past["code"]) for past in again.history] == [("ann", True, "a.b")]
    assert again.subject != found.subject


def test_handlers_get_back_what_they_gave_up() -> None:
    back = redriven_of(redrive_headers(letter(stage="handler"), redrive="d", who="", at="", edited=False))
    assert back is not None
    assert not back.for_route


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ({}, True), ({"route": "r"}, True), ({"route": "s"}, False), ({"code": "a.b", "key": "k"}, True), ({"key": "z"}, False),
        ({"where": "data.total > 3.5"}, True), ({"where": "letter.attempts > 3"}, False), ({"where": "data.none == 1"}, False),
        ({"ids": frozenset({"mplp.system.events.dlq/1/2"})}, True), ({"ids": frozenset({"x.dlq/1/2"})}, False),
        ({"since": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}, False), ({"until": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}, True),
    ],
)  # fmt: skip
def test_letters_are_selected(wanted: dict[str, object], meant: bool) -> None:
    found = letter(CODEC.encode(SystemEvent(type="t", data={"total": 4})))
    assert LetterSelection(**wanted).wants(found, CODEC) is meant  # type: ignore[arg-type]


def test_what_cannot_be_read_is_selected_by_what_is_known_of_the_letter() -> None:
    assert LetterSelection(where='letter.code == "a.b"').wants(letter(b"\xff"), CODEC)
