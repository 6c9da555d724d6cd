"""Recorded checkpoints: what earlier owners have written beside their logs, under `tests/golden/checkpoints`, and never written again.

`python -m tests.workloads.checkpoints add SUFFIX` records those of today's shapes as `modules-SUFFIX` and `workflows-SUFFIX`. Their logs
are recorded histories, some cut in the middle and some whole: an owner folds one and writes a checkpoint, the former with room for
everything that lives, the latter with room for nothing, so that it rests. A file holds the log, the states and what left memory.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import structlog

from services.modules.catalogue import OPERATIONS
from services.modules.machine import ModulesMachine
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.store import DefinitionStore
from streams.codec.avro import Codec, SchemaIds, headers_of, local_schemas
from streams.log.checkpoint import Checkpointer
from streams.log.fenced import FencedLog
from streams.log.lanes import Checkpointing, Lane, Ownership, Ports
from streams.log.ports import Outgoing, Stored
from streams.log.snapshot import FORMAT
from streams.log.takeover import take_over
from streams.log.types import Machine
from streams.records import LogEvent, from_micros, to_micros
from streams.testing.memory_log import MemoryBroker, MemoryClock, MemoryEffects, MemoryInboxes, MemoryLog, MemorySnapshots
from streams.topics import PARKED, TopicNames
from tests.workloads import histories, module_histories
from tests.workloads.histories import GOLDEN, keep

FOLDER = GOLDEN / "checkpoints"
#: Ids of today's schemas, where those of an earlier version are known beside them.
_IDS_FROM = 1000


def machines() -> dict[str, Machine[Any]]:
    """The machines whose checkpoints are recorded."""
    return {"modules": ModulesMachine(), "workflows": OrchestratorMachine(DefinitionStore(OPERATIONS), OPERATIONS)}


def versions() -> set[tuple[str, int, str]]:
    """What today's checkpoints are: machine, format, version of its states."""
    return {(name, FORMAT, machine.states.version) for name, machine in machines().items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What an owner of one partition has left behind."""

    story: str
    now_ms: int
    topics: dict[str, list[Stored]]

    def broker(self) -> MemoryBroker:
        """A broker that has it."""
        partitions = {(topic, 0): list(records) for topic, records in self.topics.items()}
        return MemoryBroker(partitions=partitions, now_ms=self.now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file."""

    machine: str
    version: tuple[int, str]
    codec: Codec  #: reads what was written then, and writes what is written today
    found: list[Recorded]


async def owner(
    broker: MemoryBroker, machine: Machine[Any], codec: Codec, checkpointing: Checkpointing | None = None, *, whole: bool = False
) -> tuple[Lane, Checkpointer]:
    """A partition as a new owner has taken it over, and what writes its checkpoints; it decides nothing."""

    def open_log(topic: str, partition: int) -> FencedLog:
        port = MemoryLog(broker, topic)
        return FencedLog(
            None, codec, topic=topic, partition=partition, owner="one", port=port, clock=lambda: from_micros(broker.now_ms * 1000)
        )

    ports = Ports(
        codec=codec, names=TopicNames(), clock=MemoryClock(broker), effects=MemoryEffects(), open_log=open_log,
        open_inboxes=lambda inboxes, partition: MemoryInboxes(broker, inboxes),
        open_snapshots=lambda topic, partition: MemorySnapshots(broker, topic, partition),
        checkpointing=checkpointing or Checkpointing(),
    )  # fmt: skip
    owned = Ownership(0, 1, dict.fromkeys(machine.inboxes, machine.name))
    await take_over(owned, [machine], ports, whole=whole)
    lane = owned.lanes[machine.name]
    return lane, Checkpointer(lane, owned, ports)


# --- reading ----------------------------------------------------------------------------------------------------------


def names() -> list[str]:
    """The names of all files."""
    return sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


def read(name: str) -> Recording:
    """A file."""
    found = orjson.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    released = GOLDEN / "schemas" / found["schemas"]
    then = {number: orjson.loads((released / f"{record}.avsc").read_bytes()) for record, number in found["ids"].items()}
    today = {record: _IDS_FROM + number for number, record in enumerate(local_schemas())}
    schemas = {**then, **{number: local_schemas()[record] for record, number in today.items()}}
    recorded = [
        Recorded(
            story=each["story"], now_ms=each["now_ms"], topics={topic: list(_stored(topic, kept)) for topic, kept in each["topics"].items()}
        )
        for each in found["found"]
    ]
    codec = Codec(SchemaIds(schemas=schemas, record_ids=today))
    return Recording(machine=found["machine"], version=(found["format"], found["version"]), codec=codec, found=recorded)


def _stored(topic: str, kept: Iterable[Sequence[Any]]) -> Iterator[Stored]:
    for offset, timestamp_ms, key, value, headers in kept:
        yield Stored(
            topic=topic, partition=0, offset=offset, timestamp_ms=timestamp_ms, key=key.encode(),
            value=None if value is None else bytes.fromhex(value), headers=[(name, text.encode()) for name, text in headers],
        )  # fmt: skip


# --- recording --------------------------------------------------------------------------------------------------------


def _stories(machine: str) -> Iterator[tuple[str, list[LogEvent]]]:
    """Logs: of the modules the newest history of each story, of the orchestrator those with a name and some of the others."""
    if machine == "workflows":
        every = histories.names()
        by_chance = [name for name in every if name.startswith("random-")]
        for name in sorted(set(every) - set(by_chance[1:]) | set(by_chance[::3])):
            yield name, [event for decision in histories.read(name).decisions for event in decision]
        return
    newest = {name.rpartition("-")[0]: name for name in sorted(module_histories.names())}
    for name in newest.values():
        for number, partition in enumerate(module_histories.read(name)):
            yield f"{name}/{number}", [entry.event for entry in partition.entries]


async def left_behind(machine: Machine[Any], story: str, events: Sequence[LogEvent], live_bytes: int) -> Recorded:
    """What an owner of this log leaves behind."""
    codec, broker = Codec(SchemaIds.local()), MemoryBroker(now_ms=0)
    await owner(broker, machine, codec)  # the log begins with a fence, so that what follows is of its epoch
    for event in events:
        stamped = replace(event, epoch=1)
        broker.now_ms = to_micros(event.time) // 1000
        outgoing = Outgoing(
            key=(event.aggregate_id or "").encode(), value=codec.encode(stamped), headers=headers_of(stamped), timestamp_ms=broker.now_ms
        )
        broker.store(machine.log, 0, [outgoing])
    lane, checkpointer = await owner(broker, machine, codec, Checkpointing(live_bytes=live_bytes))
    await checkpointer.write()
    assert lane.checkpoint_offset
    topics = (machine.log, machine.snapshots, PARKED)
    return Recorded(story=story, now_ms=broker.now_ms, topics={topic: broker.records(topic) for topic in topics})


def record(name: str) -> bytes:
    """The file of today's checkpoints of a machine."""
    machine = machines()[name]
    found = []
    for number, (story, events) in enumerate(_stories(name)):
        cut, live_bytes = (len(events), 0) if number % 2 else (1 + len(events) // 2, Checkpointing().live_bytes)
        found.append(asyncio.run(left_behind(machine, f"{story}@{cut}", events[:cut], live_bytes)))
    released = sorted((GOLDEN / "schemas").iterdir(), key=lambda path: int(path.name.removeprefix("v")))
    content = {
        "machine": name, "format": FORMAT, "version": machine.states.version, "schemas": released[-1].name,
        "ids": SchemaIds.local().record_ids, "found": list(map(_plain, found)),
    }  # fmt: skip
    return gzip.compress(orjson.dumps(content), mtime=0)


def _plain(recorded: Recorded) -> dict[str, Any]:
    topics = {topic: list(map(_kept, records)) for topic, records in recorded.topics.items()}
    return {"story": recorded.story, "now_ms": recorded.now_ms, "topics": topics}


def _kept(stored: Stored) -> list[Any]:
    value = None if stored.value is None else stored.value.hex()
    return [
        stored.offset,
        stored.timestamp_ms,
        (stored.key or b"").decode(),
        value,
        [[name, text.decode()] for name, text in stored.headers],
    ]


def main(arguments: list[str]) -> None:
    """See the module."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    match arguments:
        case ["add", suffix]:
            for name in machines():
                keep(FOLDER, f"{name}-{suffix}", record(name))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
