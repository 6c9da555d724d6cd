"""`mplp topics apply`: makes the broker and the registry agree with the catalogue, as far as that is safe, and says what differs.

What is missing is created. A setting that is smaller than the catalogue's (retention, message size) is raised, since data would be lost
or refused; one that an operator made larger stays, and is no difference. The partition count and the replication of a topic that exists
are never touched: they are reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from streams.codec.registry import register_schemas
from streams.errors import Unavailable
from streams.kafka import Kafka
from streams.topics import CATALOGUE, DAY_MS, FOREVER, PARKED, Topic

_EXISTS = 36
_TIMEOUT_S = 30.0
#: Sizes and times of which the catalogue gives the least; −1 is without end.
_MINIMUMS = frozenset({"retention.ms", "max.message.bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting of a topic that is not as the catalogue says."""

    topic: str
    setting: str
    expected: str
    actual: str

    def to_dict(self) -> dict[str, str]:
        """As JSON."""
        return {"topic": self.topic, "setting": self.setting, "expected": self.expected, "actual": self.actual}


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTopics:
    """What `apply_topics` found and did; topics by their names on the broker."""

    created: tuple[str, ...]
    unchanged: tuple[str, ...]
    changed: tuple[Difference, ...]  #: were different, are now as expected
    differences: tuple[Difference, ...]  #: still different: cannot be changed on a topic that exists
    schemas: Mapping[str, int]  #: subject → id

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "created": list(self.created),
            "unchanged": list(self.unchanged),
            "changed": [difference.to_dict() for difference in self.changed],
            "differences": [difference.to_dict() for difference in self.differences],
            "schemas": dict(self.schemas),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTopic:
    """A topic as it should be on the broker."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def wanted_topics(kafka: Kafka, catalogue: tuple[Topic, ...] = CATALOGUE) -> list[WantedTopic]:
    """The catalogue under the configured prefix, and the schemas' topic unless a registry elsewhere keeps the schemas."""
    settings = kafka.settings
    wanted = [
        WantedTopic(
            name=kafka.names.physical(topic.name),
            partitions=1 if topic.single_partition else settings.partitions,
            replication=settings.replication_factor,
            config=topic.config() | ({"retention.ms": str(settings.deduplication_window_ms + DAY_MS)} if topic.name == PARKED else {}),
        )
        for topic in catalogue
    ]
    if not settings.schema_registry_url:
        wanted.append(
            WantedTopic(
                name=settings.schemas_topic, partitions=1, replication=settings.replication_factor, config={"cleanup.policy": "compact"}
            )
        )
    return wanted


async def apply_topics(kafka: Kafka) -> AppliedTopics:
    """Creates and verifies the topics of the catalogue and registers the schemas. Repeating it changes nothing.

    Raises `Unavailable` (`kafka.unreachable`, `topic.not-created`, …) and what `register_schemas` raises.
    """
    wanted = wanted_topics(kafka)
    try:
        async with kafka.admin() as admin:
            created = await create_topics(admin, wanted)
            existing = [topic for topic in wanted if topic.name not in created]
            changed, differences = await _verify(admin, existing)
    except KafkaError as error:
        raise kafka.unreachable(error) from error
    schemas = await register_schemas(kafka)
    touched = {difference.topic for difference in (*changed, *differences)}
    return AppliedTopics(
        created=tuple(topic.name for topic in wanted if topic.name in created),
        unchanged=tuple(topic.name for topic in existing if topic.name not in touched),
        changed=tuple(changed),
        differences=tuple(differences),
        schemas={subject: version.id for subject, version in schemas.items()},
    )


async def create_topics(admin: AIOKafkaAdminClient, wanted: list[WantedTopic]) -> set[str]:
    """Creates those that are missing, waits until each partition has a leader, and gives their names."""
    present = set(await admin.list_topics())
    missing = [topic for topic in wanted if topic.name not in present]
    if not missing:
        return set()
    answer = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=dict(topic.config)) for topic in missing]
    )
    created = set()
    for name, code, *message in answer.topic_errors:
        if code == 0:
            created.add(name)
        elif code != _EXISTS:  # somebody else was quicker: then it is verified like every other
            reason = (message[0] if message else None) or for_code(code).__name__
            raise Unavailable("topic.not-created", f"Kafka did not create {name}: {reason}")
    await _wait_for_leaders(admin, {topic.name: topic.partitions for topic in missing})
    return created


