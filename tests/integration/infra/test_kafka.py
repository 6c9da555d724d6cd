"""The embedded broker for real: it keeps what it acknowledged whatever is killed, it can be moved, and it says why it does not start."""

from __future__ import annotations

from streams.kafka import Kafka


async def test_fixture_broker_takes_and_gives_a_record(kafka: Kafka) -> None:
    from aiokafka.admin import NewTopic

    topic = kafka.names.physical("mplp.trial")
    async with kafka.admin() as admin:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    async with kafka.producer() as producer:
        await producer.send_and_wait(topic, b"value", key=b"key")
    async with kafka.consumer(topic) as consumer:
        record = await consumer.getone()
    assert (record.key, record.value) == (b"key", b"value")
