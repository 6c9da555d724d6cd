"""Confluent's own client reads what our codec wrote, from a real topic, through our registry over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastapi import FastAPI

from services.gateway.registry import MEDIA_TYPE, router
from streams import topics
from streams.codec.avro import Codec, headers_of, local_schemas, schema_text, to_json
from streams.codec.registry import connect_codec, load_schemas, register_schemas
from streams.codec.subjects import subject_of
from streams.kafka import Kafka
from streams.records import Record, iso
from streams.testing.controls import FULL, LEAST
from streams.topics_apply import AppliedTopics

pytestmark = pytest.mark.broker


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The app on a free loopback port; gives its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@pytest.fixture
async def registry(kafka: Kafka, topics: AppliedTopics) -> AsyncIterator[str]:
    app = FastAPI()
    app.include_router(router(kafka))
    async with served(app) as url:
        yield url


@pytest.fixture
async def http(registry: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=registry) as client:
        yield client


def topic_of(record: Record) -> topics.Topic:
    return next(topic for topic in topics.CATALOGUE if type(record) in topic.records)


def plain(value: Any) -> Any:
    """What Confluent's deserialiser gives, as JSON: times as text, bytes as text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return iso(value) if hasattr(value, "astimezone") else value


def parsed(value: dict[str, Any]) -> dict[str, Any]:
    """The same with the payloads parsed, which lie as text in the record."""
    found = {**plain(value), "data": orjson.loads(value["data"])}
    if "insights" in found:
        found["insights"] = [{**insight, "data": orjson.loads(insight["data"])} for insight in found["insights"]]
    return found


