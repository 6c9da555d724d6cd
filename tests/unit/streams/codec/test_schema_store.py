"""The fold of `_schemas`, and what registering writes, without a broker."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codec.avro import local_schemas, schema_text
from streams.codec.registry import ids_of, plan_registration
from streams.codec.store import SchemaStore, SchemaVersion, config_record
from streams.codec.subjects import registrations
from streams.errors import Refused
from streams.topics import TopicNames

NAMES = TopicNames("acme")
WANTED = [(subject, schema_text(local_schemas()[name])) for subject, name in registrations(NAMES)]
SHOE = '{"type":"record","name":"Shoe","fields":[{"name":"size","type":"int"}]}'


def replay(writes: list[tuple[bytes, bytes | None]]) -> SchemaStore:
    store = SchemaStore()
    for key, value in writes:
        store.apply(key, value)
    return store


def test_subjects_follow_confluents_strategies() -> None:
    subjects = dict(registrations(NAMES))
    assert subjects["acme.deliveries-value"] == "Delivery"
    assert subjects["mplp.ModuleMessage"] == "ModuleMessage"
    assert subjects["acme.module.requests-value"] == "ModuleMessage"
    assert "acme.module.messages-value" not in subjects


def test_registration_is_written_in_confluents_layout() -> None:
    writes, versions = plan_registration(SchemaStore(), [("shoes-value", SHOE)])
    assert [(orjson.loads(key), orjson.loads(value or b"null")) for key, value in writes] == [
        ({"keytype": "CONFIG", "subject": None, "magic": 0}, {"subject": None, "compatibilityLevel": "FULL_TRANSITIVE"}),
        (
            {"keytype": "SCHEMA", "subject": "shoes-value", "version": 1, "magic": 1},
            {"subject": "shoes-value", "version": 1, "id": 1, "schema": SHOE, "deleted": False},
        ),
    ]
    assert versions == [SchemaVersion(subject="shoes-value", version=1, id=1, schema=SHOE)]


def test_registering_again_writes_nothing_and_one_text_has_one_id() -> None:
    writes, first = plan_registration(SchemaStore(), WANTED)
    again, second = plan_registration(replay(list(writes)), WANTED)
    assert (list(again), second) == ([], first)
    ids = {version.schema: version.id for version in first}
    assert all(ids[version.schema] == version.id for version in first)
    assert len(set(ids.values())) == len(ids) == len(local_schemas())


def test_a_codec_finds_its_ids_whatever_the_order_of_attributes() -> None:
    def turned(value: object) -> object:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    wanted = [(subject, orjson.dumps(turned(orjson.loads(text))).decode()) for subject, text in WANTED]
    writes, _ = plan_registration(SchemaStore(), wanted)
    assert set(ids_of(replay(list(writes))).record_ids) == set(local_schemas())


def test_an_incompatible_schema_is_refused_under_the_subjects_level() -> None:
    writes, _ = plan_registration(SchemaStore(), [("shoes-value", SHOE)])
    with pytest.raises(Refused) as caught:
        plan_registration(replay(list(writes)), [("shoes-value", SHOE.replace("int", "string"))])
    assert caught.value.code == "schema.incompatible"
    lenient = replay([*writes, config_record("NONE", "shoes-value")])
    _, versions = plan_registration(lenient, [("shoes-value", SHOE.replace("int", "string"))])
    assert [(version.version, version.id) for version in versions] == [(2, 2)]


def test_deleted_versions_are_hidden_but_their_numbers_and_ids_are_not_given_again() -> None:
    writes, _ = plan_registration(SchemaStore(), [("shoes-value", SHOE)])
    deletion = (b'{"keytype":"DELETE_SUBJECT","subject":"shoes-value","magic":0}', b'{"subject":"shoes-value","version":1}')
    store = replay([*writes, deletion])
    assert store.subjects() == []
    found = store.by_id(1)
    assert found is not None
    assert found.schema == SHOE
    _, versions = plan_registration(store, [("shoes-value", SHOE.replace("int", "string"))])
    assert [(version.version, version.id) for version in versions] == [(2, 2)]


def test_an_id_never_changes_its_meaning() -> None:
    first = SchemaVersion(subject="a", version=1, id=1, schema=SHOE)
    second = SchemaVersion(subject="b", version=1, id=1, schema='"string"')
    store = replay([(first.key(), first.value()), (second.key(), second.value())])
    assert store.by_id(1) == first


@given(
    st.lists(
        st.tuples(
            st.none()
            | st.binary()
            | st.sampled_from(
                [
                    b"{}",
                    b'{"keytype":"SCHEMA","subject":"s","version":1}',
                    b'{"keytype":"SCHEMA","version":"x"}',
                    b'{"keytype":"NOOP"}',
                    b'{"keytype":"DELETE_SUBJECT"}',
                    b'{"keytype":"CONFIG"}',
                ]
            ),
            st.none() | st.binary() | st.sampled_from([b"{}", b"[]", b'{"id":1,"schema":"{"}', b'{"subject":"s","version":[]}']),
        )
    )
)
def test_no_record_of_the_topic_stops_the_fold(records: list[tuple[bytes | None, bytes | None]]) -> None:
    store = replay(records)
    ids_of(store)
    plan_registration(store, [("shoes-value", SHOE)])
