"""The example of a receiver takes what our client signs, once, and nothing else."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from streams.settings import Settings
from streams.webhooks.addresses import target_of
from streams.webhooks.client import WebhookClient
from streams.webhooks.outcomes import Delivered, Failed, Outcome
from streams.webhooks.signing import keys_of, signature

EXAMPLE = Path(__file__).parents[4] / "examples" / "webhook_receiver.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("webhook_receiver", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def seen(example: ModuleType) -> Iterator[tuple[int, dict[str, object]]]:
    """Port, and what was received."""
    found: dict[str, object] = {}
    server = example.receiver(0, "s3cret", found)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], found
    server.shutdown()
    thread.join()
    server.server_close()


async def post(port: int, secret: str, key: str) -> Outcome:
    webhooks = WebhookClient(Settings(webhook_secret=secret))  # type: ignore[arg-type]  # pydantic takes the text
    try:
        return (await webhooks.post(target_of(f"http://127.0.0.1:{port}/"), b'{"a": 1}', key, {}))[0]
    finally:
        await webhooks.close()


async def test_what_is_signed_is_taken_once(seen: tuple[int, dict[str, object]]) -> None:
    port, found = seen
    assert [await post(port, "s3cret", key) for key in ("k1", "k1", "k2")] == [Delivered()] * 3
    assert await post(port, "new s3cret", "k3") == Delivered()  # while secrets are changed both sign
    assert found == {key: {"a": 1} for key in ("k1", "k2", "k3")}


async def test_what_is_not_is_refused(seen: tuple[int, dict[str, object]]) -> None:
    port, found = seen
    for secret in ("other", ""):
        refused = await post(port, secret, "k")
        assert isinstance(refused, Failed)
        assert refused.code == "webhook.refused"
    assert found == {}


def test_a_recording_is_refused(example: ModuleType) -> None:
    now_s = int(time.time())
    for age_s, genuine in ((0, True), (299, True), (301, False), (-301, False)):
        sent = {"webhook-id": "k", "webhook-timestamp": str(now_s - age_s)}
        sent["webhook-signature"] = signature(keys_of("s"), "k", now_s - age_s, b"x")
        assert example.is_genuine(sent, b"x", "s", now_s) is genuine
        assert not example.is_genuine(sent, b"y", "s", now_s)
