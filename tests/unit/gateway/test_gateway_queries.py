"""`/v1/query` and `/v1/queries`: forms are negotiated, answers held back until they are sure, queries watched, ended and saved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pytest

from services.gateway.memory import Memory, MemoryHistory, MemoryRows, MemoryStreamed
from services.gateway.query_formats import NotAcceptable, wanted

QUERY_ID = "0190f0c4-8a9b-7cde-8f01-23456789abcd"


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/x-ndjson", "jsonl"),
        ("application/jsonl;q=0.5, text/csv;q=0.9", "csv"),
        ("text/*", "csv"),
        ("application/*, application/json;q=0", "jsonl"),
        ("text/html, application/vnd.apache.parquet", "parquet"),
        ("APPLICATION/VND.APACHE.ARROW.STREAM", "arrow"),
        ("text/html;q=0.9, */*;q=0.1", "json"),
        ("text/csv; header=present", "csv"),
    ],
)
def test_the_form_is_what_the_client_prefers(accept: str, form: str) -> None:
    assert wanted(None, accept) == form
    assert wanted("csv", accept) == "csv"
    assert wanted("rows", accept) == "json"


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "text/csv;q=x", "image/*"])
def test_what_no_answer_can_be_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"accept\.unsupported"):
        wanted(None, accept)


async def test_content_types_are_negotiated(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.history.answer = lambda sql, parameters: MemoryRows([{"n": 1}, {"n": 2}], 1)
    lines = await http.post("/v1/query", json={"sql": "SELECT 1"}, headers={"accept": "application/x-ndjson"})
    assert (lines.headers["content-type"], lines.text) == ("application/x-ndjson", '{"n":1}\n{"n":2}')
    assert (await http.post("/v1/query", json={"sql": "SELECT 1"})).json() == [{"n": 1}, {"n": 2}]
    assert problem(await http.post("/v1/query", json={"sql": "SELECT 1"}, headers={"accept": "text/html"})) == (406, "accept.unsupported")


async def test_a_short_answer_that_fails_at_its_end_is_a_problem(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.history.answer = lambda sql, parameters: MemoryRows([{"n": n} for n in range(4)], 1, fails_after=3)
    assert problem(await http.post("/v1/query", json={"sql": "SELECT 1"})) == (400, "query.failed")
    assert memory.history.given[0].closed


async def test_a_query_is_a_text_or_saved_and_not_both(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.history.texts["mine"] = "SELECT {n:Int8}"
    await http.post("/v1/query", json={"saved": "mine", "parameters": {"n": 1}})
    assert memory.history.asked == [("SELECT {n:Int8}", {"n": 1})]
    assert problem(await http.post("/v1/query", json={"saved": "other"})) == (404, "query.unsaved")
    for body in ({}, {"sql": "SELECT 1", "saved": "mine"}):
        assert problem(await http.post("/v1/query", json=body)) == (400, "query.one-of")
    assert (await http.get("/v1/queries")).json() == {"items": [{"name": "mine"}], "next": None}
    assert (await http.get("/v1/queries/mine")).json()["sql"] == "SELECT {n:Int8}"
    assert problem(await http.get("/v1/queries/other")) == (404, "query.unsaved")


async def test_a_query_has_the_id_that_its_client_gave(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/query", json={"sql": "SELECT 1", "query_id": QUERY_ID})
    assert answer.headers["x-mplp-query-id"] == QUERY_ID.replace("-", "")
    assert problem(await http.get(f"/v1/query/{QUERY_ID}")) == (404, "query.unknown")
    assert problem(await http.delete(f"/v1/query/{QUERY_ID}")) == (404, "query.unknown")
    assert (await http.get("/v1/query/none")).status_code == 422


async def test_who_does_not_take_the_answer_loses_it(
    memory: Memory, client_of: Callable[..., httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.query.SLOW_CLIENT_S", 0.0)
    closed = asyncio.Event()

    class Given(MemoryStreamed):
        async def chunks(self) -> AsyncIterator[bytes]:
            yield b"["

        async def close(self) -> None:
            closed.set()

    class Slow(MemoryHistory):
        async def stream(self, sql: str, parameters: Mapping[str, Any], *, format: str, query_id: str | None) -> MemoryStreamed:
            return Given(MemoryRows([], 1), format, "0" * 32)

    from services.gateway.query import _body

    history = Slow()
    body = _body(await history.stream("", {}, format="json", query_id=None), b"[", _none(), _metrics(memory))
    async with asyncio.timeout(10):
        assert await anext(body) == b"["
        await closed.wait()  # nobody takes the next part
    await body.aclose()


async def _none() -> AsyncIterator[bytes]:
    return
    yield


def _metrics(memory: Memory) -> Any:
    from services.gateway.app import create_app

    return create_app(memory.ports()).state.metrics
