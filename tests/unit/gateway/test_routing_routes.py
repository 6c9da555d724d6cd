"""Routes and dead letters over HTTP."""

from __future__ import annotations

import httpx
import pytest

from services.gateway.memory import Memory
from tests.unit.gateway.test_gateway_routes import problem


async def test_a_route_is_applied_listed_shown_and_deleted(http: httpx.AsyncClient, memory: Memory) -> None:
    assert (await http.post("/v1/routes?dry_run=true", json={"id": "a"})).json() == {"routes": [{"id": "a", "version": 1}]}
    applied = await http.post("/v1/routes?why=trial", content=b"id: a\n---\nid: b\n", headers={"Content-Type": "application/yaml"})
    assert [route["id"] for route in applied.json()["routes"]] == ["a", "b"]
    page = (await http.get("/v1/routes?limit=1")).json()
    rest = (await http.get("/v1/routes", params={"cursor": page["next"]})).json()
    assert ([route["id"] for route in page["items"]], [route["id"] for route in rest["items"]], rest["next"]) == (["a"], ["b"], None)
    assert (await http.get("/v1/routes/a")).json()["why"] == "trial"
    assert (await http.get("/v1/routes/a/parked")).json()["items"] == []
    assert (await http.delete("/v1/routes/a")).status_code == 200
    assert problem(await http.get("/v1/routes/a")) == (404, "route.unknown")
    assert list(memory.routes.stored) == ["b"]


async def test_parked_keys_are_paged(http: httpx.AsyncClient, memory: Memory) -> None:
    await http.post("/v1/routes", json={"id": "a"})
    places = [("t", 0, 5), ("t", 0, 7), ("t", 1, 2), ("t.retry", 0, 0)]
    memory.routes.waiting["a"] = [{"topic": topic, "partition": partition, "offset": offset} for topic, partition, offset in places]

    found, page = [], (await http.get("/v1/routes/a/parked?limit=2")).json()
    while page["next"] is not None:
        found += page["items"]
        page = (await http.get("/v1/routes/a/parked", params={"limit": 2, "cursor": page["next"]})).json()

    assert [tuple(each.values()) for each in found + page["items"]] == places
    assert len(found) == 2
    assert problem(await http.get("/v1/routes/a/parked?cursor=x")) == (400, "cursor.invalid")


@pytest.fixture
def letters(memory: Memory) -> Memory:
    memory.letters.stored = [{"id": f"t.dlq/0/{number}", "route": "r", "code": "c" if number else "d"} for number in range(3)]
    return memory


async def test_letters_are_paged_shown_and_put_back(http: httpx.AsyncClient, letters: Memory) -> None:
    page = (await http.get("/v1/dlq?limit=2&route=r")).json()
    rest = (await http.get("/v1/dlq", params={"cursor": page["next"]})).json()
    assert [letter["id"] for letter in (*page["items"], *rest["items"])] == ["t.dlq/0/0", "t.dlq/0/1", "t.dlq/0/2"]
    assert (await http.get("/v1/dlq/t.dlq/0/1")).json()["code"] == "c"
    assert problem(await http.get("/v1/dlq/t.dlq/0/9")) == (404, "letter.unknown")
    assert (await http.post("/v1/dlq/redrive", json={"code": "c", "dry_run": True})).json() == {"matched": 2, "redriven": 0}
    assert (await http.post("/v1/dlq/redrive", json={"code": "c"})).json() == {"matched": 2, "redriven": 2}
    assert [(what, number) for what, _, number in letters.letters.done] == [("redrive", 2)]


async def test_everything_is_purged_only_if_that_is_said(http: httpx.AsyncClient, letters: Memory) -> None:
    assert problem(await http.post("/v1/dlq/purge", json={})) == (409, "dlq.purge-all")
    assert (await http.post("/v1/dlq/purge", json={"all": True})).json() == {"matched": 3, "purged": 3}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"where": "(("}, "expression.invalid"), ({"since": "today"}, "time.invalid"), ({"rate": 0}, "body.invalid"),
        ({"x": 1}, "body.invalid"),
    ],
)  # fmt: skip
async def test_a_selection_that_means_nothing_is_refused(http: httpx.AsyncClient, letters: Memory, body: object, code: str) -> None:
    assert problem(await http.post("/v1/dlq/redrive", json=body))[1] == code
    assert letters.letters.done == []


async def test_a_time_that_is_none_is_named(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/dlq", params={"until": "today"})).json()["pointer"] == "/until"
