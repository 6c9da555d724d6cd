"""When a run of the stages has come to its end, and what must be true then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from streams.correlation.chain import Chain
from streams.correlation.checkpoint import CheckpointReader
from streams.correlation.index import Hit
from streams.correlation.partition import CorrelatePartition
from streams.correlation.rules import ActiveRule, aggregate_of
from streams.faust_app.correlate_stage import Owner
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent
from streams.testing.simulation.loop import Life
from streams.testing.simulation.stages.rules import TOLD
from streams.testing.simulation.stages.watch import StageWatch, Truth, Version, content
from streams.topics import COMPOSITES, INTERNAL_SNAPSHOTS, MATCHES, SYSTEM_EVENTS, TRANSITIONS, partition_of

if TYPE_CHECKING:
    from streams.testing.simulation.stages.world import StageWorld


def unmatched(world: StageWorld) -> list[str]:
    """Source records of which the partitions of matches have not heard, and rules that some worker does not know."""
    found = []
    for topic in (SYSTEM_EVENTS, TRANSITIONS):
        for number in range(world.partitions[topic]):
            end = world.broker.partition(topic, number).end
            for truth in world.watch.truths:
                reached = truth.reached.get((topic, number), 0)
                if reached < end:
                    found.append(f"{topic}/{number} is matched up to {reached} of {end}, as matches {truth.number} knows")
    return found


def closing_us(world: StageWorld) -> int:
    """An event time at which everything is decided."""
    rules = [active.rule for active in world.watch.versions.values()]
    return world.sources.latest_us + sum(rule.timespan_us + rule.gap_us + rule.grace_us for rule in rules) // 2 + 40_000_000


def unsaid(world: StageWorld, end_us: int) -> list[str]:
    """What must still happen for all composites to be said."""
    found = []
    for truth in world.watch.truths:
        engine = truth.fold.engine
        for level in sorted({engine.level(active.id) for active in engine.rules()} | {0}):
            behind_us = end_us - engine.clocks_us[level]
            if behind_us > 0:
                found.append(f"the clock of matches {truth.number}, level {level}, is {behind_us} us behind")
        if len(truth.said) < len(truth.expected):
            found.append(f"composites {truth.number}: {len(truth.said)} of {len(truth.expected)} are said")
        owners = owners_of(world, truth.number)
        if len(owners) != 1:
            found.append(f"matches {truth.number} has {len(owners)} owners")
        elif owners[0].position < truth.offset - 50:
            found.append(f"matches {truth.number}: its owner is at {owners[0].position} of {truth.offset}")
    return found + list(world.watch.acts.unfinished())


def owners_of(world: StageWorld, partition: int) -> list[Owner]:
    """Who has a partition, of all running workers."""
    return [
        process.worker._owners[partition]
        for process in world.all
        if process.loop.life is Life.RUNNING and partition in process.worker._owners and process.worker._owners[partition]._taken
    ]


def differences(world: StageWorld, end_us: int) -> Iterator[tuple[str, str]]:
    """What is wrong at the end of a run, as (invariant, message)."""
    yield from _not_fed(world)
    for message in world.watch.chain.unmatched():
        yield "none-is-missing", message
    yield from _as_one_sequence(world, end_us)
    for truth in world.watch.truths:
        yield from _restored_differs(world, truth)
    for process in world.all:
        for fault in process.loop.faults:
            yield "no-defect", f"{process.name}: {fault!r}"


# --- every record counts ----------------------------------------------------------------------------------------------


def _not_fed(world: StageWorld) -> Iterator[tuple[str, str]]:
    """From its first record of a source partition on a version is fed all that it matches there.

    Where it begins may differ from one partition of matches to another: records from before the change may be read again after it.
    """
    watch = world.watch
    for rule_id, version in watch.latest.items():
        if version not in watch.versions:
            continue  # it was deleted
        fed = watch.fed[version]
        for place, source in watch.sources.items():
            begun: set[int] = set()
            for offset, plain in zip(source.offsets, source.plains, strict=True):
                for key in watch.groups(version, place[0], plain):
                    number = partition_of(aggregate_of(rule_id, key), len(watch.truths))
                    if plain["id"] in fed:
                        begun.add(number)
                    elif rule_id in watch.fixed or number in begun:
                        yield "none-is-missing", f"{rule_id} was not fed {plain['id']} of {place[0]}/{place[1]}@{offset}"


# --- as if there was one partition and one worker ---------------------------------------------------------------------


class _OnlyFed(Chain):
    """A chain whose rules read what they were fed in time: what came too late does not count."""

    def __init__(self, rules: list[ActiveRule], world: StageWorld) -> None:
        super().__init__(rules)
        fed, read = world.watch.fed, world.watch.chain.read
        index: Any = self.index
        hits = index.hits

        def was_fed(version: Version, topic: str | None, record_id: str) -> bool:
            return record_id in read[version] if topic == COMPOSITES else fed[version].get(record_id) == "used"

        def only_fed(topic: str | None, view: RecordView) -> list[Hit]:
            return [hit for hit in hits(topic, view) if was_fed((hit.active.id, hit.active.order), topic, view.plain["id"])]

        index.hits = only_fed


def _as_one_sequence(world: StageWorld, end_us: int) -> Iterator[tuple[str, str]]:
    """What stands in the end is what one engine says of the same records in the order of their times."""
    watch = world.watch
    rules = _comparable(watch)
    chain = _OnlyFed(rules, world)
    found = sorted(watch.records.values(), key=lambda each: (each[2]["time"], each[:2]))
    told: list[CompositeEvent] = []
    for arrival, (place, _, plain) in enumerate(found):
        told += chain.advance(plain["time"])
        told += chain.record(place[0], RecordView(plain), arrival)
    for _ in range(2):
        told += chain.flush()
    told += chain.advance(end_us)
    expected = standing(told)
    versions = {(active.id, active.version) for active in rules}
    stands = standing([each for truth in watch.truths for each in truth.said if (each.rule_id, each.rule_version) in versions])
    for composite_id in sorted(expected.keys() | stands.keys()):
        one, other = expected.get(composite_id), stands.get(composite_id)
        if one == other:
            continue
        known = one or other
        assert known is not None
        names = [name for name in known if one is None or other is None or one[name] != other[name]]
        where = f"{known['rule_id']} {composite_id[:8]}"
        yield "as-one-sequence", f"{where}: by one sequence {_shown(one, names)}, by the stages {_shown(other, names)}"


def _comparable(watch: StageWatch) -> list[ActiveRule]:
    """The rules of whose records one sequence can be made.

    Not those that read what actions emit: such events have equal times, and one that is told twice has two places. And not those that read
    composites of a rule that was changed: which of its versions had said them, nobody can tell in the end.
    """
    latest = [watch.versions[version] for version in watch.latest.values() if version in watch.versions]
    left = {active.id: active for active in latest if {"type": TOLD} not in active.rule.document["events"].values()}
    while unclear := {
        rule_id
        for rule_id, active in left.items()
        if any(above in watch.latest and (above not in watch.fixed or above not in left) for above in active.rule.upstream)
    }:
        left = {rule_id: active for rule_id, active in left.items() if rule_id not in unclear}
    return list(left.values())


def standing(said: list[CompositeEvent]) -> dict[str, dict[str, Any]]:
    """What is true after all revisions, by id."""
    last: dict[str, CompositeEvent] = {}
    for composite in said:
        if composite.id not in last or last[composite.id].revision < composite.revision:
            last[composite.id] = composite
    return {each.id: {**content(each), "revision": 0} for each in last.values() if not each.retracted}


def _shown(composite: dict[str, Any] | None, names: list[str]) -> str:
    return "it is not said" if composite is None else str({name: composite[name] for name in names})


# --- a takeover at the end --------------------------------------------------------------------------------------------


def _restored_differs(world: StageWorld, truth: Truth) -> Iterator[tuple[str, str]]:
    """Whoever took over now, from what compaction left of the snapshots, would have the state of the uninterrupted fold."""
    codec = world.watch._codec
    world.broker.compact(INTERNAL_SNAPSHOTS, truth.number)
    reader = CheckpointReader(truth.number)
    for stored in world.broker.partition(INTERNAL_SNAPSHOTS, truth.number).records:
        key = (stored.key or b"").decode()
        if "correlate/" in key:
            reader.read(key, None if stored.value is None else codec.decode_raw(stored.value)[1]["state"])
    loaded = reader.loaded()
    restored, start = CorrelatePartition(), 0
    if loaded is not None:
        restored.load(loaded.state)
        for (rule_id, group_key), kept in loaded.groups.items():
            if kept["state"] is not None:
                restored.engine.load_group(rule_id, group_key, kept["state"])
        start = loaded.matches_offset
    matches = world.broker.partition(MATCHES, truth.number)
    for stored in matches.between(start, matches.end, matches.end):
        name, plain = codec.decode_raw(stored.value)
        restored.apply(name, plain, stored.timestamp_ms * 1000)
    for name, one, other in _states(truth.fold, restored):
        yield "replay-equals-live", f"matches {truth.number}, from {start} on: {name} is {other}, without a takeover {one}"


def _states(live: CorrelatePartition, restored: CorrelatePartition) -> Iterator[tuple[str, Any, Any]]:
    one, other = live.dump(), restored.dump()
    for name in one:
        if _sorted(one[name]) != _sorted(other[name]):
            yield name, one[name], other[name]
    for group in sorted({*live.engine.groups(), *restored.engine.groups()}):
        left, right = live.engine.dump_group(*group), restored.engine.dump_group(*group)
        if left != right:
            yield str(group), left, right


def _sorted(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, list) else value
