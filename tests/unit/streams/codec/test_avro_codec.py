"""The codec against fastavro, against garbage, and against what JSON and Avro cannot hold."""

from __future__ import annotations

import dataclasses
import io
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.codec.avro import Codec, SchemaIds, compiled, headers_of, local_schemas, record_from_plain, to_json
from streams.codec.primitives import read_long, read_time, varint
from streams.errors import BackboneError, InvalidInput, TooLarge
from streams.records import RECORDS, InputPosition, Record, SystemEvent
from streams.testing.controls import FULL, LEAST

IDS = SchemaIds.local()
CODEC = Codec(IDS)
CONTROLS = [
    pytest.param(record, id=f"{kind}-{name}") for kind, records in (("full", FULL), ("least", LEAST)) for name, record in records.items()
]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | text
json_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12)
instants = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)  # years 1 to 9999


def values_of(schema: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Plain values of a schema, of every size that Avro allows."""
    if isinstance(schema, list):
        return st.none() | values_of(schema[1])
    if isinstance(schema, str):
        if name == "data":
            return json_values.map(lambda value: orjson.dumps(value).decode())
        return {
            "string": text,
            "bytes": st.binary(max_size=90),
            "int": st.integers(-(2**31), 2**31 - 1),
            "long": st.integers(-(2**63), 2**63 - 1),
            "double": st.floats(allow_nan=False, allow_infinity=False),
            "boolean": st.booleans(),
        }[schema]
    match schema["type"]:
        case "record":
            return st.fixed_dictionaries({field["name"]: values_of(field["type"], field["name"]) for field in schema["fields"]})
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "array":
            return st.lists(values_of(schema["items"]), max_size=3)
        case "map":
            return st.dictionaries(text, values_of(schema["values"]), max_size=3)
        case _:
            return instants if "logicalType" in schema else values_of(schema["type"], name)


named_plains = st.sampled_from(sorted(RECORDS)).flatmap(lambda name: st.tuples(st.just(name), values_of(local_schemas()[name])))


def code_of(act: Callable[[], object]) -> str:
    """The code of the error that it ends with, empty if it ends well; any error that is not ours fails the test."""
    try:
        act()
    except BackboneError as error:
        return error.code
    return ""


def by_fastavro(name: str, plain: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(local_schemas()[name]), plain)
    return out.getvalue()


@given(named_plains)
def test_plain_records_are_the_bytes_that_fastavro_writes_and_come_back(case: tuple[str, dict[str, Any]]) -> None:
    name, plain = case
    encoded = CODEC.encode_raw(name, plain)
    assert encoded[:5] == struct.pack(">bI", 0, CODEC.schema_id(name))
    assert encoded[5:] == by_fastavro(name, plain)
    assert CODEC.decode_raw(encoded) == (name, plain)


@given(named_plains)
def test_objects_and_plain_records_are_two_forms_of_the_same_bytes(case: tuple[str, dict[str, Any]]) -> None:
    name, plain = case
    record = record_from_plain(name, plain)
    assert CODEC.decode(CODEC.encode_raw(name, plain)) == record
    again = CODEC.decode(CODEC.encode(record))
    assert again == record
    assert orjson.loads(orjson.dumps(to_json(record))).keys() == plain.keys()


@pytest.mark.parametrize("record", CONTROLS)
def test_every_record_comes_back_as_it_went(record: Record) -> None:
    assert CODEC.decode(CODEC.encode(record)) == record


@given(named_plains, st.data())
def test_damaged_bytes_are_refused_with_a_code_or_are_another_record(case: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    name, plain = case
    encoded = bytearray(CODEC.encode_raw(name, plain))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(5, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del encoded[data.draw(st.integers(0, len(encoded))) :]
    for decode in (CODEC.decode, CODEC.decode_raw):
        assert code_of(lambda decode=decode: decode(bytes(encoded))) in {"", "avro.framing", "avro.invalid", "record.invalid"}


@given(st.binary(max_size=300), st.sampled_from([*IDS.schemas, 0, 999, 2**32 - 1]))
def test_garbage_is_never_anything_but_an_error_of_ours(body: bytes, schema_id: int) -> None:
    for value in (body, struct.pack(">bI", 0, schema_id) + body):
        for decode in (CODEC.decode, CODEC.decode_raw):
            assert code_of(lambda decode=decode, value=value: decode(value)) in {
                "",
                "avro.framing",
                "schema.unknown",
                "avro.invalid",
                "record.invalid",
            }


@pytest.mark.parametrize("record", CONTROLS)
def test_a_body_that_is_cut_off_anywhere_or_goes_on_is_refused(record: Record) -> None:
    encoded = CODEC.encode(record)
    for end in range(5, len(encoded)):
        with pytest.raises(InvalidInput) as caught:
            CODEC.decode_raw(encoded[:end])
        assert caught.value.code == "avro.invalid"
    with pytest.raises(InvalidInput, match=r"avro\.invalid"):
        CODEC.decode(encoded + b"\x00")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "avro.framing"),
        (b"", "avro.framing"),
        (b"{}", "avro.framing"),
        (b"\x01\x00\x00\x00\x01", "avro.framing"),
        (b"\x00\xff\xff\xff\xff", "schema.unknown"),
    ],
)
def test_what_is_not_the_wire_format_has_a_code(value: bytes | None, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CODEC.decode(value)
    assert caught.value.code == code


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "data",
    [
        math.nan,
        {"a": [1, math.inf]},
        {"a": -math.inf},
        2**64,
        -(2**63) - 1,
        {"a": "\ud800"},
        {"\udfff": 1},
        {1: 2},
        {"a": object()},
        {"a": b"x"},
        {"a": {1, 2}},
        {"a": datetime(2026, 1, 1, tzinfo=UTC)},
        deep(2000),
    ],
)
def test_a_payload_that_json_has_not_is_refused_with_the_field(data: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        CODEC.encode(SystemEvent(type="a.happened", data=data))
    assert (caught.value.code, caught.value.pointer) == ("record.invalid", "/data")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, True, "1", None])
def test_numbers_are_finite(number: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        CODEC.encode(dataclasses.replace(FULL["Delivery"], latency_ms=number))
    assert (caught.value.code, caught.value.pointer) == ("record.invalid", "/latency_ms")


def test_null_alone_is_a_payload() -> None:
    event = SystemEvent(type="a.happened", data={"null": None, "number": 1.5})
    assert CODEC.decode(CODEC.encode(event)) == event


def test_payloads_end_at_their_limits() -> None:
    CODEC.encode(SystemEvent(type="a.happened", data=deep(limits.PAYLOAD_DEPTH_MAX)))
    CODEC.encode(SystemEvent(type="a.happened", data=[[]] * 1000))
    CODEC.encode(SystemEvent(type="a.happened", data="x" * (limits.PAYLOAD_BYTES_MAX - 2)))
    with pytest.raises(InvalidInput) as caught:
        CODEC.encode(SystemEvent(type="a.happened", data=deep(limits.PAYLOAD_DEPTH_MAX + 1)))
    assert caught.value.code == "payload.too-deep"
    with pytest.raises(TooLarge) as too_large:
        CODEC.encode(SystemEvent(type="a.happened", data="x" * (limits.PAYLOAD_BYTES_MAX - 1)))
    assert too_large.value.code == "payload.too-large"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "\ud800"),
        ("type", None),
        ("subject", 7),
        ("time", "now"),
        ("time", None),
        ("severity", "fatal"),
        ("severity", ["info"]),
        ("sequence", 2**63),
        ("sequence", 1.0),
        ("epoch", 2**31),
        ("epoch", True),
        ("input", {"topic": "t"}),
        ("causation_id", b"x"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    event = dataclasses.replace(SystemEvent(type="a.happened"), **{field: value})
    with pytest.raises(InvalidInput) as caught:
        CODEC.encode(event)
    assert caught.value.code == "record.invalid"
    assert caught.value.pointer == f"/{field}"


hostile = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(), st.integers(), max_size=2)
)


@given(st.sampled_from(sorted(FULL)), st.data())
def test_no_value_makes_encode_fail_otherwise_than_with_an_error_of_ours(name: str, data: st.DataObject) -> None:
    record = FULL[name]
    field = data.draw(st.sampled_from([field.name for field in dataclasses.fields(record)]))
    changed = dataclasses.replace(record, **{field: data.draw(hostile)})
    plain = {**CODEC.decode_raw(CODEC.encode(record))[1], field: data.draw(hostile)}
    for write in (lambda: CODEC.encode(changed), lambda: headers_of(changed), lambda: CODEC.encode_raw(name, plain)):
        assert code_of(write) in {"", "record.invalid"}


def test_missing_fields_take_their_defaults_and_unknown_ones_are_refused() -> None:
    least = {"id": "1", "type": "a.happened", "source": "", "subject": "", "time": 0}
    assert CODEC.decode_raw(CODEC.encode_raw("SystemEvent", least))[1]["severity"] == "info"
    for plain, pointer in (({**least, "colour": "red"}, "/colour"), ({"id": "1"}, "/type")):
        with pytest.raises(InvalidInput) as caught:
            CODEC.encode_raw("SystemEvent", plain)
        assert (caught.value.code, caught.value.pointer) == ("record.invalid", pointer)


def test_times_beyond_the_calendar_are_refused_when_a_record_is_wanted_and_kept_when_raw() -> None:
    plain = {"id": "1", "type": "a.happened", "source": "", "subject": "", "time": 2**62}
    encoded = CODEC.encode_raw("SystemEvent", plain)
    assert CODEC.decode_raw(encoded)[1]["time"] == 2**62
    with pytest.raises(InvalidInput) as caught:
        CODEC.decode(encoded)
    assert caught.value.code == "record.invalid"


def test_a_payload_that_is_no_json_is_refused_when_a_record_is_wanted() -> None:
    for broken in ("{", "NaN", "[" * 3000):
        encoded = CODEC.encode_raw("SystemEvent", {"id": "1", "type": "a.happened", "source": "", "subject": "", "time": 0, "data": broken})
        with pytest.raises(InvalidInput) as caught:
            CODEC.decode(encoded)
        assert caught.value.code == "record.invalid"


def newer(name: str) -> dict[str, Any]:
    schema = dict(local_schemas()[name])
    return {**schema, "fields": [*schema["fields"][:-1], {"name": "mood", "type": "string", "default": "calm"}, schema["fields"][-1]]}


def test_a_record_of_a_newer_writer_is_resolved_to_ours() -> None:
    schema = newer("SystemEvent")
    codec = Codec(SchemaIds(schemas={**IDS.schemas, 77: schema}, record_ids=IDS.record_ids))
    event = FULL["SystemEvent"]
    plain = {**codec.decode_raw(codec.encode(event))[1], "mood": "merry"}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), plain)
    assert codec.decode(struct.pack(">bI", 0, 77) + out.getvalue()) == event


def test_foreign_schemas_are_read_as_they_are_and_broken_ones_stop_nothing() -> None:
    shoe = {"type": "record", "name": "SystemEvent", "namespace": "shop", "fields": [{"name": "size", "type": "int"}]}
    codec = Codec(SchemaIds(schemas={1: shoe, 2: "string", 3: {"type": "nonsense"}, 4: {"type": "record"}}, record_ids={}))
    assert codec.decode_raw(b"\x00\x00\x00\x00\x01\x54") == ("shop.SystemEvent", {"size": 42})
    for value, code in ((b"\x00\x00\x00\x00\x01\x54", "schema.foreign"), (b"\x00\x00\x00\x00\x02\x00", "schema.foreign")):
        with pytest.raises(InvalidInput) as caught:
            codec.decode(value)
        assert caught.value.code == code
    for number in (3, 4):
        with pytest.raises(InvalidInput, match=r"avro\.invalid"):
            codec.decode_raw(struct.pack(">bI", 0, number) + b"x")


def test_without_registration_there_is_advice() -> None:
    codec = Codec(SchemaIds(schemas={}, record_ids={}))
    for act in (
        lambda: codec.encode(SystemEvent(type="a.happened")),
        lambda: codec.encode_raw("SystemEvent", {}),
        lambda: codec.schema_id("Fence"),
    ):
        with pytest.raises(InvalidInput) as caught:
            act()
        assert caught.value.code == "schema.unregistered"
        assert caught.value.advice


def test_learning_adds_what_is_new() -> None:
    codec = Codec(SchemaIds(schemas={}, record_ids={}))
    codec.learn(IDS)
    assert codec.knows(1)
    assert codec.encode(FULL["Fence"]) == CODEC.encode(FULL["Fence"])


def test_headers_are_cloudevents_in_binary_mode() -> None:
    headers = dict(headers_of(FULL["WorkflowTransition"]))
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": FULL["WorkflowTransition"].id.encode(),
        "ce_type": b"step.completed",
        "ce_source": b"mplp/orchestrator",
        "ce_subject": FULL["WorkflowTransition"].subject.encode(),
        "ce_time": b"2026-01-02T03:04:05.678901Z",
        "content-type": b"application/avro",
        "mplp_epoch": b"2",
    }
    assert "ce_subject" not in dict(headers_of(LEAST["SystemEvent"]))


def test_blocks_of_arrays_in_avros_other_form_are_read() -> None:
    # A writer may split an array into blocks, and give a block's size after a negative count.
    plain = CODEC.decode_raw(CODEC.encode(LEAST["Position"]))[1]
    body = by_fastavro("Position", plain)
    assert body[-1:] == b"\x00"
    item = b"\x02t\x00\x02"
    blocks = b"\x02" + item + b"\x01" + bytes((len(item) * 2,)) + item + b"\x00"
    value, end = compiled("Position").read_plain(body[:-1] + blocks, 0)
    assert end == len(body) - 1 + len(blocks)
    assert value["positions"] == [{"topic": "t", "partition": 0, "offset": 1}] * 2


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(2**47, 2**56), st.binary(max_size=12), st.integers(0, 9))
def test_the_quick_way_to_read_a_time_reads_every_number_as_the_slow_one(number: int, rest: bytes, cut: int) -> None:
    written = varint(number)
    assert read_time(b"x" + written + rest, 1) == read_long(b"x" + written + rest, 1) == (number, 1 + len(written))
    if cut < len(written):
        with pytest.raises(IndexError):
            read_time(written[:cut], 0)


def test_a_record_is_written_with_fields_of_a_log_as_its_copy_with_them_would_be() -> None:
    record = FULL["CompositeEvent"]
    fields = {"aggregate_id": "r/[1]", "sequence": 7, "epoch": 3, "input": InputPosition(topic="t", partition=1, offset=5)}
    copy = dataclasses.replace(record, **fields)
    assert CODEC.encode(record, fields) == CODEC.encode(copy) != CODEC.encode(record)
    assert headers_of(dataclasses.replace(record, epoch=None), 3) == headers_of(copy)
    with pytest.raises(InvalidInput) as refused:
        CODEC.encode(record, {"sequence": "seven"})
    assert refused.value.pointer == "/sequence"
