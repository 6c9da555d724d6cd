"""Recorded histories of the modules' log: what earlier versions have written, under `tests/golden/modules`, and never written again.

`python -m tests.workloads.module_histories add SUFFIX [STORY…]` records every story of `module_stories`, or these, with today's shapes
as `STORY-SUFFIX`, `… show NAME` prints one. A file holds what each partition has written, the bytes of each record with what the log
meant then: how the record has changed the state of its aggregate, when its timer is due, and what a new owner would send again.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from services.modules.catalogue import EVERY
from services.modules.machine import ModulesMachine
from services.modules.operation import adapter, types_of
from services.modules.settling import Settled
from services.modules.states import ModuleState
from streams.codec.avro import Codec, SchemaIds, to_json
from streams.log.types import Entry
from streams.records import InputPosition, Json, LogEvent, ModuleMessage, SystemEvent
from streams.topics import MESSAGES
from tests.unit.modules.world import World
from tests.workloads.histories import FRAME, GOLDEN, keep

FOLDER = GOLDEN / "modules"
MACHINE = ModulesMachine()
KINDS: Mapping[str, type[ModuleMessage] | type[SystemEvent]] = {"ModuleMessage": ModuleMessage, "SystemEvent": SystemEvent}


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """What one partition has written, in order, and after each record the facts; null: it concerns no state."""

    entries: list[Entry]
    meant: list[Json]


def meaning(entries: Iterable[Entry]) -> Iterator[Json]:
    """What each record means for its aggregate: its whole state as JSON (null: there is none), due timer and outstanding effects."""
    states: dict[str, ModuleState] = {}
    for entry in entries:
        aggregate = entry.event.aggregate_id
        if aggregate is None or not entry.event.sequence:
            yield None
            continue
        after = MACHINE.evolve(states.get(aggregate), entry)
        if after is None:
            states.pop(aggregate, None)
            yield {"aggregate": aggregate, "state": None, "due": None, "outstanding": []}
            continue
        states[aggregate] = after
        yield {
            "aggregate": aggregate,
            "state": to_jsonable_python(after),
            "due": MACHINE.due(after),
            "outstanding": [send.record.id for send in MACHINE.outstanding(after)],
        }


def _changes(meant: Iterable[Json]) -> Iterator[Json]:
    """The same, with nothing but the fields of the state that are others than before."""
    states: dict[str, dict[str, Json]] = {}
    for each in meant:
        if each is None or each["state"] is None:
            if each is not None:
                states.pop(each["aggregate"], None)
            yield each
            continue
        before, after = states.get(each["aggregate"], {}), each["state"]
        states[each["aggregate"]] = after
        yield {**each, "state": {name: value for name, value in after.items() if name not in before or before[name] != value}}


def _whole(changes: Iterable[Json]) -> Iterator[Json]:
    """Undoes `_changes`."""
    states: dict[str, dict[str, Json]] = {}
    for each in changes:
        if each is None or each["state"] is None:
            if each is not None:
                states.pop(each["aggregate"], None)
            yield each
            continue
        after = states[each["aggregate"]] = {**states.get(each["aggregate"], {}), **each["state"]}
        yield {**each, "state": after}


@cache
def _codec(version: str, kind: str) -> Codec:
    schema = orjson.loads((GOLDEN / "schemas" / version / f"{kind}.avsc").read_bytes())
    return Codec(SchemaIds(schemas={1: schema}, record_ids={}))


def names() -> list[str]:
    """The names of all recorded histories."""
    return sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


def read(name: str) -> list[Partition]:
    """A recorded history."""
    found = orjson.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))

    def entry(partition: int, offset: int, kind: str, body: str) -> Entry:
        event = _codec(found["schemas"], kind).decode(FRAME + bytes.fromhex(body))
        assert isinstance(event, KINDS[kind])
        return Entry(event=event, position=InputPosition(topic=MESSAGES, partition=partition, offset=offset))

    return [
        Partition(
            entries=[entry(number, offset, *each) for offset, each in enumerate(partition["records"])],
            meant=list(_whole(partition["meant"])),
        )
        for number, partition in enumerate(found["partitions"])
    ]


# --- shapes -----------------------------------------------------------------------------------------------------------

_CLASSES: Mapping[str, type[Any]] = {
    event_type: event_class for module in EVERY.values() for event_class in module.events for event_type in types_of(event_class)
}


def written_today() -> set[str]:
    """The shapes that records of modules have: their types, and `Class.field` of each class of events and what these consist of."""
    found = {Settled.TYPE, *_CLASSES}
    for event_class in set(_CLASSES.values()):
        schema = _schema(event_class)
        for name, part in (*schema.get("$defs", {}).items(), (event_class.__name__, schema)):
            found |= {f"{name}.{field}" for field in part.get("properties", {})}
    return found


def shapes(events: Iterable[LogEvent]) -> set[str]:
    """The shapes that these records have."""
    found: set[str] = set()
    for event in events:
        if isinstance(event, SystemEvent):
            found.add(event.type)
            if event.type in _CLASSES:
                schema = _schema(_CLASSES[event.type])
                found |= set(_fields(_CLASSES[event.type].__name__, schema, schema.get("$defs", {}), event.data))
    return found


@cache
def _schema(event_class: type[Any]) -> dict[str, Any]:
    return adapter(event_class).json_schema(mode="serialization")


def _fields(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], value: Json) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = definitions[name]
    for each in schema.get("anyOf", ()):
        yield from _fields(name, each, definitions, value)
    if isinstance(value, dict):
        for field, part in schema.get("properties", {}).items():
            if field in value:
                yield f"{name}.{field}"
                yield from _fields(name, part, definitions, value[field])
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            yield from _fields(name, schema["items"], definitions, item)


# --- recording --------------------------------------------------------------------------------------------------------


def record(world: World) -> bytes:
    """The file of what the modules of `world` have written."""
    codec = Codec(SchemaIds.local())
    released = sorted((GOLDEN / "schemas").iterdir(), key=lambda path: int(path.name.removeprefix("v")))
    partitions = [
        {
            "records": [[type(entry.event).__name__, codec.encode(entry.event)[len(FRAME) :].hex()] for entry in runner.log],
            "meant": list(_changes(meaning(runner.log))),
        }
        for runner in world.modules
    ]
    return gzip.compress(orjson.dumps({"schemas": released[-1].name, "partitions": partitions}), mtime=0)


def add(name: str, world: World) -> None:
    """Records a history under a new name. Raises `FileExistsError`: what exists is never written again."""
    keep(FOLDER, name, record(world))


def main(arguments: list[str]) -> None:
    """See the module."""
    from tests.workloads.module_stories import STORIES

    match arguments:
        case ["add", suffix, *wanted]:
            for name in wanted or STORIES:
                add(f"{name}-{suffix}", STORIES[name]())
        case ["show", name]:
            for partition in read(name):
                for entry in partition.entries:
                    sys.stdout.write(orjson.dumps(to_json(entry.event)).decode() + "\n")
                sys.stdout.write("\n")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
