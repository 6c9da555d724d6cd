"""`streams.bus.validate`: what may enter, and the code and place of every fault."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.bus.outgoing import event_outgoing, outgoing
from streams.bus.validate import FIELDS, SEVERITIES, check_record, event_id, fields_of, parse_event, parse_fields
from streams.codec.avro import Codec, SchemaIds
from streams.errors import InvalidInput, TooLarge
from streams.records import SystemEvent

CODEC = Codec(SchemaIds.local())


UUID = "01890a5d-ac96-774b-bcce-b302099a8057"


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_a_type_is_enough() -> None:
    event = parse_event(b'{"type": "order.paid"}')

    assert event.type == "order.paid"
    assert (event.source, event.subject, event.tenant, event.severity, event.data) == ("", "", "default", "info", {})
    assert event.id
    assert event.time.tzinfo is not None


def test_every_field_is_taken() -> None:
    given = {
        "id": "e-1", "type": "order.failed", "source": "shop", "subject": "order-7", "time": "2026-01-31T12:00:00.5+02:00", "tenant": "t",
        "correlation_id": "story", "causation_id": "e-0", "data": {"ü": [1, None, 2.5, "x\u0000"]}, "severity": "error", "epoch": None,
    }  # fmt: skip

    event = parse_event(orjson.dumps(given))

    assert event == SystemEvent(
        id="e-1", type="order.failed", source="shop", subject="order-7", time=datetime(2026, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC),
        tenant="t", correlation_id="story", causation_id="e-0", data={"ü": [1, None, 2.5, "x\u0000"]}, severity="error",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "pointer"),
    [
        (b"", "json.invalid", ""),
        (b"{bad", "json.invalid", ""),
        (b'{"type": "x", "data": NaN}', "json.invalid", ""),
        (b'{"type": "\xff"}', "json.invalid", ""),
        (b'{"type": "x", "data": "\\ud800"}', "json.invalid", ""),
        (b"[" * 5000 + b"]" * 5000, "json.invalid", ""),
        (b'[{"type": "x"}]', "event.not-object", ""),
        (b'"x"', "event.not-object", ""),
        (b"null", "event.not-object", ""),
        (b"{}", "field.missing", ""),
        (b'{"type": "x", "colour/~": 1}', "field.unknown", "/colour~1~0"),
        (b'{"type": ""}', "field.invalid", "/type"),
        (b'{"type": 7}', "field.invalid", "/type"),
        (b'{"type": null}', "field.invalid", "/type"),
        (b'{"type": "a\\u0000b"}', "field.invalid", "/type"),
        (b'{"type": "a\\nb"}', "field.invalid", "/type"),
        (b'{"type": "' + b"x" * 1025 + b'"}', "field.invalid", "/type"),
        (b'{"type": "x", "id": ""}', "field.invalid", "/id"),
        (b'{"type": "x", "id": "' + b"x" * 201 + b'"}', "field.invalid", "/id"),
        (b'{"type": "x", "source": []}', "field.invalid", "/source"),
        (b'{"type": "x", "causation_id": 1}', "field.invalid", "/causation_id"),
        (b'{"type": "x", "causation_id": ""}', "field.invalid", "/causation_id"),
        (b'{"type": "x", "severity": "loud"}', "field.invalid", "/severity"),
        (b'{"type": "x", "severity": null}', "field.invalid", "/severity"),
        (b'{"type": "x", "sequence": 1}', "field.invalid", "/sequence"),
        (b'{"type": "x", "time": "yesterday"}', "time.invalid", "/time"),
        (b'{"type": "x", "time": "2026-01-31T12:00:00"}', "time.invalid", "/time"),
        (b'{"type": "x", "time": "2026-02-31T12:00:00Z"}', "time.invalid", "/time"),
        (b'{"type": "x", "time": "0001-01-01T00:00:00+14:00"}', "time.invalid", "/time"),
        (b'{"type": "x", "time": "1899-12-31T23:59:59Z"}', "time.invalid", "/time"),
        (b'{"type": "x", "time": 1}', "time.invalid", "/time"),
        (b'{"type": "x", "time": null}', "time.invalid", "/time"),
        (b'{"type": "x", "data": 1e999}', "json.invalid", ""),
        (b'{"type": "x", "data": {"a": [1, 99999999999999999999]}}', "number.invalid", "/data/a/1"),
        (b'{"type": "x", "data": ' + b"9" * 5000 + b"}", "json.invalid", ""),
        (b'{"type": "x", "data": ' + b"9" * 300 + b"}", "number.invalid", "/data"),
    ],
)
def test_faults_of_a_line(line: bytes, code: str, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_event(line)
    assert (refused.value.code, refused.value.pointer) == (code, pointer)


@pytest.mark.parametrize(
    ("data", "code", "pointer"),
    [
        ({"x": float("nan")}, "number.invalid", "/data/x"),
        ({"a": {"b": [1, float("inf")]}}, "number.invalid", "/data/a/b/1"),
        ({"a/b": {"~": -(2**63) - 1}}, "number.invalid", "/data/a~1b/~0"),
        (2**64, "number.invalid", "/data"),
        ({"a": {1: 2}}, "field.invalid", "/data/a"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "field.invalid", "/data/at"),
        ([{"raw": b"x"}], "field.invalid", "/data/0/raw"),
        ({"text": "\ud800"}, "field.invalid", "/data/text"),
        (SystemEvent(type="x"), "field.invalid", "/data"),
        (nested(limits.PAYLOAD_DEPTH_MAX + 1), "payload.too-deep", "/data"),
        (nested(400), "payload.too-deep", "/data"),
    ],
)
def test_faults_of_a_payload(data: Any, code: str, pointer: str) -> None:
    with pytest.raises(InvalidInput) as from_mapping:
        parse_event({"type": "x", "data": data})
    with pytest.raises(InvalidInput) as from_record:
        check_record(SystemEvent(type="x", data=data))
    assert (from_mapping.value.code, from_mapping.value.pointer) == (code, pointer)
    assert (from_record.value.code, from_record.value.pointer) == (code, pointer)


def test_what_is_just_allowed() -> None:
    largest = "x" * (limits.PAYLOAD_BYTES_MAX - 2)
    for data in (largest, nested(limits.PAYLOAD_DEPTH_MAX), 2**64 - 1, -(2**63), {"null": None}, "\U0001f600", [()]):
        assert parse_event({"type": "x", "data": data}).data == data


def test_a_payload_beyond_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge) as refused:
        parse_event(orjson.dumps({"type": "x", "data": "x" * (limits.PAYLOAD_BYTES_MAX - 1)}))
    assert (refused.value.code, refused.value.pointer) == ("payload.too-large", "/data")


def test_a_body_of_10_mb_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(TooLarge):
        parse_event(b" " * 10_000_000)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
_anything = _json | st.floats() | st.integers() | st.binary() | st.datetimes()
_documents = st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=5), _anything, max_size=8)


@given(st.binary() | st.text() | _json.map(orjson.dumps) | _documents | _documents.map(lambda document: {"type": "x", **document}) | _json)
def test_whatever_comes_is_an_event_or_refused(given: Any) -> None:
    try:
        event = parse_event(given)
    except (InvalidInput, TooLarge):
        return
    check_record(event)
    CODEC.encode(event)


_texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=300).filter(bool)


@given(
    event=st.builds(
        SystemEvent,
        id=_texts.map(lambda text: text[:200]),
        type=_texts,
        source=_texts | st.just(""),
        subject=_texts | st.just(""),
        time=st.datetimes(
            datetime(1900, 1, 2),
            datetime(2299, 12, 30),
            timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
        ),
        tenant=_texts.map(lambda text: text[:200]),
        correlation_id=_texts | st.just(""),
        causation_id=st.none() | _texts.map(lambda text: text[:200]),
        data=_json,
        severity=st.sampled_from(sorted(SEVERITIES)),
    )
)
def test_the_quick_encoding_is_the_codecs(event: SystemEvent) -> None:
    with_uuid = replace(event, id=event_id(event.id, event.source))
    assert event_outgoing(CODEC, fields_of(with_uuid), 7) == outgoing(CODEC, with_uuid, 7)


def test_defaults_are_filled_on_the_way_out() -> None:
    sent = event_outgoing(CODEC, parse_fields({"type": "order.paid", "id": UUID}), 4)
    event = CODEC.decode(sent.value or b"")

    assert (event.source, event.correlation_id, sent.key) == ("mplp", UUID, UUID.encode())
    assert event_outgoing(CODEC, parse_fields({"type": "x", "subject": "order-7"}), 4).key == b"order-7"


@pytest.mark.parametrize("given", ["order-7-paid", "7", "é" * 100, UUID[:-1], UUID.replace("-", ""), "{" + UUID + "}"])
def test_an_id_that_is_no_uuid_becomes_one_that_derives_from_it_and_its_source(given: str) -> None:
    sent = [event_outgoing(CODEC, parse_fields({"type": "x", "id": given, "source": source}), 4) for source in ("shop", "shop", "bank")]
    ids = [CODEC.decode(each.value or b"").id for each in sent]

    assert ids[0] == ids[1] != ids[2]
    assert [str(uuid.UUID(each)) for each in ids] == ids
    assert dict(sent[0].headers)["ce_id"] == ids[0].encode()
    assert dict(sent[0].headers)["mplp_given_id"] == given.encode()
    # As a record, too, and as the gateway does it: parsed first, published later.
    parsed = parse_event({"type": "x", "id": given, "source": "shop"})
    assert (fields_of(parsed).id, fields_of(parsed).given_id) == (ids[0], given)


def test_source_and_id_are_told_apart() -> None:
    assert event_id("b/c", "a") != event_id("c", "a/b")


@pytest.mark.parametrize("given", [UUID, UUID.upper(), "00000000-0000-0000-0000-000000000000"])
def test_a_uuid_is_kept_in_lower_case(given: str) -> None:
    fields = parse_fields({"type": "x", "id": given})
    assert (fields.id, fields.given_id) == (given.lower(), None)
    assert "mplp_given_id" not in dict(event_outgoing(CODEC, fields, 4).headers)
