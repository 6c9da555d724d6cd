"""Looking back over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from services.gateway.memory import Memory
from services.gateway.ports import Item
from tests.unit.gateway.test_gateway_routes import problem


async def test_pages_follow_each_other_until_there_are_no_more(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.live.items = [Item(id=f"t/0/{number}", record={"n": number}) for number in range(5)]
    parameters = {
        "type": "order.*", "source": "shop", "subject": "o", "correlation_id": "c", "since": "2026-01-01T00:00:00Z",
        "until": "2026-02-01T00:00:00Z", "filter": "true", "topic": ["a", "b"], "limit": 2,
    }  # fmt: skip
    pages, cursor = [], {}
    while True:
        page = (await http.get("/v1/events", params={**parameters, **cursor})).json()
        pages.append([item["n"] for item in page["items"]])
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert pages == [[0, 1], [2, 3], [4]]
    assert {(asked.topics, asked.type, asked.source, asked.subject, asked.correlation_id, asked.where) for asked in memory.live.looked} == {
        (("a", "b"), "order.*", "shop", "o", "c", "true")
    }
    assert memory.live.looked[0].since == datetime(2026, 1, 1, tzinfo=UTC)
    assert memory.live.looked[0].until == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"since": "yesterday"}, (400, "time.invalid")),
        ({"cursor": "mine"}, (400, "cursor.invalid")),
        ({"limit": "0"}, (422, "parameter.invalid")),
        ({"topic": ""}, (422, "parameter.invalid")),
    ],
)
async def test_what_cannot_be_asked_is_refused(http: httpx.AsyncClient, parameters: dict[str, str], expected: tuple[int, str]) -> None:
    refused = await http.get("/v1/events", params=parameters)
    assert problem(refused) == expected
    if expected[0] == 400:
        assert refused.json()["pointer"] == f"/{next(iter(parameters))}"


async def test_no_more_look_back_at_a_time_than_streams_may_be_open(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.stream.STREAMS_MAX", 0)
    assert problem(await http.get("/v1/events")) == (429, "streams.too-many")
