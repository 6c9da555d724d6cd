"""The gateway as a process of its own, on a real broker with the embedded history; the other processes are not there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import pytest

from streams.settings import Settings
from streams.topics_apply import AppliedTopics

pytestmark = pytest.mark.broker

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 180.0


COMMAND = (sys.executable, "-m", "services.processes.gateway")


def environment_of(settings: Settings, more: dict[str, str]) -> dict[str, str]:
    """Ours, without settings of whoever runs the tests, and the test's own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MPLP_")}
    given = {"KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "TOPIC_PREFIX": settings.topic_prefix, "DATA_DIR": str(settings.data_dir)}
    given["SCHEMAS_TOPIC"] = settings.schemas_topic
    return inherited | {f"MPLP_{name}": value for name, value in given.items()} | more


@dataclass
class Process:
    process: asyncio.subprocess.Process
    http: httpx.AsyncClient


@asynccontextmanager
async def gateway(settings: Settings, **environment: str) -> AsyncIterator[Process]:
    """Runs the process and waits for its line `ready`; kills it if the test did not end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env=environment_of(settings, {"MPLP_HTTP_PORT": str(port), **environment}), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        assert line == b"ready\n"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            yield Process(process, client)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def core(settings: Settings) -> AsyncIterator[None]:
    """A core beside it; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.processes.core", env=environment_of(settings, {}), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_S) == b"ready\n"
        yield
    finally:
        process.kill()
        await process.wait()


async def test_an_execution_is_started_once_shown_listed_and_commanded(settings: Settings, topics: AppliedTopics) -> None:
    definition = orjson.loads((ROOT / "examples" / "multi-agent-collaboration.json").read_bytes())
    async with core(settings), gateway(settings) as running:
        http = running.http
        await until(http, "history", "core")
        starts = [
            http.post("/v1/executions", json={"definition": definition, "wait": 60}, headers={"Idempotency-Key": "order-7"})
            for _ in range(5)
        ]
        answers = await asyncio.gather(*starts)
        assert {answer.status_code for answer in answers} == {201}
        assert {answer.json()["status"] for answer in answers} == {"completed"}
        (where,) = {answer.headers["location"] for answer in answers}

        shown = (await http.get(where)).json()
        assert shown["status"] == "completed"
        transitions = (await http.get(f"{where}/transitions?limit=1000")).json()
        assert [item["sequence"] for item in transitions["items"]] == list(range(1, len(transitions["items"]) + 1))
        assert [item["type"] for item in transitions["items"]].count("execution.started") == 1

        refused = await http.post(f"{where}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (409, "execution.wrong-state")

        await http.post("/v1/query", json={"sql": "SELECT 1"})  # waits for the sink
        (listed,) = (await http.get("/v1/executions", params={"status": "completed"})).json()["items"]
        assert listed["execution_id"] == shown["execution_id"]

        made = await http.post("/v1/modules/context/create-context", json={"name": "over HTTP"})
        context = made.json()["result"]
        found = await http.post(
            "/v1/modules/context/get-context", json={"contextId": context["contextId"]}, params={"home": context["contextId"].split("/")[0]}
        )
        assert found.json()["result"]["name"] == "over HTTP"
        absent = await http.post("/v1/modules/context/get-context", json={"contextId": "nowhere/context-1"}, params={"home": "nowhere"})
        assert absent.status_code == 404


async def until(http: httpx.AsyncClient, *checks: str) -> None:
    """Waits until these checks of the readiness are well."""
    async with asyncio.timeout(PATIENCE_S):
        seen = (await http.get("/readyz")).json()["checks"]
        while not all(seen[check]["ok"] for check in checks):
            await asyncio.sleep(0.1)
            seen = (await http.get("/readyz")).json()["checks"]


async def test_events_come_back_from_the_stream_and_from_sql(settings: Settings, topics: AppliedTopics) -> None:
    async with gateway(settings) as running:
        http = running.http
        await until(http, "history")
        lines = b"\n".join(orjson.dumps({"type": "order.paid", "subject": f"o{n}", "data": {"n": n}}) for n in range(2000))
        taken = await http.post("/v1/events", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert taken.json() == {"accepted": 2000, "rejected": []}

        asked = await http.post(
            "/v1/query", json={"sql": "SELECT subject FROM system_events WHERE type = {type:String}", "parameters": {"type": "order.paid"}}
        )
        assert asked.headers["x-mplp-behind"] == "0"
        assert sorted(row["subject"] for row in asked.json()) == sorted(f"o{n}" for n in range(2000))

        numbers, wanted = list[int](), {"type": "order.*", "filter": "data.n % 7 == 0", "limit": 100}
        while wanted.get("cursor", "") is not None:
            page = (await http.get("/v1/events", params=wanted)).json()
            numbers += [item["data"]["n"] for item in page["items"]]
            wanted["cursor"] = page["next"]
        assert sorted(numbers) == list(range(0, 2000, 7))
        unknown = await http.get("/v1/events", params={"topic": "mplp.nowhere"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "topic.unknown")

        seen: dict[str, int] = {}
        async with (
            asyncio.timeout(PATIENCE_S),
            http.stream("GET", "/v1/stream", params={"from": "beginning", "filter": "data.n >= 1990"}) as stream,
        ):
            async for line in stream.aiter_lines():
                if line.startswith("id: "):
                    place = line[4:]
                if line.startswith("data: "):
                    seen[place] = orjson.loads(line[6:])["data"]["n"]
                if len(seen) == 10:
                    break
        assert sorted(seen.values()) == list(range(1990, 2000))

        refused = await http.post("/v1/query", json={"sql": "DROP TABLE system_events"})
        assert (refused.status_code, refused.json()["code"]) == (403, "sql.read-only")
        written = settings.data_dir / "written"
        attack = {"sql": "SELECT '%(x)s' AS x", "parameters": {"x": f") INTO OUTFILE $${written}$$ -- "}}
        assert (await http.post("/v1/query", json=attack)).json() == [{"x": "%(x)s"}]
        assert not written.exists()
        assert await streams_open(http) == 0

        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), PATIENCE_S) == 0


async def streams_open(http: httpx.AsyncClient) -> float:
    """The gauge once it is 0: a client that went is noticed a moment later. Whatever it is when patience ends."""
    open_now = float("nan")
    async with asyncio.timeout(PATIENCE_S):
        while open_now != 0:
            text = (await http.get("/metrics")).text
            open_now = float(next(line.split()[1] for line in text.splitlines() if line.startswith("mplp_streams_open ")))
    return open_now


async def test_a_client_that_does_not_read_holds_up_nobody_and_sigterm_ends_open_streams(settings: Settings, topics: AppliedTopics) -> None:
    async with gateway(settings) as running:
        http = running.http
        async with http.stream("GET", "/v1/stream", params={"from": "beginning"}) as idle:
            assert idle.status_code == 200  # and nothing is read of it
            payload = "x" * 10_000
            for _ in range(5):
                taken = await http.post("/v1/events", json=[{"type": "big", "data": payload} for _ in range(400)])
                assert taken.json()["accepted"] == 400
            count = 0
            async with asyncio.timeout(PATIENCE_S), http.stream("GET", "/v1/stream", params={"from": "beginning"}) as busy:
                async for line in busy.aiter_lines():
                    count += line.startswith("data: ")
                    if count == 2000:
                        break
            assert count == 2000
            running.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(running.process.wait(), PATIENCE_S) == 0


async def test_the_gateway_lives_without_clickhouse(settings: Settings, topics: AppliedTopics) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with gateway(settings, MPLP_CLICKHOUSE_URL=away) as running:
            http = running.http
            assert (await http.post("/v1/events", json={"type": "a"})).json()["accepted"] == 1
            refused = await http.post("/v1/query", json={"sql": "SELECT 1"})
            assert (refused.status_code, refused.json()["code"]) == (503, "history.unavailable")
            checks = (await http.get("/readyz")).json()["checks"]
            assert checks["kafka"]["ok"]
            assert not checks["history"]["ok"]
            assert not checks["core"]["ok"]
            assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"MPLP_HTTP_HOST": "0.0.0.0"}, "bind.unprotected"),
        ({"MPLP_API_KEYS": "nonsense"}, "api-keys.invalid"),
        ({"MPLP_HTTP_HOST": "192.0.2.1", "MPLP_API_KEYS": "a:admin:" + "0" * 64}, "bind.impossible"),
    ],
)
async def test_a_start_that_must_not_be_is_refused_with_its_code(settings: Settings, environment: dict[str, str], code: str) -> None:
    assert await failed_start(settings, MPLP_HTTP_PORT="0", **environment) == (1, code)


async def test_a_taken_port_is_a_clear_error(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert await failed_start(settings, MPLP_HTTP_PORT=str(other.getsockname()[1])) == (1, "port.taken")


async def failed_start(settings: Settings, **environment: str) -> tuple[int | None, str]:
    """Exit code, and the code of the error, of a process that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env=environment_of(settings, environment), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, orjson.loads(said.splitlines()[-1])["code"]
