"""Reads the logs after a chaos run, as any reader does, and holds them against the oracle."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from services.orchestrator.view import fold
from streams import topics
from streams.codec.avro import Codec
from streams.kafka import Kafka, cluster_metadata
from streams.log.kafka_log import read_range
from streams.log.reader import LogReader
from streams.log.rule import Verdict
from streams.records import Record, SystemEvent, WorkflowTransition
from tests.chaos.shapes import Shape

TERMINAL = frozenset({"completed", "failed", "cancelled", "timed_out"})


@dataclass(slots=True)
class Logs:
    """What counts in the logs."""

    stories: dict[str, list[WorkflowTransition]] = field(default_factory=lambda: defaultdict(list))
    emitted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  #: execution → ids of its events
    verdicts: Counter[str] = field(default_factory=Counter)  #: records of the transitions by the reader's verdict

    def open(self) -> list[str]:
        """Executions that have not ended."""
        return [execution for execution, story in self.stories.items() if not any(event.status in TERMINAL for event in story)]


async def read_logs(kafka: Kafka, codec: Codec) -> Logs:
    """Reads transitions and system events whole."""
    found = Logs()
    for topic in (topics.TRANSITIONS, topics.SYSTEM_EVENTS):
        async for record, verdict in _read(kafka, codec, topic):
            if isinstance(record, WorkflowTransition):
                found.verdicts[verdict.value] += 1
                if verdict is Verdict.VALID:
                    found.stories[record.execution_id].append(record)
            elif isinstance(record, SystemEvent) and record.type == "chaos.happened":
                found.emitted[record.subject].add(record.id)
            elif topic == topics.TRANSITIONS:
                found.verdicts[verdict.value] += 1
    return found


async def _read(kafka: Kafka, codec: Codec, topic: str) -> Any:
    name, reader = kafka.names.physical(topic), LogReader(kafka)
    async with kafka.consumer() as consumer:
        metadata = await cluster_metadata(consumer._client)
        for partition in sorted(metadata.partitions_for_topic(name) or ()):
            place = TopicPartition(name, partition)
            end = int((await consumer.end_offsets([place]))[place])
            async with kafka.consumer() as one:
                async for stored in read_range(one, name, partition, 0, end):
                    verdict = reader.judge(name, partition, stored.headers)
                    record: Record | None = codec.decode(stored.value) if stored.value else None
                    yield record, verdict


def faults(logs: Logs, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Everything in which the logs differ from what must be there: one sentence each."""
    for execution, story in logs.stories.items():  # children, too
        yield from (f"{execution}: {fault}" for fault in _broken(story))
    for execution, shape in shapes.items():
        found = logs.stories.get(execution)
        differences = _differences(found, shape, len(logs.emitted.get(execution, ()))) if found else ["it never began"]
        yield from (f"{execution}: {fault}" for fault in differences)


def _broken(story: list[WorkflowTransition]) -> Iterator[str]:
    """What no history may show."""
    if [event.sequence for event in story] != list(range(1, len(story) + 1)):
        yield f"its sequences are {[event.sequence for event in story]}"
    ended = Counter((event.step_id, event.attempt) for event in story if event.type == "step.completed")
    yield from (f"{step} completed {times} times in attempt {attempt}" for (step, attempt), times in ended.items() if times > 1)
    if not any(event.status in TERMINAL for event in story):
        yield f"it has not ended: {story[-1].type} {story[-1].step_id or ''}"


def _differences(story: list[WorkflowTransition], shape: Shape, emitted: int) -> Iterator[str]:
    view, expected = fold(story), shape.expected
    for name in ("status", "output"):
        if view[name] != expected[name]:
            yield f"its {name} is {view[name]!r} instead of {expected[name]!r}"
    if view.get("compensated", False) != expected["compensated"]:
        yield f"compensated is {view.get('compensated', False)!r} instead of {expected['compensated']!r}"
    if emitted != len(expected["events"]):
        yield f"it has {emitted} events instead of {len(expected['events'])}"
    for name, step in expected["steps"].items():
        found = view["steps"].get(name, {"status": "pending", "attempts": 0, "result": None})
        for part in ("status", "attempts", "result"):
            if found[part] != step[part]:
                error = f" ({found['error']})" if found.get("error") else ""
                yield f"{part} of {name} is {found[part]!r} instead of {step[part]!r}{error}"
