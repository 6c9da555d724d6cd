"""Identities of topics: a topic that is deleted and made again under its name has another one (KIP-516). aiokafka does not ask for them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import AbstractType, Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_NONE = uuid.UUID(int=0)


class _Uuid(AbstractType[uuid.UUID]):  # type: ignore[misc]  # aiokafka is untyped
    """A UUID as sixteen bytes."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        """As bytes."""
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        """From bytes."""
        return uuid.UUID(bytes=data.read(16))


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), ("tags", TaggedFields)),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString()), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Metadata(Request[_MetadataRequest]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: list[str] | None) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        """The request."""
        topics: list[Any] | None = None if self._topics is None else [(_NONE, topic, {}) for topic in self._topics]
        return request_struct_class(topics, False, False, {})


async def topic_ids(client: AIOKafkaClient, topics: list[str] | None = None) -> Mapping[str, str]:
    """The identities of topics that there are (of all, without `topics`), by name.

    Empty where the broker has none: before Kafka 2.8, and products that speak an older protocol. Raises `KafkaError`.
    """
    failure: KafkaError = KafkaError("No broker is known.")
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    for node in nodes:
        try:
            answer: Any = await client.send(node, _Metadata(topics))
        except (IncompatibleBrokerVersion, RuntimeError):  # the second is how aiokafka says that a broker lacks the version
            return {}
        except KafkaError as error:  # this one may be down: the others know the topics, too
            failure = error
            continue
        return {name: str(topic_id) for code, name, topic_id, *_ in answer.topics if not code and topic_id != _NONE}
    raise failure