async def _wait_for_leaders(admin: AIOKafkaAdminClient, partitions: Mapping[str, int]) -> None:
    """A topic that was just created is unknown to the broker for a moment; who writes to it then is refused."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                described = {topic["topic"]: topic for topic in await admin.describe_topics(list(partitions))}
                if all(_led(described.get(name)) for name in partitions):
                    return
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise Unavailable("topic.not-ready", f"The new topics had no leaders after {_TIMEOUT_S:.0f} s.") from error


def _led(described: Mapping[str, Any] | None) -> bool:
    return bool(
        described
        and described["error_code"] == 0
        and described["partitions"]
        and all(part["leader"] >= 0 for part in described["partitions"])
    )


async def _verify(admin: AIOKafkaAdminClient, existing: list[WantedTopic]) -> tuple[list[Difference], list[Difference]]:
    """What was changed, and what still differs."""
    if not existing:
        return [], []
    described = {topic["topic"]: topic for topic in await admin.describe_topics([topic.name for topic in existing])}
    configs = await read_configs(admin, [topic.name for topic in existing])
    changed: list[Difference] = []
    differences: list[Difference] = []
    for topic in existing:
        differences += _shape_differences(topic, described[topic.name])
        found = config_differences(topic, configs[topic.name])
        if found:
            await _alter(admin, topic, configs[topic.name], found)
        changed += found
    return changed, differences


def _shape_differences(topic: WantedTopic, described: Mapping[str, Any]) -> list[Difference]:
    parts = described["partitions"]
    replication = min((len(part["replicas"]) for part in parts), default=0)
    found = []
    if len(parts) != topic.partitions:
        found.append(Difference(topic=topic.name, setting="partitions", expected=str(topic.partitions), actual=str(len(parts))))
    if replication < topic.replication:
        found.append(Difference(topic=topic.name, setting="replication", expected=str(topic.replication), actual=str(replication)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigValue:
    """One setting of a topic as the broker has it."""

    value: str
    own: bool  #: set on the topic itself, not a default


def config_differences(topic: WantedTopic, actual: Mapping[str, ConfigValue]) -> list[Difference]:
    """The settings that are not as wanted; of the minimums only those that are below."""
    found = []
    for name, expected in topic.config.items():
        value = actual[name].value if name in actual else ""
        if value != expected and not (name in _MINIMUMS and _at_least(value, expected)):
            found.append(Difference(topic=topic.name, setting=name, expected=expected, actual=value))
    return found


def _at_least(actual: str, expected: str) -> bool:
    try:
        have, need = int(actual), int(expected)
    except ValueError:
        return False
    return have == FOREVER or (need != FOREVER and have >= need)


async def read_configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, ConfigValue]]:
    """Settings of topics as the broker has them: topic → setting → value."""
    configs: dict[str, dict[str, ConfigValue]] = {}
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for code, message, _, name, entries in answer.resources:
            if code != 0:
                raise Unavailable("topic.unreadable", f"Kafka does not describe {name}: {message or for_code(code).__name__}")
            configs[name] = {entry[0]: ConfigValue(value=entry[1] or "", own=_is_own(answer, entry)) for entry in entries}
    return configs


def _is_own(answer: Any, entry: tuple[Any, ...]) -> bool:
    # Version 0: (name, value, read_only, is_default, …); from version 1 on: (name, value, read_only, source, …) with 1: set on the topic.
    return not entry[3] if answer.API_VERSION == 0 else entry[3] == 1


async def _alter(admin: AIOKafkaAdminClient, topic: WantedTopic, actual: Mapping[str, ConfigValue], found: list[Difference]) -> None:
    # The request replaces all settings of the topic, so those that others set are repeated.
    settings = {name: value.value for name, value in actual.items() if value.own}
    settings |= {difference.setting: difference.expected for difference in found}
    try:
        answers = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=settings)])
    except KafkaError as error:
        raise Unavailable("topic.not-changed", f"Kafka did not change {topic.name}: {error}") from error
    for answer in answers:
        for code, message, *_ in answer.resources:
            if code != 0:
                raise Unavailable("topic.not-changed", f"Kafka did not change {topic.name}: {message or for_code(code).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """What the broker has of a topic."""

    partitions: int
    records: int  #: offsets between the begin and the end of all partitions: an upper bound for a compacted topic


async def topic_states(kafka: Kafka) -> dict[str, TopicState]:
    """Those topics of the catalogue that exist, by their names on the broker. Raises `Unavailable` (`kafka.unreachable`)."""
    try:
        async with kafka.admin() as admin:
            present = set(await admin.list_topics())
            names = [topic.name for topic in wanted_topics(kafka) if topic.name in present]
            described = await admin.describe_topics(names) if names else []
        partitions = {
            topic["topic"]: [TopicPartition(topic["topic"], part["partition"]) for part in topic["partitions"]] for topic in described
        }
        async with kafka.consumer() as consumer:
            everything = [part for parts in partitions.values() for part in parts]
            consumer.assign(everything)  # so that the client learns where they are
            first, end = await consumer.beginning_offsets(everything), await consumer.end_offsets(everything)
        return {
            name: TopicState(partitions=len(parts), records=sum(end[part] - first[part] for part in parts))
            for name, parts in partitions.items()
        }
    except KafkaError as error:
        raise kafka.unreachable(error) from error
