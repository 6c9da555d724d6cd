"""Many events and deliveries written together are those that are written one by one, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.bus.mass_partitions import partitions_for
from streams.errors import TooLarge
from streams.masses import many_derived_ids
from streams.records import SystemEvent, derived_id, new_id, to_micros
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


def tasks_of(events: Sequence[SystemEvent], transforms: Any, put_back: bool, route_id: str = "r") -> list[Task]:
    """Of those that become an event; the last may be one that was put back."""
    made_by, found = plan(*transforms, route_id=route_id), []
    for offset, event in enumerate(events, 95):
        seen, view = seen_of(event, offset)
        made = made_by.made(view, seen.depth, seen.known)
        if isinstance(made, Made):
            found.append(Task(seen, made_by, made, LETTER if put_back and offset == 94 + len(events) else None))
    return found


MANY = st.lists(EVENTS | EVENTS.map(lambda event: SystemEvent(id="", type=event.type, data=event.data)), max_size=6)


def one_by_one(tasks: Sequence[Task], route_id: str) -> dict[int, tuple[list[int], list[bytes]]]:
    writer = EventWriter(CODEC, route_id, "mplp.from/2")
    found: dict[int, tuple[list[int], list[bytes]]] = {}
    for task in tasks:
        assert isinstance(task.outcome, Made)
        partition, body = writer.write(task, task.outcome, PARTITIONS)
        offsets, bodies = found.setdefault(partition, ([], []))
        offsets.append(task.seen.offset)
        bodies.append(body)
    return found


def together(tasks: Sequence[Task], route_id: str, partitions: int = PARTITIONS) -> dict[int, tuple[list[int], list[bytes]]]:
    written = EventWriter(CODEC, route_id, "mplp.from/2").write_all(tasks, partitions)
    for _, bodies in written.values():
        assert bodies.sizes == list(map(len, bodies)), "what a batch says of their sizes is so"
    return {partition: (offsets, list(bodies)) for partition, (offsets, bodies) in written.items()}


@given(events=MANY.filter(bool), transforms=st.sampled_from(TRANSFORMS), put_back=st.booleans())
def test_events_together_are_those_one_by_one(events: list[SystemEvent], transforms: Any, put_back: bool) -> None:
    """Also with what they have alike at hand: of the same route, of others, of some of the same events, for other partitions."""
    tasks = {name: tasks_of(events, transforms, put_back, name) for name in ("r", "other")}
    if not tasks["r"]:
        return
    wanted = {name: one_by_one(each, name) for name, each in tasks.items()}
    shared = tasks_of(events, transforms, put_back, "r")
    others = [Task(task.seen, tasks["other"][0].plan, task.outcome, task.redriven) for task in shared]
    assert together(shared, "r") == wanted["r"]
    assert together(shared, "r") == wanted["r"]
    assert together(others, "other") == wanted["other"]
    assert together(others[:1], "other") == one_by_one(tasks["other"][:1], "other")
    assert together(others[:1] + others[2:], "other") == one_by_one(tasks["other"][:1] + tasks["other"][2:], "other")
    assert set(together(others, "other", 1)) == {0}
    assert together(others, "other") == wanted["other"]
    assert [task.delivery_id for task in others] == [task.delivery_id for task in tasks["other"]]


def test_one_event_that_no_topic_takes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tasks_of(
        [SystemEvent(type="t", subject="s"), SystemEvent(type="t", subject="s", data={"text": "x" * 1000})], [], put_back=False
    )
    writer = EventWriter(CODEC, "r", "mplp.from/2")
    writer.write_all(tasks, PARTITIONS)
    monkeypatch.setattr(limits, "TOPIC_MESSAGE_BYTES_MAX", 900)
    with pytest.raises(TooLarge, match="1,"):
        writer.write_all(tasks, PARTITIONS)


@given(events=MANY.filter(bool), transforms=st.sampled_from(TRANSFORMS), put_back=st.booleans(), written=st.booleans())
def test_deliveries_together_are_those_one_by_one(events: list[SystemEvent], transforms: Any, put_back: bool, written: bool) -> None:
    """Those of a route, and of another that has the same records, or some of them; whether their events were written together or not."""
    tasks, time_us, now_ms = tasks_of(events, transforms, put_back), to_micros(NOW), 1234
    if not tasks:
        return
    alone = {task.seen.offset: task for task in tasks_of(events, transforms, put_back)}
    for route_id in ("r", "other"):
        about = plan(route_id=route_id)
        mine = [Task(task.seen, about, task.outcome, task.redriven) for task in tasks]
        if written:
            EventWriter(CODEC, route_id, "mplp.from/2").write_all(mine, PARTITIONS)
        for some in (mine, mine[:1], mine[1:], mine):
            wanted: dict[int, list[bytes]] = {}
            for task in some:
                fresh = Task(alone[task.seen.offset].seen, about, task.outcome, task.redriven)
                latency_ms = float(now_ms - task.seen.timestamp_ms)
                writer = DeliveryWriter(CODEC, about.active, "pre.from", 2, PARTITIONS)
                partition, body = writer.write(fresh, task.attempts + 1, "delivered", None, latency_ms, time_us)
                wanted.setdefault(partition, []).append(body)
            found = DeliveryWriter(CODEC, about.active, "pre.from", 2, PARTITIONS).write_delivered(some, now_ms, time_us) if some else {}
            assert {partition: list(bodies) for partition, bodies in found.items()} == wanted
            assert all(bodies.sizes == list(map(len, bodies)) for bodies in found.values())


def test_what_is_at_hand_is_for_the_very_same_records_only() -> None:
    """As many, the first of which is the same, are others."""
    time_us = to_micros(NOW)
    tasks = tasks_of([SystemEvent(type="t", subject="s", data={"n": n}) for n in range(3)], [], put_back=False)
    for some in (tasks, [tasks[0], tasks[2], tasks[1]], [tasks[0], tasks[2], tasks[2]]):
        alone = [Task(task.seen, task.plan, task.outcome) for task in some]
        assert together(some, "r") == one_by_one(alone, "r")
        found = DeliveryWriter(CODEC, plan().active, "pre.from", 2, 1).write_delivered(some, 7, time_us)
        writer = DeliveryWriter(CODEC, plan().active, "pre.from", 2, 1)
        assert list(found[0]) == [writer.write(task, 1, "delivered", None, 2.0, time_us).body for task in alone]


@given(last=st.lists(st.binary(max_size=60)))
def test_ids_of_many_are_those_of_each(last: list[bytes]) -> None:
    texts = [each.hex() for each in last]
    assert many_derived_ids("route", "r")([text.encode() for text in texts]) == [derived_id("route", "r", text).encode() for text in texts]


@given(keys=st.integers(1, 12).flatmap(lambda size: st.lists(st.binary(min_size=size, max_size=size), max_size=9)) | st.lists(st.binary()))
def test_partitions_of_many_keys_are_those_of_each(keys: list[bytes]) -> None:
    assert partitions_for(keys, PARTITIONS) == [partition_of(key, PARTITIONS) for key in keys]


def test_partitions_of_many_ids_are_those_of_each() -> None:
    ids = [new_id().encode() for _ in range(1000)] + [b"\xff" * 36, bytes(36)]
    assert partitions_for(ids, 2**31) == [partition_of(id, 2**31) for id in ids]
