"""The appender's promise: same bytes after what may pass, sequences without holes, everything else raised."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    DuplicateSequenceNumber,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    RequestTimedOutError,
)
from aiokafka.record.default_records import DefaultRecordBatch

from streams import limits
from streams.log import kafka_appender
from streams.log.kafka_appender import BATCH_BYTES_MAX, SEQUENCES, KafkaAppender
from streams.log.ports import BatchTooLarge, Outgoing


class Broker:
    """In place of the client: keeps the batches that were sent, and answers with the codes and offsets that it is given."""

    def __init__(self, *answers: tuple[int, int] | Exception) -> None:
        self.answers = deque(answers)
        self.sent: list[bytes] = []
        self.cluster = SimpleNamespace(leader_for_partition=lambda place: 1)
        self.closed = False

    async def send(self, node: int, request: Any) -> Any:
        (_, ((partition, batch),)) = request._topics[0]
        self.sent.append(bytes(batch))
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(topics=[("log", [(partition, answer[0], answer[1], -1, 0)])])

    async def force_metadata_update(self) -> bool:
        return True

    async def close(self) -> None:
        self.closed = True


def records(count: int, size: int = 10) -> list[Outgoing]:
    return [Outgoing(key=b"key", value=b"x" * size, headers=[("name", b"value")], timestamp_ms=1000 + number) for number in range(count)]


def appender(broker: Broker) -> KafkaAppender:
    client: Any = broker
    return KafkaAppender(client, "log", 0, producer_id=7, producer_epoch=3)


def state_of(batch: bytes) -> tuple[int, int, int, int]:
    """Producer id, epoch, first sequence and number of records of a batch."""
    read = DefaultRecordBatch(batch)
    return read.producer_id, read.producer_epoch, read.base_sequence, len(list(read))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_appender, "RETRY_PAUSE_S", 0.0)


async def test_sequences_count_records_without_holes() -> None:
    """Given three appends, when each is acknowledged, then each begins where the records of the one before ended."""
    broker = Broker((0, 100), (0, 103), (0, 104))
    ours = appender(broker)
    assert [await ours.append(records(count)) for count in (3, 1, 2)] == [100, 103, 104]
    assert [state_of(batch) for batch in broker.sent] == [(7, 3, 0, 3), (7, 3, 3, 1), (7, 3, 4, 2)]


@pytest.mark.parametrize("passing", [RequestTimedOutError(), (NotLeaderForPartitionError.errno, -1), (NotEnoughReplicasError.errno, -1)])
async def test_after_what_may_pass_the_same_bytes_are_sent_again(passing: Any) -> None:
    """Given a broker that does not answer or is no leader at first, when it takes the batch, then it is the one that was sent before."""
    broker = Broker(passing, (0, 5), (0, 7))
    ours = appender(broker)
    assert await ours.append(records(2)) == 5
    assert broker.sent[0] == broker.sent[1]
    await ours.append(records(1))
    assert state_of(broker.sent[2])[2] == 2


async def test_a_repeat_of_which_the_broker_does_not_know_the_place_has_no_offset() -> None:
    """Given a batch that the broker has had, when it does not say where it lies, then the offset is -1, which nobody expects."""
    assert await appender(Broker((DuplicateSequenceNumber.errno, -1))).append(records(1)) == -1


async def test_what_does_not_pass_is_raised_at_once() -> None:
    """Given a sequence that the broker refuses, when a batch is appended, then it is sent once and the error is raised."""
    broker = Broker((OutOfOrderSequenceNumber.errno, -1))
    with pytest.raises(OutOfOrderSequenceNumber):
        await appender(broker).append(records(1))
    assert len(broker.sent) == 1


async def test_what_is_too_large_is_not_sent() -> None:
    """Given more than a batch holds, when it is appended, then nothing goes to the broker, and the next append begins at sequence 0."""
    broker = Broker((0, 0))
    ours = appender(broker)
    with pytest.raises(BatchTooLarge):
        await ours.append(records(BATCH_BYTES_MAX // limits.PAYLOAD_BYTES_MAX + 1, size=limits.PAYLOAD_BYTES_MAX))
    assert broker.sent == []
    await ours.append(records(1))
    assert state_of(broker.sent[0])[2] == 0


async def test_sequences_begin_anew_after_31_bits() -> None:
    """Given the last sequence number but one, when three records are appended, then the next batch begins at 1."""
    broker = Broker((0, 0), (0, 3))
    ours = appender(broker)
    ours._sequence = SEQUENCES - 2
    await ours.append(records(3))
    await ours.append(records(1))
    assert state_of(broker.sent[1])[2] == 1


async def test_closing_twice_closes_once() -> None:
    """Given an appender, when it is closed twice, then its client is closed."""
    broker = Broker()
    ours = appender(broker)
    await ours.close()
    broker.closed = False
    await ours.close()
    assert not broker.closed
