"""The topic of requests to a user's module."""

from __future__ import annotations

from streams.errors import NotFound
from streams.kafka import Kafka
from streams.topics import BY_NAME, REQUESTS
from streams.topics_apply import WantedTopic, create_topics


async def make_inbox(kafka: Kafka, topic: str) -> None:
    """Creates the topic, if it is missing, with as many partitions as the built-in modules' one. Raises `NotFound` (`topic.unknown`)."""
    async with kafka.admin() as admin:
        described = await admin.describe_topics([kafka.names.physical(REQUESTS)])
        partitions = len(described[0]["partitions"])
        if not partitions:
            raise NotFound("topic.unknown", f"There is no topic {REQUESTS}.", advice="Run `mplp topics apply`.")
        wanted = WantedTopic(
            name=kafka.names.physical(topic),
            partitions=partitions,
            replication=kafka.settings.replication_factor,
            config=BY_NAME[REQUESTS].config(),
        )
        await create_topics(admin, [wanted])
