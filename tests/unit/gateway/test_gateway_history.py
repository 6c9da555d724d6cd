"""`/v1/history`: long work as one answer, or as lines while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import orjson
import pytest

from services.gateway.keys import parse_keys
from services.gateway.memory import Memory
from services.gateway.ports import Rebuild, Verification
from streams.errors import NotFound

STREAM = {"Accept": "application/x-ndjson"}
READER = "6b23c0d5f35d1b11f9b683f0b0a617355deb11277d91ae091d399c655b87940d"  # of "C"
OPERATOR = "df7e70e5021544f4834bbee64a9e3789febc4be81470df629cad6ddb03320a5c"  # of "B"


async def test_a_report(http: httpx.AsyncClient, memory: Memory) -> None:
    answer = await http.post("/v1/history/verify", json={})
    assert (answer.status_code, answer.json()["verdict"]) == (200, "exact")
    assert memory.upkeep.asked == [Verification()]
    assert memory.upkeep.closed == 1


async def test_lines_while_it_goes_on(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.upkeep.steps = 3
    answer = await http.post("/v1/history/verify", json={"quick": True}, headers=STREAM)
    lines = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [next(iter(line)) for line in lines] == ["progress"] * 3 + ["report"]
    assert lines[-1]["report"]["quick"] is True


async def test_what_is_asked(http: httpx.AsyncClient, memory: Memory) -> None:
    body = {"topics": ["mplp.system.events"], "from": 7, "to": "2026-01-31T12:00:00Z", "timeout": 0.5}
    await http.post("/v1/history/verify", json=body)
    assert memory.upkeep.asked == [
        Verification(topics=("mplp.system.events",), since=7, until=datetime(2026, 1, 31, 12, tzinfo=UTC), timeout_s=0.5)
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"topic": "t"}, "body.invalid"),
        ({"topics": [""]}, "body.invalid"),
        ({"timeout": -1}, "body.invalid"),
        ({"from": "yesterday"}, "time.invalid"),
        ({"from": 1.5}, "body.invalid"),
    ],
)
async def test_what_has_no_sense_is_refused(http: httpx.AsyncClient, body: object, code: str) -> None:
    answer = await http.post("/v1/history/verify", json=body)
    assert (answer.status_code // 100, answer.json()["code"]) == (4, code)


@pytest.mark.parametrize("headers", [{}, STREAM])
async def test_what_is_refused_at_once_is_a_problem(http: httpx.AsyncClient, memory: Memory, headers: dict[str, str]) -> None:
    memory.upkeep.steps, memory.upkeep.failure = 0, NotFound("topic.not-kept", "No.")
    answer = await http.post("/v1/history/rebuild", json={"topics": ["x"]}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "topic.not-kept")


async def test_what_fails_later_is_the_last_line(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.upkeep.failure = NotFound("topic.not-kept", "No.")
    answer = await http.post("/v1/history/verify", json={}, headers=STREAM)
    problem = orjson.loads(answer.content.splitlines()[-1])["problem"]
    assert (problem["code"], problem["status"], problem["detail"]) == ("topic.not-kept", 404, "No.")


async def test_who_rebuilds(http: httpx.AsyncClient, memory: Memory) -> None:
    answer = await http.post("/v1/history/rebuild", json={"topics": ["mplp.system.events"], "keep": True, "why": "lost rows"})
    assert answer.json()["tables"] == ["system_events"]
    assert memory.upkeep.asked == [Rebuild(topics=("mplp.system.events",), keep=True, who="local", why="lost rows")]


async def test_verifying_needs_an_operator_and_rebuilding_an_admin(memory: Memory, client_of: Callable[..., httpx.AsyncClient]) -> None:
    keys = parse_keys(f"reader:reader:{READER},operator:operator:{OPERATOR}")
    async with client_of(memory, keys) as client:
        for key, path, status in (
            ("C", "verify", 403), ("B", "verify", 200), ("B", "rebuild", 403), ("nobody", "rebuild", 401),
        ):  # fmt: skip
            answer = await client.post(f"/v1/history/{path}", json={}, headers={"X-API-Key": key})
            assert answer.status_code == status, (key, path, answer.text)
