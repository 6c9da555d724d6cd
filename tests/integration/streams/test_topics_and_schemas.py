"""Topics and schemas on a real broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.codec.avro import Codec, local_schemas
from streams.codec.registry import connect_codec, load_schemas, read_store, register
from streams.errors import InvalidInput, Unavailable
from streams.kafka import Kafka
from streams.settings import Settings
from streams.testing.controls import FULL
from streams.topics import BY_NAME, CONTROL_RULES, DELIVERIES, SYSTEM_EVENTS
from streams.topics_apply import AppliedTopics, apply_topics, create_topics, read_configs, wanted_topics

pytestmark = pytest.mark.broker


async def test_apply_creates_the_catalogue_as_it_says_and_a_second_time_nothing(kafka: Kafka, topics: AppliedTopics) -> None:
    again = await apply_topics(kafka)
    assert set(topics.created) >= {kafka.names.physical(name) for name in BY_NAME}
    assert (again.created, again.changed, again.differences) == ((), (), ())
    assert set(again.unchanged) == {topic.name for topic in wanted_topics(kafka)}
    assert again.schemas == topics.schemas
    async with kafka.admin() as admin:
        described = {topic["topic"]: topic for topic in await admin.describe_topics(list(again.unchanged))}
        configs = await read_configs(admin, list(again.unchanged))
    for topic in BY_NAME.values():
        name = kafka.names.physical(topic.name)
        assert len(described[name]["partitions"]) == (1 if topic.single_partition else 4)
        assert {setting: configs[name][setting].value for setting in topic.config()} == topic.config()
    assert len(described[kafka.settings.schemas_topic]["partitions"]) == 1
    assert configs[kafka.settings.schemas_topic]["cleanup.policy"].value == "compact"


async def until_config(admin: AIOKafkaAdminClient, topic: str, setting: str, value: str) -> None:
    """Brokers learn of a change from the controller a moment after it is acknowledged."""
    async with asyncio.timeout(180):
        while (await read_configs(admin, [topic]))[topic][setting].value != value:
            await asyncio.sleep(0.02)


async def test_what_is_too_small_is_raised_what_is_larger_stays_and_partitions_are_reported(kafka: Kafka, topics: AppliedTopics) -> None:
    events, rules, deliveries = (kafka.names.physical(name) for name in (SYSTEM_EVENTS, CONTROL_RULES, DELIVERIES))
    year = str(365 * 24 * 3600 * 1000)
    async with kafka.admin() as admin:
        for name, configs in (
            (
                events,
                {"retention.ms": "1000", "max.message.bytes": "100", "segment.ms": "777777", "message.timestamp.type": "LogAppendTime"},
            ),
            (rules, {"cleanup.policy": "delete"}),
            (deliveries, {"retention.ms": year, "max.message.bytes": str(64 * 2**20)}),
        ):
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])
        await until_config(admin, deliveries, "retention.ms", year)
    more = Kafka(kafka.settings.model_copy(update={"partitions": 5}))
    applied = await apply_topics(more)
    expected = {topic.name: topic for topic in wanted_topics(kafka)}
    assert {(found.topic, found.setting, found.actual) for found in applied.changed} == {
        (events, "retention.ms", "1000"),
        (events, "max.message.bytes", "100"),
        (rules, "cleanup.policy", "delete"),
        (rules, "max.message.bytes", "1048588"),  # the request above left it to the broker's default
    }
    assert {found.setting for found in applied.differences} == {"partitions"}
    assert {(found.expected, found.actual) for found in applied.differences} == {("5", "4")}
    assert rules not in {found.topic for found in applied.differences}
    async with kafka.admin() as admin:
        await until_config(admin, rules, "cleanup.policy", "compact")
        configs = await read_configs(admin, [events, rules, deliveries])
    assert configs[events]["retention.ms"].value == expected[events].config["retention.ms"]
    assert configs[events]["segment.ms"].value == "777777"
    assert configs[rules]["cleanup.policy"].value == "compact"
    assert configs[deliveries]["retention.ms"].value == year
    assert (await apply_topics(kafka)).changed == ()


async def test_many_at_once_agree(kafka: Kafka) -> None:
    applied = await asyncio.gather(*(apply_topics(Kafka(kafka.settings)) for _ in range(4)))
    assert len({tuple(sorted(one.schemas.items())) for one in applied}) == 1
    created = [name for one in applied for name in one.created]
    assert len(created) == len(set(created))
    assert set(created) >= {kafka.names.physical(name) for name in BY_NAME}


async def test_ids_are_never_given_twice_however_many_register(kafka: Kafka, topics: AppliedTopics) -> None:
    def schema(number: int) -> str:
        return f'{{"type":"record","name":"Shoe{number}","namespace":"{kafka.settings.topic_prefix}","fields":[]}}'

    subjects = [f"{kafka.settings.topic_prefix}.shoe-{number}-value" for number in range(5)]
    registered = await asyncio.gather(*(register(Kafka(kafka.settings), [(subject, schema(n))]) for n, subject in enumerate(subjects)))
    ids = [versions[0].id for versions in registered]
    assert len(set(ids)) == len(ids)
    store = await read_store(kafka)
    for number, schema_id in enumerate(ids):
        stored = store.by_id(schema_id)
        assert stored is not None
        assert stored.schema == schema(number)
        assert [version.id for version in store.versions(subjects[number])] == [schema_id]


async def test_the_same_codec_everywhere(kafka: Kafka, codec: Codec) -> None:
    other = await connect_codec(Kafka(kafka.settings))
    for record in FULL.values():
        assert other.decode(codec.encode(record)) == record
    ids = await load_schemas(kafka)
    assert set(ids.record_ids) == set(local_schemas())


async def test_a_broker_that_is_away_is_said_so() -> None:
    nowhere = Kafka(Settings(kafka_bootstrap="127.0.0.1:1", topic_prefix="nowhere"))
    for act in (apply_topics, load_schemas, connect_codec):
        with pytest.raises(Unavailable) as caught:
            await act(nowhere)
        assert caught.value.code == "kafka.unreachable"


async def test_a_topic_that_the_broker_refuses_is_said_so(kafka: Kafka) -> None:
    too_many = Kafka(kafka.settings.model_copy(update={"replication_factor": 3}))
    async with too_many.admin() as admin:
        with pytest.raises(Unavailable) as caught:
            await create_topics(admin, wanted_topics(too_many)[:1])
    assert caught.value.code == "topic.not-created"


async def test_before_topics_apply_there_is_advice(kafka: Kafka) -> None:
    with pytest.raises(InvalidInput) as caught:
        await connect_codec(kafka)
    assert caught.value.code == "schema.unregistered"
    assert caught.value.advice == "Run `mplp topics apply`."