def consume(bootstrap: str, url: str, topic: str, count: int) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topic}-reader", "enable.auto.commit": False})
    with SchemaRegistryClient({"url": url}) as client, contextlib.closing(consumer):
        deserialise = AvroDeserializer(client)
        partitions = sorted(consumer.list_topics(topic, 10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        values = []
        while len(values) < count:
            message = consumer.poll(20)
            assert message is not None, f"only {len(values)} of {count} records came"
            assert message.error() is None
            values.append(deserialise(message.value(), SerializationContext(topic, MessageField.VALUE, message.headers())))
        return values


async def test_confluents_deserialiser_reads_every_record(kafka: Kafka, codec: Codec, registry: str) -> None:
    # Given a full and a least record of every type, in topics that they belong to,
    records = {name: [FULL[name], LEAST[name]] for name in FULL}
    by_topic: dict[str, list[Record]] = {}
    async with kafka.producer() as producer:
        for pair in records.values():
            topic = kafka.names.physical(topic_of(pair[0]).name)
            for record in pair:
                await producer.send_and_wait(topic, codec.encode(record), key=b"key", headers=headers_of(record), partition=0)
                by_topic.setdefault(topic, []).append(record)
    for topic, expected in by_topic.items():
        # when Confluent's client reads a topic from its beginning,
        values = await asyncio.to_thread(consume, kafka.settings.bootstrap_servers(), registry, topic, len(expected))
        # then it has what was written.
        assert [parsed(value) for value in values] == [to_json(record) for record in expected]


async def test_confluents_serialiser_writes_what_we_read(kafka: Kafka, codec: Codec, registry: str) -> None:
    event = FULL["SystemEvent"]
    _, value = codec.decode_raw(codec.encode(event))
    value["time"] = event.time
    context = SerializationContext(kafka.names.physical(topics.SYSTEM_EVENTS), MessageField.VALUE)

    def write() -> bytes | None:
        with SchemaRegistryClient({"url": registry}) as client:
            serialise = AvroSerializer(client, schema_text(local_schemas()["SystemEvent"]), conf={"auto.register.schemas": False})
            return serialise(value, context)

    written = await asyncio.to_thread(write)
    assert written is not None
    assert codec.decode(written) == event


async def test_confluents_client_registers_and_is_refused_what_does_not_fit(kafka: Kafka, registry: str) -> None:
    subject = f"{kafka.settings.topic_prefix}.shoes-value"

    def shoe(kind: str, *more: dict[str, Any]) -> Schema:
        return Schema(
            orjson.dumps(
                {
                    "type": "record",
                    "name": f"Shoe_{subject}".replace(".", "_").replace("-", "_"),
                    "fields": [{"name": "size", "type": kind}, *more],
                }
            ).decode(),
            "AVRO",
        )

    def use(client: SchemaRegistryClient) -> None:
        number = client.register_schema(subject, shoe("int"))
        assert client.register_schema(subject, shoe("int")) == number
        wider = shoe("int", {"name": "laces", "type": "boolean", "default": True})
        assert client.test_compatibility(subject, wider)
        assert not client.test_compatibility(subject, shoe("string"))
        assert client.register_schema(subject, wider) > number
        assert client.get_versions(subject) == [1, 2]
        latest = client.get_latest_version(subject)
        assert (latest.version, latest.schema.schema_str) == (2, wider.schema_str)
        assert client.lookup_schema(subject, shoe("int")).schema_id == number
        assert client.get_version(subject, 1).schema_id == number
        assert subject in client.get_subjects()
        with pytest.raises(SchemaRegistryError) as caught:
            client.register_schema(subject, shoe("string"))
        assert caught.value.http_status_code == 409
        with pytest.raises(SchemaRegistryError) as caught:
            client.get_latest_version("no-such-subject")
        assert caught.value.error_code == 40401

    with SchemaRegistryClient({"url": registry}) as client:
        await asyncio.to_thread(use, client)
    assert number_of(await load_schemas(kafka), subject) == 2


def number_of(ids: Any, subject: str) -> int:
    name = f"Shoe_{subject}".replace(".", "_").replace("-", "_")
    return sum(1 for schema in ids.schemas.values() if isinstance(schema, dict) and schema.get("name") == name)


async def test_a_registry_by_url_serves_as_well_as_our_topic(kafka: Kafka, codec: Codec, registry: str) -> None:
    elsewhere = Kafka(
        kafka.settings.model_copy(update={"schema_registry_url": registry, "topic_prefix": f"{kafka.settings.topic_prefix}x"})
    )
    versions = await register_schemas(elsewhere)
    assert await register_schemas(elsewhere) == versions
    remote = await connect_codec(elsewhere)
    for record in FULL.values():
        assert remote.encode(record) == codec.encode(record)
        assert remote.decode(codec.encode(record)) == record


async def test_a_gateway_with_a_registry_elsewhere_leads_there(kafka: Kafka, registry: str) -> None:
    app = FastAPI()
    app.include_router(router(Kafka(kafka.settings.model_copy(update={"schema_registry_url": registry}))))
    async with served(app) as url, httpx.AsyncClient(base_url=url, follow_redirects=True) as http:
        assert (await http.get("/schemas/ids/1")).json()["schema"]
        assert (await http.get("/subjects?subjectPrefix=mplp.F")).json() == ["mplp.Fence"]


async def test_reading_says_what_the_catalogue_registered(kafka: Kafka, codec: Codec, http: httpx.AsyncClient) -> None:
    subjects = (await http.get("/subjects")).json()
    for topic in topics.CATALOGUE:
        for record in topic.records:
            subject = subject_of(topic, record, kafka.names)
            assert subject in subjects
            latest = (await http.get(f"/subjects/{subject}/versions/latest")).json()
            assert latest["id"] == codec.schema_id(record.__name__)
            by_id = await http.get(f"/schemas/ids/{latest['id']}")
            assert by_id.headers["content-type"] == MEDIA_TYPE
            assert orjson.loads(by_id.json()["schema"]) == local_schemas()[record.__name__]
            assert (await http.get(f"/schemas/ids/{latest['id']}/schema")).json() == local_schemas()[record.__name__]
            assert subject in (await http.get(f"/schemas/ids/{latest['id']}/subjects")).json()
            uses = (await http.get(f"/schemas/ids/{latest['id']}/versions")).json()
            assert {"subject": subject, "version": latest["version"]} in uses
    assert (await http.get("/config")).json() == {"compatibilityLevel": "FULL_TRANSITIVE"}
    assert (await http.get("/schemas/types")).json() == ["AVRO"]
    assert (await http.get("/subjects", params={"subjectPrefix": "mplp.Fe"})).json() == ["mplp.Fence"]


SHOE = '{"type":"record","name":"Shoe","fields":[]}'


REFUSALS: list[tuple[str, str, Any, int, int]] = [
    ("GET", "/subjects/none/versions", None, 404, 40401),
    ("GET", "/subjects/none/versions/latest", None, 404, 40401),
    ("GET", "/subjects/mplp.Fence/versions/99", None, 404, 40402),
    ("GET", "/subjects/mplp.Fence/versions/first", None, 422, 42202),
    ("GET", "/subjects/mplp.Fence/versions/0", None, 422, 42202),
    ("GET", "/schemas/ids/2000000000", None, 404, 40403),
    ("GET", "/schemas/ids/one", None, 404, 40403),
    ("GET", "/config/none", None, 404, 40408),
    ("POST", "/subjects/none", {"schema": SHOE}, 404, 40401),
    ("POST", "/subjects/mplp.Fence", {"schema": SHOE}, 404, 40403),
    ("POST", "/subjects/mplp.Fence/versions", {"schema": SHOE}, 409, 409),
    ("POST", "/subjects/shoes-value/versions", {"schema": "{"}, 422, 42201),
    ("POST", "/subjects/shoes-value/versions", {"schema": {"type": "string"}}, 422, 42201),
    ("POST", "/subjects/shoes-value/versions", {"schema": '"nonsense"'}, 422, 42201),
    ("POST", "/subjects/shoes-value/versions", {"schema": SHOE, "schemaType": "PROTOBUF"}, 422, 42201),
    ("POST", "/subjects/shoes-value/versions", [], 422, 42201),
    ("POST", "/compatibility/subjects/none/versions/latest", {"schema": SHOE}, 404, 40401),
    ("PUT", "/config/shoes-value", {"compatibility": "SOME"}, 422, 42203),
]


async def test_refusals_are_confluents(http: httpx.AsyncClient) -> None:
    for method, path, body, status, code in REFUSALS:
        answer = await http.request(method, path, content=None if body is None else orjson.dumps(body))
        assert (answer.status_code, answer.json()["error_code"]) == (status, code), (method, path, body)
        assert answer.json()["message"]
        assert answer.headers["content-type"] == MEDIA_TYPE


async def test_a_broker_that_is_away_is_confluents_store_error(kafka: Kafka) -> None:
    app = FastAPI()
    app.include_router(router(Kafka(kafka.settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"}))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        answer = await http.get("/subjects")
    assert (answer.status_code, answer.json()["error_code"]) == (500, 50001)
