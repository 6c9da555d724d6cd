from __future__ import annotations

from typing import Any

import pytest

from services.modules.context.state import TRANSITIONS


def test_a_created_context_is_active_and_can_be_read(modules: Any) -> None:
    created = modules.call("context", "create-context", name="session", type="multi-agent", metadata={"a": 1})
    assert created.types == ["context.created"]
    assert created.result["status"] == "active"
    assert created.result["contextId"].startswith("exec-1/context-")
    assert created.result["createdAt"] == "1970-01-01T00:00:01.000000Z"
    assert modules.call("context", "get-context", contextId=created.result["contextId"]).result == created.result


def test_two_requests_create_two_contexts(modules: Any) -> None:
    assert modules.context() != modules.context()


def test_an_update_changes_what_is_given_and_merges_metadata(modules: Any) -> None:
    context = modules.context(type="a", metadata={"keep": 1, "change": 1, "drop": 1})
    updated = modules.call("context", "update-context", contextId=context, name="hall", metadata={"change": 2, "drop": None})
    assert updated.types == ["context.updated"]
    assert (updated.result["name"], updated.result["type"], updated.result["metadata"]) == ("hall", "a", {"keep": 1, "change": 2})
    assert updated.result["version"] == 2
    assert updated.result["updatedAt"] > updated.result["createdAt"]


def test_an_update_for_another_version_is_a_conflict(modules: Any) -> None:
    context = modules.context()
    modules.call("context", "update-context", contextId=context, name="b", expectedVersion=1)
    refused = modules.call("context", "update-context", contextId=context, name="c", expectedVersion=1)
    assert refused.refused == ("conflict", "/expectedVersion")
    assert modules.call("context", "get-context", contextId=context).result["name"] == "b"


def test_an_update_of_nothing_is_invalid(modules: Any) -> None:
    assert modules.call("context", "update-context", contextId=modules.context()).refused == ("invalid", "")


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", TRANSITIONS)
def test_the_life_cycle_follows_its_table(modules: Any, before: str, after: str) -> None:
    context = modules.context()
    if before != "active":
        modules.call("context", "transition-lifecycle", contextId=context, status=before)
    answer = modules.call("context", "transition-lifecycle", contextId=context, status=after)
    if after in TRANSITIONS[before]:  # type: ignore[index]
        assert (answer.result["previousStatus"], answer.result["status"]) == (before, after)
        assert answer.types == [f"context.{'activated' if after == 'active' else after}"]
    else:
        assert answer.error.code == "conflict"
        assert modules.call("context", "get-context", contextId=context).result["status"] == before


@pytest.mark.parametrize("ended", ["completed", "terminated"])
def test_an_ended_context_takes_no_changes(modules: Any, ended: str) -> None:
    context = modules.context()
    modules.call("context", "transition-lifecycle", contextId=context, status=ended)
    assert modules.call("context", "update-context", contextId=context, name="x").refused == ("conflict", "/contextId")


def test_a_deleted_context_is_gone_but_its_history_stays(modules: Any) -> None:
    context = modules.context()
    deleted = modules.call("context", "delete-context", contextId=context)
    assert deleted.result == {"contextId": context, "deleted": True}
    assert deleted.types == ["context.deleted"]
    assert modules.call("context", "get-context", contextId=context).refused == ("not-found", "/contextId")
    assert modules.call("context", "delete-context", contextId=context).refused == ("not-found", "/contextId")
    assert "context.created" in [entry.event.type for entry in modules.runner.log if entry.event.aggregate_id == context]


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("get-context", {}),
        ("update-context", {"name": "x"}),
        ("transition-lifecycle", {"status": "suspended"}),
        ("delete-context", {}),
    ],
)
def test_an_unknown_context_is_not_found(modules: Any, operation: str, more: dict[str, Any]) -> None:
    assert modules.call("context", operation, contextId="exec-1/context-0", **more).refused == ("not-found", "/contextId")


def test_an_id_of_another_kind_is_not_found(modules: Any) -> None:
    assert modules.call("context", "get-context", contextId=modules.dialog()).refused == ("not-found", "/contextId")


def test_lists_are_filtered_ordered_and_paged(modules: Any) -> None:
    wanted = sorted(modules.context(type="a") for _ in range(5))
    modules.context(type="b")
    modules.plan()
    first = modules.call("context", "list-contexts", type="a", limit=3).result
    assert [each["contextId"] for each in first["contexts"]] == wanted[:3]
    assert (first["total"], first["next"], first["complete"], first["missingPartitions"]) == (5, wanted[2], True, [])
    second = modules.call("context", "list-contexts", type="a", limit=3, after=first["next"]).result
    assert [each["contextId"] for each in second["contexts"]] == wanted[3:]
    assert second["next"] is None
    assert modules.call("context", "list-contexts", status="suspended").result["total"] == 0


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({}, ""),
        ([], ""),
        (None, ""),
        ({"name": ""}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "x", "type": None}, "/type"),
        ({"name": "x", "colour": "red"}, "/colour"),
        ({"name": "x", "metadata": []}, "/metadata"),
    ],
)
def test_bad_parameters_are_invalid_at_their_place(modules: Any, parameters: Any, pointer: str) -> None:
    decision = modules.receive(modules.request("context", "create-context", parameters))
    response = decision.events[-1]
    assert response.error is not None
    assert (response.error.code, response.error.retryable) == ("invalid", False)
    assert response.data["pointer"] == pointer
    assert response.data["faults"][0]["pointer"] == pointer
    assert len(decision.events) == 2


def test_all_faults_are_told_at_once(modules: Any) -> None:
    refused = modules.call("context", "create-context", {"name": 1, "type": 2, "nope": 3})
    assert {fault["pointer"] for fault in refused.response.data["faults"]} == {"/name", "/type", "/nope"}


def test_names_in_snake_case_are_taken_too(modules: Any) -> None:
    context = modules.context()
    assert modules.call("context", "get-context", context_id=context).result["contextId"] == context


def test_metadata_is_searched_as_json(modules: Any) -> None:
    for value in (1, True, [0]):
        modules.call("context", "create-context", name="room", metadata={"x": value})

    def found(value: Any) -> list[Any]:
        return [each["metadata"]["x"] for each in modules.call("context", "search-contexts", metadata={"x": value}).result["contexts"]]

    assert (found(1.0), found(True), found([False])) == ([1], [True], [])
