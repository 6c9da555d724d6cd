"""Many events and deliveries written together are those that are written one by one, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.bus.mass_partitions import partitions_for
from streams.bus.rendering import Rendered
from streams.errors import TooLarge
from streams.records import SystemEvent, new_id, to_micros
from streams.routing.deliveries import DeliveryWriter
from streams.routing.events import EventWriter
from streams.routing.letters import Redriven
from streams.routing.recipes import Made
from streams.routing.tasks import Task
from streams.topics import partition_of
from tests.unit.streams.routing.test_written_by_hand import CODEC, EVENTS, NOW, PARTITIONS, TRANSFORMS, plan, seen_of

LETTER = Redriven(
    letter="x.dlq/0/1", route="r", stage="deliver", topic="x", partition=0, offset=1, attempts=2, first_time="", history=b"", headers=()
)  # fmt: skip


def tasks_of(events: Sequence[SystemEvent], transforms: Any, put_back: bool) -> list[Task]:
    """Of those that become an event; the last may be one that was put back."""
    made_by, found = plan(*transforms), []
    for offset, event in enumerate(events, 95):
        seen, view = seen_of(event, offset)
        made = made_by.made(view, seen.depth, seen.known)
        if isinstance(made, Made):
            found.append(Task(seen, made_by, made, LETTER if put_back and offset == 94 + len(events) else None))
    return found


MANY = st.lists(EVENTS | EVENTS.map(lambda event: SystemEvent(id="", type=event.type, data=event.data)), max_size=6)


@given(events=MANY, transforms=st.sampled_from(TRANSFORMS))
def test_events_together_are_those_one_by_one(events: list[SystemEvent], transforms: Any) -> None:
    tasks = tasks_of(events, transforms, put_back=False)
    alone, together = EventWriter(CODEC, "r", "mplp.from/2"), EventWriter(CODEC, "r", "mplp.from/2")
    wanted: dict[int, list[tuple[int, bytes]]] = {}
    for task in tasks_of(events, transforms, put_back=False):
        assert isinstance(task.outcome, Made)
        partition, body = alone.write(task, task.outcome, PARTITIONS)
        wanted.setdefault(partition, []).append((task.seen.offset, body))
    assert together.write_all(tasks, PARTITIONS) == wanted
    assert together.write_all(tasks, PARTITIONS) == wanted, "also with what they have alike at hand"


def test_one_event_that_no_topic_takes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tasks_of(
        [SystemEvent(type="t", subject="s"), SystemEvent(type="t", subject="s", data={"text": "x" * 1000})], [], put_back=False
    )
    writer = EventWriter(CODEC, "r", "mplp.from/2")
    writer.write_all(tasks, PARTITIONS)
    monkeypatch.setattr(limits, "TOPIC_MESSAGE_BYTES_MAX", 900)
    with pytest.raises(TooLarge, match="1,"):
        writer.write_all(tasks, PARTITIONS)


@given(events=MANY, transforms=st.sampled_from(TRANSFORMS), put_back=st.booleans())
def test_deliveries_together_are_those_one_by_one(events: list[SystemEvent], transforms: Any, put_back: bool) -> None:
    tasks, time_us, now_ms = tasks_of(events, transforms, put_back), to_micros(NOW), 1234
    writer = DeliveryWriter(CODEC, plan().active, "pre.from", 2, PARTITIONS)
    wanted: list[Rendered] = []
    for task in tasks_of(events, transforms, put_back):
        wanted.append(writer.write(task, task.attempts + 1, "delivered", None, float(now_ms - task.seen.timestamp_ms), time_us))
    assert DeliveryWriter(CODEC, plan().active, "pre.from", 2, PARTITIONS).write_delivered(tasks, now_ms, time_us) == wanted


@given(keys=st.integers(1, 12).flatmap(lambda size: st.lists(st.binary(min_size=size, max_size=size), max_size=9)) | st.lists(st.binary()))
def test_partitions_of_many_keys_are_those_of_each(keys: list[bytes]) -> None:
    assert partitions_for(keys, PARTITIONS) == [partition_of(key, PARTITIONS) for key in keys]


def test_partitions_of_many_ids_are_those_of_each() -> None:
    ids = [new_id().encode() for _ in range(1000)] + [b"\xff" * 36, bytes(36)]
    assert partitions_for(ids, 2**31) == [partition_of(id, 2**31) for id in ids]
