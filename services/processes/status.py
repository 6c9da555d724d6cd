"""`mplp status`: what runs, what answers, how far each consumer group is behind. It looks only; what is away is said, not raised."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.processes.liveness import is_alive_pid
from services.processes.supervisor_files import holder
from streams.bus.bus import Bus
from streams.codec.registry import connect_codec
from streams.errors import BackboneError, InvalidInput
from streams.kafka import Kafka
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.routing.lag import lags
from streams.settings import Settings

TIMEOUT_S = 5.0
SUPERVISOR = "supervisor"


async def system_status(settings: Settings) -> dict[str, Any]:
    """`{"status", "processes", "kafka", "clickhouse", "gateway", "lag", "routes", "work"}`; status is `ready`, `degraded` or `stopped`.

    `lag` counts by group and logical topic the records behind the committed positions; `routes` says of each route how many records
    wait for it, since when the oldest does (`seconds`), and how many keys are parked. `work` is what all cores hold together:
    executions (`workflow`) and modules' aggregates (`modules`) in memory, inputs that wait (`waiting`), and by how many
    milliseconds the most overdue timer is late (`overdue_ms`): what stays there is stuck.
    """
    kafka, lag, routes = await _kafka(Kafka(settings))
    gateway = await _gateway(settings)
    processes = _processes(settings)
    well = kafka["status"] == "ready" and gateway["status"] == "ready" and all(p["status"] == "running" for p in processes)
    anything = kafka["status"] == "ready" or gateway["status"] != "unreachable" or bool(processes)
    return {
        "status": "ready" if well else "degraded" if anything else "stopped",
        "processes": processes,
        "kafka": kafka,
        "clickhouse": _clickhouse(settings, gateway),
        "gateway": gateway,
        "lag": lag,
        "routes": routes,
        "work": gateway.get("checks", {}).get("core", {}).get("figures", {}),
    }


def _processes(settings: Settings) -> list[dict[str, Any]]:
    """The supervisor and what it runs, by `run.json`; empty when none runs here."""
    pid = holder(settings.data_dir)
    if pid is None:
        return []
    run_info = settings.run_info()
    children = [(entry["name"], entry["pid"]) for entry in run_info.get("processes", ())]
    state = "running" if run_info else "starting"
    return [
        {"name": SUPERVISOR, "pid": pid, "status": state},
        *({"name": name, "pid": child, "status": "running" if child and is_alive_pid(child) else "dead"} for name, child in children),
    ]


async def _kafka(kafka: Kafka) -> tuple[dict[str, Any], dict[str, dict[str, int]], dict[str, dict[str, Any]]]:
    """How the broker is, and how far groups and routes are behind."""
    bootstrap = kafka.settings.bootstrap_servers()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return {"status": "ready", "bootstrap": bootstrap}, await _lag(kafka), await _routes(kafka)
    except TimeoutError:
        return {"status": "unreachable", "bootstrap": bootstrap, "error": f"no answer within {TIMEOUT_S:.0f} s"}, {}, {}
    except (BackboneError, KafkaError) as error:
        return {"status": "unreachable", "bootstrap": bootstrap, "error": str(error)}, {}, {}


async def _routes(kafka: Kafka) -> dict[str, dict[str, Any]]:
    """Route → how far it is behind. Where nothing was ever started there are no routes."""
    try:
        bus = Bus(kafka, await connect_codec(kafka))
    except InvalidInput:
        return {}
    try:
        return {route: each.to_dict() for route, each in (await lags(bus)).items()}
    finally:
        await bus.close()


async def _lag(kafka: Kafka) -> dict[str, dict[str, int]]:
    """Group → logical topic → records behind, of groups that read topics with our prefix."""
    prefix = f"{kafka.settings.topic_prefix}."
    lag: dict[str, dict[str, int]] = {}
    async with kafka.admin() as admin, kafka.consumer(**RANGE_OPTIONS, isolation_level="read_committed") as consumer:
        for group, *_ in await admin.list_consumer_groups():
            committed = {
                partition: meta.offset
                for partition, meta in (await admin.list_consumer_group_offsets(group)).items()
                if partition.topic.startswith(prefix) and meta.offset >= 0
            }
            if not committed:
                continue
            ends: dict[TopicPartition, int] = await consumer.end_offsets(list(committed))
            topics: dict[str, int] = {}
            for partition, offset in committed.items():
                topic = kafka.names.logical(partition.topic)
                topics[topic] = topics.get(topic, 0) + await _behind(consumer, partition, offset, ends[partition])
            lag[group] = dict(sorted(topics.items()))
    return dict(sorted(lag.items()))


async def _behind(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int, end: int) -> int:
    """Offsets from here to the end, if a record is among them: what ends a transaction takes an offset, too, which no group commits."""
    if end <= offset:
        return 0
    async with aclosing(read_range(consumer, partition.topic, partition.partition, offset, end)) as left:
        return 0 if await anext(left, None) is None else end - offset


async def _gateway(settings: Settings) -> dict[str, Any]:
    url = settings.http_url()
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            content = (await client.get(f"{url}/readyz")).json()
    except (httpx.HTTPError, ValueError) as error:
        return {"status": "unreachable", "url": url, "error": str(error)}
    return {"status": content.get("status", "unknown"), "url": url, "checks": content.get("checks", {})}


def _clickhouse(settings: Settings, gateway: dict[str, Any]) -> dict[str, Any]:
    """How the history stands, as the gateway, which holds it, sees it."""
    mode = "server" if settings.clickhouse_url else "embedded"
    checks = gateway.get("checks", {})
    check = checks.get("clickhouse") or checks.get("history")
    status = "unknown" if check is None else "ready" if check.get("ok") else "unreachable"
    return {"status": status, "mode": mode, **({"detail": check["detail"]} if check and check.get("detail") else {})}
