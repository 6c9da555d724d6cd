"""What is in force under a name: the newest of an id, of a version; nothing after a withdrawal; a refusal where it has faults."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.store import AnyModule, DefinitionStore
from streams.errors import InvalidDocument


def document(version: str, **more: Any) -> dict[str, Any]:
    return {"id": "w", "name": "w", "version": version, "steps": [{"id": "s", "type": "transform", "value": "1"}], **more}


@pytest.fixture
def store() -> DefinitionStore:
    """Two versions of one workflow, the newer one published last."""
    store = DefinitionStore(AnyModule())
    for version in ("1", "2"):
        store.publish(f"w@version:{version}", document(version))
        store.publish("w", document(version))
    return store


def version_of(store: DefinitionStore, *name: str) -> str | None:
    found = store.latest(*name)
    return None if found is None else found.version


def test_the_newest_of_an_id_and_of_a_version_are_found(store: DefinitionStore) -> None:
    assert [version_of(store, "w"), version_of(store, "w", "1"), version_of(store, "w", "2")] == ["2", "1", "2"]
    assert [version_of(store, "w", "3"), version_of(store, "v")] == [None, None]
    assert [definition.version for definition in store.all_latest()] == ["2"]


def test_what_is_withdrawn_is_found_by_its_hash_only(store: DefinitionStore) -> None:
    digest = store.latest("w").hash  # type: ignore[union-attr]
    store.withdraw("w")
    store.withdraw("w@version:2")
    assert [version_of(store, "w"), version_of(store, "w", "2"), version_of(store, "w", "1")] == [None, None, "1"]
    assert store.get(digest) is not None
    assert store.all_latest() == []


def test_a_faulty_one_is_refused_and_does_not_leave_the_older_one_in_force(store: DefinitionStore) -> None:
    store.publish("w", document("3", steps=[]))
    with pytest.raises(InvalidDocument) as caught:
        store.latest("w")
    assert [(fault.code, fault.pointer) for fault in caught.value.violations] == [("schema.minItems", "/steps")]
    store.publish("w", document("4"))
    assert version_of(store, "w") == "4"
