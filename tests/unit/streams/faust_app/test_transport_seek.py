"""The transport when the group shares its partitions anew in the middle of a seek."""

from __future__ import annotations

import pytest
from aiokafka.errors import IllegalStateError, KafkaConnectionError
from faust.types import TP

from streams.faust_app.transport import Consumer


class Seeking(Consumer):
    """A consumer of which only the seek is there."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.sought = 0

    async def perform_seek(self) -> None:
        self.sought += 1
        raise self.error


@pytest.mark.parametrize("error", [IllegalStateError("No current assignment for partition"), AssertionError("No partitions are assigned")])
async def test_a_seek_that_a_rebalance_overtakes_is_left_to_the_next_assignment(error: Exception) -> None:
    consumer = Seeking(error)
    await consumer.seek_again()
    assert consumer.sought == 1


async def test_any_other_failure_ends_the_worker() -> None:
    with pytest.raises(KafkaConnectionError):
        await Seeking(KafkaConnectionError("away")).seek_again()


class Looking(Consumer):
    """A consumer of a partition that was just assigned: it has no position yet."""

    def __init__(self) -> None:
        pass

    def assignment(self) -> set[TP]:
        return {TP("topic", 0)}

    def verify_event_path(self, now: float, tp: TP) -> None:
        raise AssertionError


async def test_a_partition_without_a_position_crashes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "should_stop", False)
    await Looking().verify_all_partitions_active()
