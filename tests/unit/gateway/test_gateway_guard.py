"""Who may come in: keys and roles, hosts and origins, sizes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from services.gateway.app import create_app, roles_by_route
from services.gateway.guard import BODY_BYTES_MAX
from services.gateway.keys import Keys, Role, check_bind, parse_keys
from services.gateway.memory import Memory
from streams.errors import BackboneError, InvalidInput

#: Routes that need no key: what a load balancer and a curious person ask, and the description.
OPEN = {("/healthz", "GET"), ("/readyz", "GET"), ("/", "GET"), ("/openapi.json", "GET"), ("/openapi.json", "HEAD")}


def keys() -> Keys:
    return parse_keys(
        ",".join(f"{role.name.lower()}-key:{role.name.lower()}:{hashlib.sha256(role.name.encode()).hexdigest()}" for role in Role)
    )


@pytest.fixture
async def guarded(memory: Memory, client_of: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(memory, keys(), bind="0.0.0.0") as client:
        yield client


class TestKeys:
    def test_every_route_says_who_may(self, memory: Memory) -> None:
        without = {route for route, role in roles_by_route(create_app(memory.ports())).items() if role is None}
        assert without == OPEN

    async def test_every_guarded_route_refuses_without_a_key_with_a_wrong_one_and_with_too_low_a_role(
        self, memory: Memory, guarded: httpx.AsyncClient
    ) -> None:
        for (path, method), role in roles_by_route(create_app(memory.ports())).items():
            if role is None:
                continue
            known = {"command": "cancel", "topic": "t.dlq", "partition": "0", "offset": "0"}
            url = re.sub(r"\{(\w+)\}", lambda name: known.get(name[1], "x"), path)  # noqa: B023  used at once
            nobody = await guarded.request(method, url)
            stranger = await guarded.request(method, url, headers={"Authorization": "Bearer nope"})
            assert (nobody.status_code, nobody.json()["code"]) == (401, "key.missing"), url
            assert nobody.headers["www-authenticate"] == "Bearer"
            assert (stranger.status_code, stranger.json()["code"]) == (401, "key.unknown"), url
            if role > Role.READER:
                lower = await guarded.request(method, url, headers={"X-API-Key": Role(role - 1).name})
                assert (lower.status_code, lower.json()["code"]) == (403, "role.insufficient"), url
            if path != "/v1/stream":
                enough = await guarded.request(method, url, headers={"Authorization": f"bearer {role.name}"})
                assert enough.status_code not in (401, 403), url

    async def test_who_did_it_is_the_key_whatever_the_body_claims(self, guarded: httpx.AsyncClient, memory: Memory) -> None:
        memory.executions.record("e", "execution.started", "running")
        done = await guarded.post("/v1/executions/e/cancel", json={"by": "somebody"}, headers={"X-API-Key": "OPERATOR"})
        assert done.json()["transition"]["data"]["by"] == "operator-key"

    @pytest.mark.parametrize(
        "text", ["a", "a:reader", "a:boss:" + "0" * 64, "a:reader:" + "0" * 63, "a b:reader:" + "0" * 64, ":reader:" + "0" * 64]
    )
    def test_a_malformed_key_is_refused_without_showing_it(self, text: str) -> None:
        with pytest.raises(InvalidInput, match=r"api-keys\.invalid") as caught:
            parse_keys(f"x:admin:{'1' * 64}, {text}")
        assert "1" * 64 not in str(caught.value)

    def test_two_keys_of_one_name_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match=r"api-keys\.invalid"):
            parse_keys(f"x:admin:{'1' * 64},x:reader:{'2' * 64}")

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.test", ""])
    def test_beyond_loopback_only_with_keys(self, host: str) -> None:
        check_bind(host, keys())
        with pytest.raises(BackboneError, match=r"bind\.unprotected"):
            check_bind(host, Keys())

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
    def test_loopback_needs_none(self, host: str) -> None:
        check_bind(host, Keys())


class TestHostsAndOrigins:
    @pytest.mark.parametrize(
        "host", ["evil.test", "evil.test:8700", "127.0.0.1.evil.test", "[::2]", "10.0.0.1", "", "[", "localhost.evil.test"]
    )
    async def test_another_host_is_refused_on_loopback(self, http: httpx.AsyncClient, host: str) -> None:
        refused = await http.get("/healthz", headers={"Host": host})
        assert (refused.status_code, refused.json()["code"]) == (403, "host.refused")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "[::1]:8700", "LOCALHOST"])
    async def test_loopback_names_are_taken(self, http: httpx.AsyncClient, host: str) -> None:
        assert (await http.get("/healthz", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://127.0.0.1:9999", "http://[", ""])
    async def test_a_page_of_another_origin_is_refused(self, http: httpx.AsyncClient, memory: Memory, origin: str) -> None:
        refused = await http.post("/v1/events", json={"type": "a"}, headers={"Origin": origin})
        assert (refused.status_code, refused.json()["code"]) == (403, "origin.refused")
        assert memory.published == []

    async def test_a_page_of_ours_is_not(self, http: httpx.AsyncClient) -> None:
        taken = await http.post("/v1/events", json={"type": "a"}, headers={"Origin": "http://127.0.0.1:8700"})
        assert taken.status_code == 200
        assert not [name for name in taken.headers if name.startswith("access-control-")]

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
    async def test_a_body_that_a_form_could_send_is_refused(self, http: httpx.AsyncClient, kind: str) -> None:
        for path in (
            "/v1/events",
            "/v1/executions",
            "/v1/query",
            "/v1/rules",
            "/v1/modules/context/create-context",
            "/v1/executions/e/cancel",
        ):
            refused = await http.post(path, content=b'{"type":"a"}', headers={"Content-Type": kind} if kind else {})
            assert (refused.status_code, refused.json()["code"]) == (415, "content-type.unsupported"), path


class TestSizes:
    async def test_a_body_declared_too_large_is_refused_unread(self, http: httpx.AsyncClient) -> None:
        refused = await http.post(
            "/v1/events", content=b"[]", headers={"Content-Length": str(BODY_BYTES_MAX + 1), "Content-Type": "application/json"}
        )
        assert (refused.status_code, refused.json()["code"]) == (413, "body.too-large")

    @pytest.mark.parametrize("path", ["/v1/events", "/v1/executions", "/v1/query", "/v1/rules"])
    async def test_a_body_that_grows_too_large_without_a_length_is_refused(
        self, http: httpx.AsyncClient, memory: Memory, path: str
    ) -> None:
        sent = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 3 * BODY_BYTES_MAX:
                sent += 1024 * 1024
                yield b" " * (1024 * 1024)

        refused = await http.post(path, content=chunks(), headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (413, "body.too-large")
        assert sent < 2 * BODY_BYTES_MAX
        assert memory.published == []

    async def test_a_body_of_the_largest_size_is_taken(self, http: httpx.AsyncClient, memory: Memory) -> None:
        line = b'{"type":"a","data":"' + b"x" * 100_000 + b'"}\n'
        count = BODY_BYTES_MAX // len(line)
        body = line * count + b"\n" * (BODY_BYTES_MAX - count * len(line))
        answer = await http.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
        assert answer.json() == {"accepted": count, "rejected": []}
        assert len(memory.published) == count
