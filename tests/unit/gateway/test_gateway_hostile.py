"""What should never be sent is refused with a stable code; whatever is sent, nothing answers 500."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.app import create_app
from services.gateway.bodies import deeper_than, parse_json
from services.gateway.memory import Memory
from streams.errors import InvalidInput

POSTS = ("/v1/events", "/v1/executions", "/v1/query", "/v1/rules", "/v1/modules/context/create-context", "/v1/executions/e/cancel")

MALFORMED = {
    "broken": (b'{"type":', "json.invalid"),
    "nan": (b'{"type":"a","data":NaN}', "json.invalid"),
    "infinity": (b'{"type":"a","data":1e999}', "json.invalid"),
    "lone surrogate": (b'{"type":"\\ud800"}', "json.invalid"),
    "not utf-8": (b'{"type":"\xff"}', "json.invalid"),
    "raw null byte": (b'{"type":"a\x00"}', "json.invalid"),
    "deep": (b'{"data":' * 200 + b"1" + b"}" * 200, "json.too-deep"),
    "very deep": (b"[" * 100_000, "json.too-deep"),
    "huge integer": (b'{"type":"a","data":' + b"9" * 30 + b"}", "number.invalid"),
    "huger integer": (b'{"type":"a","data":' + b"9" * 5000 + b"}", None),
    "byte order mark": (b"\xef\xbb\xbf{}", "json.invalid"),
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_json_is_refused_with_its_code(http: httpx.AsyncClient, memory: Memory, path: str, name: str) -> None:
    body, code = MALFORMED[name]
    refused = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] in ({code} if code else {"json.invalid", "number.invalid"})
    assert memory.published == []


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nope", (404, "route.unknown")),
        ("GET", "/v1/executions/", (404, "route.unknown")),
        ("PUT", "/v1/events", (405, "method.not-allowed")),
        ("DELETE", "/v1/events", (405, "method.not-allowed")),
        ("GET", "/v1/executions/%00", (422, "parameter.invalid")),
        ("GET", "/v1/executions/" + "x" * 201, (422, "parameter.invalid")),
        ("GET", "/v1/executions?limit=0", (422, "parameter.invalid")),
        ("GET", "/v1/executions?limit=1e9", (422, "parameter.invalid")),
        ("GET", "/v1/executions?status=nope", (422, "parameter.invalid")),
        ("POST", "/v1/modules/Context/create-context", (422, "parameter.invalid")),
        ("POST", "/v1/modules/context/create-context?timeout=1e9", (422, "parameter.invalid")),
    ],
)
async def test_a_wrong_address_is_a_problem(http: httpx.AsyncClient, method: str, path: str, expected: tuple[int, str]) -> None:
    refused = await http.request(method, path)
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.status_code, refused.json()["code"]) == expected


async def test_a_defect_is_a_500_that_shows_nothing(memory: Memory, client_of: Callable[..., httpx.AsyncClient]) -> None:
    def broken(sql: str, parameters: object) -> Any:
        raise RuntimeError("a secret from the inside")

    memory.history.answer = broken
    async with client_of(memory) as client:
        answer = await client.post("/v1/query", json={"sql": "SELECT 1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    ["definition", "workflow", "input", "id", "idempotency_key", "wait", "sql", "parameters", "stale", "type", "data", "time", "steps"]
)
near_bodies = st.dictionaries(names, json_values, max_size=5)
content_types = st.sampled_from(
    ["application/json", "application/x-ndjson", "application/yaml", "text/plain", "application/json; charset=x", ";;;"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(POSTS), body=near_bodies | json_values)
def test_no_json_body_is_answered_with_500(path: str, body: Any) -> None:
    assert send(path, json=_encodable(body)).status_code < 500


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=200), kind=content_types)
def test_no_bytes_are_answered_with_500(path: str, body: bytes, kind: str) -> None:
    answer = send(path, content=body, headers={"Content-Type": kind})
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert answer.json()["code"]


@settings(max_examples=100, deadline=None)
@given(value=json_values.filter(lambda value: isinstance(value, (dict, list))))
def test_depth_is_counted_as_a_recursive_reading_counts_it(value: Any) -> None:
    def depth(value: Any) -> int:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    assert not deeper_than(value, depth(value))
    assert deeper_than(value, depth(value) - 1)


def test_integers_of_64_bits_are_taken_exactly() -> None:
    assert parse_json(b"[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]
    for text in (b"18446744073709551616", b"-9223372036854775809"):
        with pytest.raises(InvalidInput, match=r"number\.invalid"):
            parse_json(text)


@cache
def shared_app() -> FastAPI:
    return create_app(Memory().ports())


def send(path: str, **request: Any) -> httpx.Response:
    """One request to a gateway that all examples share."""

    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(shared_app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(path, **request)

    return asyncio.run(sent())


def _encodable(value: Any) -> Any:
    """JSON texts cannot hold lone surrogates; replaced, so that the client can send the body at all."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value
