"""`/v1/history/promote`, `/demote`, `/promoted`."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import orjson
import pytest

from services.gateway.keys import parse_keys
from services.gateway.memory import Memory
from services.gateway.ports_promote import Promotion
from tests.unit.gateway.test_gateway_history import OPERATOR, READER, STREAM


async def test_promoted_listed_and_demoted(http: httpx.AsyncClient, memory: Memory) -> None:
    answer = await http.post("/v1/history/promote", json={"path": "data.amount", "type": "Float64", "why": "asked often"})
    assert (answer.status_code, answer.json()["column"], answer.json()["created"]) == (200, "data_amount", True)
    assert memory.promotions.asked == [
        Promotion(path="data.amount", table="system_events", type="Float64", who="local", why="asked often")
    ]  # fmt: skip
    assert [item["path"] for item in (await http.get("/v1/history/promoted")).json()["items"]] == ["data.amount"]
    lines = (await http.post("/v1/history/promote", json={"path": "data.amount"}, headers=STREAM)).content.splitlines()
    assert [next(iter(orjson.loads(line))) for line in lines] == ["progress", "report"]
    assert (await http.post("/v1/history/demote", json={"path": "data.amount"})).json()["column"] == "data_amount"
    again = await http.post("/v1/history/demote", json={"path": "data.amount"})
    assert (again.status_code, again.json()["code"]) == (404, "promote.unknown")


@pytest.mark.parametrize("body", [{}, {"path": ""}, {"path": 1}, {"path": "data.a", "column": "x"}, {"path": "data.a", "table": ""}])
async def test_what_has_no_sense_is_refused(http: httpx.AsyncClient, body: object) -> None:
    answer = await http.post("/v1/history/promote", json=body)
    assert (answer.status_code // 100, answer.json()["code"]) == (4, "body.invalid")


async def test_changing_columns_needs_an_admin(memory: Memory, client_of: Callable[..., httpx.AsyncClient]) -> None:
    keys = parse_keys(f"reader:reader:{READER},operator:operator:{OPERATOR}")
    async with client_of(memory, keys) as http:
        reader, operator = ({"Authorization": f"Bearer {letter}"} for letter in "CB")
        for path in ("/v1/history/promote", "/v1/history/demote"):
            assert (await http.post(path, json={"path": "data.a"}, headers=operator)).status_code == 403
        assert (await http.get("/v1/history/promoted", headers=reader)).status_code == 200
    assert memory.promotions.asked == []
