"""On a ClickHouse server: a gateway killed while two share the work, verification and rebuild, TLS and a user."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.history.rebuild import RebuildAsk
from services.history.sink import Sink
from services.history.store import History
from services.history.verify import Ask, Verifier
from streams.codec.avro import Codec
from streams.errors import BackboneError, Unavailable
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.clickhouse_http.process import ClickHouseServer
from tests.integration.history.helpers import caught_up, encoded, offsets_in_kafka, produce, rows_by_partition, sinking, value_of
from tests.integration.history.odd import all_there, changed, events, log_with_a_zombie
from tests.integration.history.test_history_kill import SINK_PROCESS
from tests.integration.history.test_history_rebuild import running

pytestmark = pytest.mark.broker

CERTIFICATE = Path(__file__).with_name("localhost.pem")


def units_of(sink: Sink) -> set[int]:
    return set() if sink._session is None else {number for number, unit in sink._session._units.items() if unit.claimed.is_set()}


def environment_of(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "MPLP_PARTITIONS": str(settings.partitions),
        "MPLP_DATA_DIR": str(settings.data_dir),
        "MPLP_GROUP_SESSION_TIMEOUT_MS": str(settings.group_session_timeout_ms),
        "MPLP_CLICKHOUSE_URL": settings.clickhouse_url,
        "MPLP_CLICKHOUSE_USER": settings.clickhouse_user,
        "MPLP_CLICKHOUSE_PASSWORD": settings.clickhouse_password.get_secret_value(),
        "MPLP_CLICKHOUSE_DATABASE": settings.clickhouse_database,
    }


async def test_a_sink_that_is_killed_while_two_share_the_work_is_taken_over_from(
    kafka: Kafka, codec: Codec, server_settings: Settings
) -> None:
    over = asyncio.Event()
    sent = 0

    async def load() -> None:
        nonlocal sent
        while not over.is_set():
            await produce(kafka, SYSTEM_EVENTS, [encoded(codec, event, event.subject) for event in events(100)])
            sent += 100

    async with History(server_settings) as history, sinking(kafka, codec, history) as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SINK_PROCESS, env=environment_of(server_settings), stdout=asyncio.subprocess.PIPE
        )
        loading = asyncio.create_task(load())
        try:
            async with asyncio.timeout(180):
                while len(units_of(sink)) != 2:  # the other has the other two
                    await asyncio.sleep(0.05)
                theirs = await value_of(history, "SELECT count() FROM system_events")
                while await value_of(history, "SELECT count() FROM system_events") < theirs + 300:
                    await asyncio.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            async with asyncio.timeout(180):
                while len(units_of(sink)) != 4:
                    await asyncio.sleep(0.05)
        finally:
            over.set()
            await loading
            if process.returncode is None:
                process.kill()
            await process.communicate()
        await caught_up(sink)
        assert await value_of(history, "SELECT count() FROM system_events") == sent
        assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
        report = await Verifier(kafka, codec, history, all_there).run(Ask())
        assert report.exact, report.to_dict()["differences"]


async def test_a_history_on_a_server_is_verified_and_made_anew(kafka: Kafka, codec: Codec, server_settings: Settings) -> None:
    async with running(kafka, codec, server_settings) as product:
        await product.send(200)
        await log_with_a_zombie(kafka, codec)
        assert await product.verdict() == ("exact", [])
        await changed(
            product.history,
            "DELETE FROM system_events WHERE subject = 's7'",
            "ALTER TABLE system_events UPDATE severity = 'error' WHERE subject = 's8'",
        )
        verdict, places = await product.verdict()
        assert (verdict, {place["kind"] for place in places}) == ("differs", {"missing", "changed"})
        done = await product.rebuilder.run(RebuildAsk())
        assert done.rows == sum((await offsets_in_kafka(kafka)).values())
        assert await product.verdict() == ("exact", [])
        await product.send(50)
        assert await product.verdict() == ("exact", [])


async def test_tls_and_a_user(kafka: Kafka, codec: Codec, settings: Settings, tmp_path: Path) -> None:
    async with ClickHouseServer(tmp_path / "server", users={"writer": "s3cret"}, certificate=CERTIFICATE) as server:
        right = settings.model_copy(
            update={
                "clickhouse_url": server.url,
                "clickhouse_user": "writer",
                "clickhouse_password": SecretStr("s3cret"),
                "clickhouse_ca_file": str(CERTIFICATE),
            }
        )
        async with History(right) as history, sinking(kafka, codec, history) as sink:
            await produce(kafka, SYSTEM_EVENTS, [encoded(codec, event, event.subject) for event in events(60)])
            await caught_up(sink)
            assert await value_of(history, "SELECT count() FROM system_events") == 60
        for wrong, said in (
            ({"clickhouse_ca_file": ""}, "certificate"),
            ({"clickhouse_url": server.url.replace("localhost", "127.0.0.1")}, "certificate"),
            ({"clickhouse_password": SecretStr("guess")}, "516"),
        ):
            history = History(right.model_copy(update=wrong))
            with pytest.raises(BackboneError, match=said) as refused:
                await history.open()
            await history.close()
            assert isinstance(refused.value, Unavailable)
            assert "guess" not in str(refused.value)


async def test_a_sink_begins_while_a_server_of_the_cluster_is_down(settings: Settings, tmp_path: Path) -> None:
    """What is there already is not asked of the whole cluster: here of one that the server does not know any more."""
    async with ClickHouseServer(tmp_path / "server", cluster="main") as server:
        clustered = settings.model_copy(update={"clickhouse_url": server.url, "clickhouse_cluster": "main"})
        async with History(clustered) as history:
            identity = await history.tables.identity()
            assert await history.tables.incarnations({("mplp.system.events", 0)}) == {}
    async with ClickHouseServer(tmp_path / "server") as server:
        clustered = clustered.model_copy(update={"clickhouse_url": server.url})
        async with History(clustered) as history:
            assert await history.tables.identity() == identity
            assert await history.tables.incarnations({("mplp.system.events", 0)}) == {}
