"""A record seen by its bytes says what the same record says when all of it is decoded; what is damaged has a code."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codec.avro import Codec, SchemaIds, local_schemas
from streams.codec.partial import ENVELOPE
from streams.errors import InvalidInput
from streams.matching.encoded import EncodedView
from streams.matching.matchers import RecordView
from streams.records import SystemEvent
from tests.unit.streams.codec.test_avro_codec import IDS, code_of, named_plains

CODEC = Codec(IDS)


def view_of(value: bytes, codec: Codec = CODEC) -> EncodedView:
    places = codec.envelope(value)
    assert places is not None
    return EncodedView(value, places, codec.decode_raw)


@given(named_plains)
def test_it_says_what_the_decoded_record_says(case: tuple[str, dict[str, Any]]) -> None:
    name, plain = case
    value = CODEC.encode_raw(name, plain)
    whole = RecordView(plain)
    assert (view_of(value).type, view_of(value).time_us, view_of(value).data) == (whole.type, whole.time_us, whole.data)
    *texts, characters = whole.essentials()
    assert view_of(value).essentials()[:-1] == tuple(texts)
    assert view_of(value).essentials()[-1] >= characters
    for field in ("id", "source", "subject", "tenant", "correlation_id"):
        assert view_of(value).text(field) == whole.text(field)
    for field in (*plain, "nothing"):
        assert view_of(value).root(field) == whole.root(field), field
    assert view_of(value).values == whole.values
    assert view_of(value).plain == plain


@given(named_plains, st.data())
def test_damaged_bytes_have_a_code_or_are_another_record(case: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    name, plain = case
    encoded = bytearray(CODEC.encode_raw(name, plain))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(5, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del encoded[data.draw(st.integers(5, len(encoded))) :]

    def look() -> None:
        view = view_of(bytes(encoded))
        view.essentials()
        for field in ENVELOPE:
            _ = view.time_us if field == "time" else view.text(field)
        _ = view.plain

    assert code_of(look) in {"", "avro.invalid"}


@pytest.mark.parametrize("end", [b"", b"\x02\x00\x00\x00", b"\x02\x00\x00\x00\x00\x00", b"\x7f\x00\x00\x00\x00", b"\x02\x00\x00\x00\x08"])
def test_a_short_end_that_is_none_is_refused_even_if_nobody_asks_for_it(end: bytes) -> None:
    value = CODEC.encode(SystemEvent(type="x", source="s", data={"a": 1}))
    sound = value[: CODEC.envelope(value)[-1]]  # type: ignore[index]
    assert value[len(sound) :] == b"\x02\x00\x00\x00\x00"
    with pytest.raises(InvalidInput) as caught:
        CODEC.envelope(sound + end)
    assert caught.value.code == "avro.invalid"
    assert CODEC.envelope(value) is not None


def test_a_schema_that_does_not_begin_alike_has_no_envelope() -> None:
    fields = local_schemas()["SystemEvent"]["fields"]
    others = {
        21: {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}]},
        22: {"type": "record", "name": "Turned", "fields": [fields[1], fields[0], *fields[2:]]},
        23: {"type": "string"},
        24: {"type": "record", "name": "mine.Event", "fields": fields},
    }
    codec = Codec(SchemaIds(schemas=others, record_ids={}))
    assert [codec.envelope(struct.pack(">bI", 0, number) + b"\x02a") for number in (21, 22, 23)] == [None, None, None]
    value = CODEC.encode(SystemEvent(type="x", source="s"))
    view = view_of(struct.pack(">bI", 0, 24) + value[5:], codec)
    assert (view.type, view.plain["source"], view.data) == ("x", "s", {})
