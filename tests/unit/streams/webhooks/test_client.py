"""The client against real servers on loopback: what it sends, and what can be done to it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.settings import Settings
from streams.webhooks.addresses import target_of
from streams.webhooks.client import RESPONSE_BYTES_MAX, WebhookClient
from streams.webhooks.outcomes import Delivered, Failed, Outcome
from tests.unit.streams.webhooks.receiver import Request, answer, in_turn, receiver

CERTIFICATE = Path(__file__).with_name("hooks.example.pem")


@asynccontextmanager
async def client(resolve: Callable[[str, int], list[str]] | None = None, **settings: Any) -> AsyncIterator[WebhookClient]:
    made = WebhookClient(Settings(**settings), *([] if resolve is None else [resolve]))
    try:
        yield made
    finally:
        await made.close()


async def post(of: WebhookClient, url: str, body: bytes = b"{}", **headers: str) -> Outcome:
    return (await of.post(target_of(url), body, "key-1", headers))[0]


def code(outcome: Outcome) -> tuple[str, bool]:
    assert isinstance(outcome, Failed)
    return outcome.code, outcome.retryable


async def test_what_is_sent_can_be_verified() -> None:
    async with receiver(answer(200, b"ok")) as server, client(webhook_secret="s3cret") as webhooks:
        outcome = await post(webhooks, f"http://127.0.0.1:{server.port}/in?x=1", b'{"a": 1}', **{"X-Tenant": "t"})
    assert outcome == Delivered()
    (request,) = server.requests
    headers = request.headers
    assert set(headers) == {
        "host", "content-type", "content-length", "user-agent", "idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature",
        "x-tenant",
    }, "nothing that nobody asked for"  # fmt: skip
    assert request.line == "POST /in?x=1 HTTP/1.1"
    assert request.body == b'{"a": 1}'
    assert headers["idempotency-key"] == headers["webhook-id"] == "key-1"
    assert (headers["x-tenant"], headers["content-type"], headers["host"]) == ("t", "application/json", f"127.0.0.1:{server.port}")
    signed = f"key-1.{headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_without_a_secret_nothing_is_signed_and_connections_are_kept() -> None:
    async with receiver(answer()) as server, client() as webhooks:
        for _ in range(3):
            assert await post(webhooks, f"http://127.0.0.1:{server.port}/") == Delivered()
    assert "webhook-signature" not in server.requests[0].headers
    assert server.connections == 1


async def test_redirects_are_not_followed() -> None:
    async with receiver(answer()) as other:
        async with receiver(answer(307, location=f"http://127.0.0.1:{other.port}/")) as server, client() as webhooks:
            assert code(await post(webhooks, f"http://127.0.0.1:{server.port}/")) == ("webhook.redirected", False)
        assert other.requests == []


async def test_a_name_is_resolved_once_and_its_address_decides() -> None:
    async with receiver(answer()) as server, client(lambda host, port: ["127.0.0.1"]) as webhooks:
        # No name service knows this name: what was checked is what is connected to.
        assert await post(webhooks, f"http://hooks.invalid:{server.port}/") == Delivered()
    assert server.requests[0].headers["host"] == f"hooks.invalid:{server.port}"

    # The connection is not kept, so the next call looks the name up again.
    rebound = iter([["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"]])
    async with receiver(in_turn(answer(connection="close"))) as server, client(lambda host, port: next(rebound)) as webhooks:
        url = f"http://hooks.invalid:{server.port}/"
        assert await post(webhooks, url) == Delivered()
        assert code(await post(webhooks, url)) == ("webhook.address-refused", False)
        assert code(await post(webhooks, url)) == ("webhook.address-refused", False)
    assert len(server.requests) == 1


async def test_private_addresses_are_refused_and_of_several_an_allowed_one_is_used() -> None:
    async with client() as webhooks:
        assert code(await post(webhooks, "https://10.0.0.1/")) == ("webhook.address-refused", False)
        assert code(await post(webhooks, "http://93.184.216.34/")) == ("webhook.address-refused", False)
        assert code(await post(webhooks, "https://[::ffff:192.168.0.1]/")) == ("webhook.address-refused", False)
        for written in ("127.1", "2130706433", "10.1"):  # what some systems take for an address
            assert code(await post(webhooks, f"https://{written}/")) == ("webhook.address-refused", False)
    async with receiver(answer()) as server, client(lambda host, port: ["10.0.0.1", "127.0.0.1"]) as webhooks:
        assert await post(webhooks, f"http://hooks.invalid:{server.port}/") == Delivered()


async def test_a_name_that_nobody_knows_and_a_port_that_nobody_listens_at_are_tried_again() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError(f"{host}: not known")

    async with client() as webhooks:
        assert code(await post(webhooks, f"https://{'a' * 70}.example/")) == ("webhook.unreachable", True)
    async with client(unknown) as webhooks:
        assert code(await post(webhooks, "https://hooks.invalid/")) == ("webhook.unreachable", True)
    async with receiver(answer()) as server:
        port = server.port
    async with client() as webhooks:
        assert code(await post(webhooks, f"http://127.0.0.1:{port}/")) == ("webhook.unreachable", True)


async def test_a_receiver_that_does_not_answer_or_answers_without_end_is_left() -> None:
    never = asyncio.Event()

    async def silent(_: Request, writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async def drips(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\ncontent-length: 1000000\r\n\r\n")
        while not never.is_set():
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def endless(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    async with receiver(silent) as server, client(webhook_timeout_ms=200) as webhooks:
        assert code(await post(webhooks, f"http://127.0.0.1:{server.port}/")) == ("webhook.timeout", True)
    async with receiver(drips) as server, client(webhook_timeout_ms=200) as webhooks:
        assert await post(webhooks, f"http://127.0.0.1:{server.port}/") == Delivered()
    async with receiver(endless) as server, client() as webhooks:
        assert await post(webhooks, f"http://127.0.0.1:{server.port}/") == Delivered()
    assert RESPONSE_BYTES_MAX < 1_000_000


@pytest.mark.parametrize(
    ("head", "outcome"),
    [
        (b"204 x\r\n", None), (b"200 x\r\ncontent-length: 9\r\n", None), (b"410 x\r\ncontent-length: 9\r\n", ("webhook.refused", False)),
        (b"302 x\r\nlocation: /\r\ncontent-length: 9\r\n", ("webhook.redirected", False)),
        (b"429 x\r\nretry-after: 7\r\ncontent-length: 9\r\n", ("webhook.failed", True)),
    ],
)  # fmt: skip
async def test_an_answer_that_breaks_off_is_what_its_status_says(head: bytes, outcome: tuple[str, bool] | None) -> None:
    async def breaks_off(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + head + b"\r\n")
        writer.close()

    async with receiver(breaks_off) as server, client() as webhooks:
        found = await post(webhooks, f"http://127.0.0.1:{server.port}/")
    assert (None if isinstance(found, Delivered) else code(found)) == outcome
    if isinstance(found, Failed):
        assert found.after_ms == (7000 if b"retry-after" in head else None)


async def test_garbage_for_an_answer_is_a_failure_like_any_other() -> None:
    async def garbage(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01 no http at all\r\n\r\n")

    async with receiver(garbage) as server, client() as webhooks:
        outcome = await post(webhooks, f"http://127.0.0.1:{server.port}/in?token=s3cret")
    assert code(outcome) == ("webhook.unreachable", True)
    assert isinstance(outcome, Failed)
    assert "s3cret" not in outcome.message, "errors are told to whoever may read deliveries"


async def test_the_beginning_of_an_error_is_told() -> None:
    async with receiver(answer(400, b"no such\norder" + b"!" * 1000)) as server, client() as webhooks:
        outcome = await post(webhooks, f"http://127.0.0.1:{server.port}/")
    assert isinstance(outcome, Failed)
    assert outcome.message.startswith("HTTP 400: no such order!!!")
    assert len(outcome.message) < 250


async def test_a_slow_destination_has_so_many_calls_at_a_time_and_delays_no_other() -> None:
    go_on = asyncio.Event()

    async def slow(_: Request, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(b"HTTP/1.1 204 x\r\n\r\n")

    async with receiver(slow) as busy, receiver(answer()) as other, client(webhook_concurrency=2) as webhooks:
        calls = [asyncio.create_task(post(webhooks, f"http://127.0.0.1:{busy.port}/{number}")) for number in range(6)]
        while busy.under_way < 2:
            await asyncio.sleep(0.01)
        assert await post(webhooks, f"http://127.0.0.1:{other.port}/") == Delivered()
        go_on.set()
        assert await asyncio.gather(*calls) == [Delivered()] * 6
    assert busy.most_under_way == 2


async def test_the_certificate_must_be_that_of_the_name_and_of_an_authority_that_is_trusted() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)

    def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with receiver(answer(), tls=tls) as server:
        async with client(resolve, webhook_ca_file=str(CERTIFICATE)) as webhooks:
            assert await post(webhooks, f"https://hooks.example:{server.port}/") == Delivered()
            assert code(await post(webhooks, f"https://other.example:{server.port}/")) == ("webhook.tls-failed", True)
        async with client(resolve) as webhooks:
            assert code(await post(webhooks, f"https://hooks.example:{server.port}/")) == ("webhook.tls-failed", True)
    assert len(server.requests) == 1


async def test_who_speaks_no_tls_is_told_from_who_is_not_there() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 x\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, client() as webhooks:
        port = server.sockets[0].getsockname()[1]
        assert code(await post(webhooks, f"https://127.0.0.1:{port}/")) == ("webhook.tls-failed", True)
