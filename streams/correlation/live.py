"""The state that the workers hold of a rule, seen from outside: the last checkpoint of a partition and the matches behind it, muted.

It is what a successor would take over now, so it is exact as of the end of the matches; no worker is asked, and none need run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from aiokafka import TopicPartition

from streams.bus.bus import Bus
from streams.correlation.checkpoint import CheckpointReader, Loaded
from streams.correlation.partition import CorrelatePartition
from streams.errors import InvalidInput
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.records import Json
from streams.topics import INTERNAL_SNAPSHOTS, MATCHES


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A partition of the matches topic."""

    partition: int
    offset: int  #: the state is that of all matches before it
    state: CorrelatePartition
    sequences: dict[str, int]  #: group of the rule → composites said until the last checkpoint, revisions included


async def live_state(bus: Bus, partition: int, rule_id: str, rules: Collection[str]) -> Live:
    """The state of `rules` (a rule and those that it reads) in a partition, as of the end of the matches."""
    async with bus.kafka.consumer(**RANGE_OPTIONS) as consumer:
        names = bus.kafka.names
        snapshots, matches = names.physical(INTERNAL_SNAPSHOTS), names.physical(MATCHES)
        ends = await consumer.end_offsets([TopicPartition(snapshots, partition), TopicPartition(matches, partition)])
        reader = CheckpointReader(partition)
        async for stored in read_range(consumer, snapshots, partition, 0, int(ends[TopicPartition(snapshots, partition)])):
            key = (stored.key or b"").decode(errors="replace")
            if _concerns_checkpoint(key, partition, rules):
                reader.read(key, None if stored.value is None else bus.codec.decode_raw(stored.value)[1]["state"])
        loaded = reader.loaded()
        state, start, sequences = CorrelatePartition(), 0, dict[str, int]()
        if loaded is not None:
            start = loaded.matches_offset
            sequences = _load(state, loaded, rule_id, rules)
        end = int(ends[TopicPartition(matches, partition)])
        async for stored in read_range(consumer, matches, partition, start, end):
            if stored.value is None:
                continue
            try:
                name, plain = bus.codec.decode_raw(stored.value)
            except InvalidInput:
                continue  # the workers report it
            # Of a batch of matches those of other rules are passed over: no version of theirs is in use here.
            if name != "RuleChange" or plain["rule_id"] in rules:
                state.apply(name, plain, stored.timestamp_ms * 1000)
    return Live(partition=partition, offset=end, state=state, sequences=sequences)


def _concerns_checkpoint(key: str, partition: int, rules: Collection[str]) -> bool:
    """Whether a snapshot is of this partition's checkpoints, and of these rules if it is of a group (`CheckpointWriter`)."""
    _, _, rest = key.partition("/")
    if rest == f"checkpoint/correlate/{partition}":
        return True
    parts = rest.split("/", 4)
    return len(parts) == 5 and parts[0] == "correlate" and parts[1] == str(partition) and parts[3] in rules


def _load(state: CorrelatePartition, loaded: Loaded, rule_id: str, rules: Collection[str]) -> dict[str, int]:
    content: Json = {
        **loaded.state,
        "rules": [item for item in loaded.state["rules"] if item["document"]["id"] in rules],
        "floors_us": {rule_id: floor_us for rule_id, floor_us in loaded.state["floors_us"].items() if rule_id in rules},
    }
    state.load(content)
    sequences = {}
    for (of, group_key), group in loaded.groups.items():
        if group["state"] is not None:
            state.engine.load_group(of, group_key, group["state"])
        if of == rule_id:
            sequences[group_key] = group["sequence"]
    return sequences
