"""Fixtures that everything shares: one real broker per run, and for each test its own topic prefix on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.settings import Settings
from streams.tracebacks import plain_processors

if TYPE_CHECKING:
    from streams.bus.bus import Bus
    from streams.topics_apply import AppliedTopics
    from tests.clickhouse_http.process import ClickHouseServer
    from tests.scheduling import ByFile

#: A broker to use instead of starting one, host:port.
BROKER_VARIABLE = "MPLP_TEST_KAFKA"

# How long an example takes says how busy the machine is. The same examples each time: a run says what was changed, and not what luck found.
# `make explore` looks for others; a failure shows the line that brings it back.
hypothesis_settings.register_profile("explore", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile("mplp", hypothesis_settings.get_profile("explore"), derandomize=True)
hypothesis_settings.load_profile("mplp")

# Left to itself, structlog draws every exception with all the variables of all its frames: seconds each.
structlog.configure(processors=plain_processors(colors=False))


@pytest.hookimpl(optionalhook=True)  # xdist may be off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """With `--dist loadscope`: what runs in one process, see `tests.scheduling`."""
    from tests.scheduling import ByFile

    return ByFile(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Address of a real broker, started when the first test of a run asks for it and stopped after the last."""
    if existing := os.environ.get(BROKER_VARIABLE):
        yield existing
        return
    from tests.shared_broker import shared_broker

    several = "PYTEST_XDIST_WORKER" in os.environ  # then there is a folder above that of each process
    base = tmp_path_factory.getbasetemp()
    with shared_broker((base.parent if several else base) / "broker") as bootstrap:
        yield bootstrap


@pytest.fixture
def settings(broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a topic prefix, a topic of schemas and a data folder of this test's own, 4 partitions.

    All who look at schemas read their topic from its beginning: with one for all tests, each would read what all before it wrote.
    Processes that the test starts get its name from the environment.
    """
    prefix = f"t{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("MPLP_SCHEMAS_TOPIC", f"_schemas-{prefix}")
    return Settings(kafka_bootstrap=broker, topic_prefix=prefix, partitions=4, data_dir=tmp_path / ".mplp", http_port=0)


@pytest.fixture
async def kafka(settings: Settings) -> AsyncIterator[Kafka]:
    """Client factory for this test; every topic with its prefix is deleted afterwards."""
    kafka = Kafka(settings)
    yield kafka
    async with kafka.admin() as admin:
        mine = [
            topic for topic in await admin.list_topics() if topic.startswith(f"{settings.topic_prefix}.") or topic == settings.schemas_topic
        ]
        if mine:
            await admin.delete_topics(mine)


@pytest.fixture
async def topics(kafka: Kafka) -> AppliedTopics:
    """The catalogue's topics, made for this test's prefix, with the schemas registered."""
    from streams.topics_apply import apply_topics

    return await apply_topics(kafka)


@pytest.fixture
async def codec(kafka: Kafka, topics: AppliedTopics) -> Codec:
    """A codec that knows the registered schemas."""
    from streams.codec.registry import connect_codec

    return await connect_codec(kafka)


@pytest.fixture
async def bus(kafka: Kafka, codec: Codec) -> AsyncIterator[Bus]:
    """A bus of this test's own."""
    from streams.bus.bus import Bus

    made = Bus(kafka, codec)
    yield made
    await made.close()


@pytest.fixture(scope="session")
async def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    """A ClickHouse server, started when the first test asks for it. Each test has a database of its own: `server_settings`."""
    from tests.clickhouse_http.process import ClickHouseServer

    async with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), users={"mplp": "secret"}) as server:
        yield server


@pytest.fixture
async def server_settings(settings: Settings, clickhouse: ClickHouseServer) -> AsyncIterator[Settings]:
    """As `settings`, with a database of this test's own on the ClickHouse server."""
    from tests.clickhouse_http.process import database_of

    async with database_of(clickhouse, settings.topic_prefix) as database:
        yield settings.model_copy(
            update={
                "clickhouse_url": clickhouse.url,
                "clickhouse_user": "mplp",
                "clickhouse_password": SecretStr("secret"),
                "clickhouse_database": database,
            }
        )
