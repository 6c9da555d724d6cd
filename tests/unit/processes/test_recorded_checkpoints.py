"""What earlier owners have written beside their logs: a takeover of today begins with it, or folds the log, and knows the same."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from streams.log.archive import Archive
from streams.log.lanes import Lane
from streams.log.memory import NotInMemory
from streams.log.types import Machine
from streams.testing.memory_log import MemoryBroker
from streams.topics import PARKED
from tests.workloads import checkpoints
from tests.workloads.checkpoints import Recorded, Recording, machines, owner
from tests.workloads.histories import checksums

NAMES = checkpoints.names()
ADVICE = "record those of today: python -m tests.workloads.checkpoints add SUFFIX"


async def knows_what_the_log_says(recording: Recording, recorded: Recorded, broker: MemoryBroker) -> Lane:
    """Takes over; the owner knows of everything what one knows who folds the log, also of what left memory."""
    machine = machines()[recording.machine]
    told, _ = await owner(recorded.broker(), machine, recording.codec, whole=True)
    lane, _ = await owner(broker, machine, recording.codec)
    archive = Archive(lane, recording.codec)
    lane.fold.view.time_us = recorded.now_ms * 1000
    for aggregate_id, state in told.fold.view.aggregates.items():
        with contextlib.suppress(NotInMemory):
            lane.fold.view.state(aggregate_id)
            assert aggregate_id in lane.fold.view.aggregates
        if aggregate_id not in lane.fold.view.aggregates:
            await archive.load(NotInMemory("aggregate", aggregate_id))
        assert lane.fold.view.aggregates.get(aggregate_id) == state, f"{recorded.story}: {aggregate_id}"
        assert lane.fold.view.sequences[aggregate_id] == told.fold.view.sequences[aggregate_id]
    assert lane.fold.view.aggregates.keys() == told.fold.view.aggregates.keys()
    assert (lane.fold.positions, lane.fold.time_us) == (told.fold.positions, told.fold.time_us)
    return lane


@pytest.mark.parametrize("name", NAMES)
async def test_a_takeover_knows_what_the_log_says_whatever_lies_beside_it(name: str) -> None:
    recording = checkpoints.read(name)
    is_of_today = (recording.machine, *recording.version) in checkpoints.versions()
    for recorded in recording.found:
        lane = await knows_what_the_log_says(recording, recorded, recorded.broker())
        assert (lane.folded == 0) == is_of_today, (
            f"{recorded.story}: {'a checkpoint of today is used' if is_of_today else 'another is not'}"
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["states", "states and what left memory"])
async def test_checkpoints_of_other_shapes_are_not_read(name: str, kind: str) -> None:
    """As a version finds them that has other states: the version that stands in each of them is changed, and nothing can be read by it."""
    recording = checkpoints.read(name)
    machine: Machine[Any] = machines()[recording.machine]
    version = recording.version[1].encode()
    topics = [machine.snapshots, PARKED] if kind != "states" else [machine.snapshots]
    for recorded in recording.found[::7]:
        broker = recorded.broker()
        for topic in topics:
            records = broker.records(topic)
            records[:] = [
                type(each)(
                    topic=each.topic, partition=0, offset=each.offset, timestamp_ms=each.timestamp_ms, key=each.key,
                    value=each.value and each.value.replace(version, b"0" * len(version)), headers=each.headers,
                )
                for each in records
            ]  # fmt: skip
        lane = await knows_what_the_log_says(recording, recorded, broker)
        assert lane.folded > 0, "the log was folded"


def test_what_is_recorded_is_never_written_again() -> None:
    listed, found = checksums(checkpoints.FOLDER, NAMES)
    assert found == listed


def test_the_checkpoints_that_are_written_today_are_recorded() -> None:
    recorded = {(recording.machine, *recording.version) for recording in map(checkpoints.read, NAMES)}
    assert sorted(checkpoints.versions() - recorded) == [], ADVICE
