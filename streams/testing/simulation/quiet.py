"""When a run has come to its end, and what must be true then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from streams.log.fold import LogFold
from streams.log.partition import PartitionRunner
from streams.testing.simulation.loop import Life
from streams.testing.simulation.machines import OUTSIDE
from streams.testing.simulation.process import LOG_TOPICS
from streams.topics import COMMANDS, DEAD_LETTER_SUFFIX, FORWARDED_HEADER, MESSAGES, home_of, partition_of

if TYPE_CHECKING:
    from streams.testing.simulation.world import World


def unfinished(world: World) -> list[str]:
    """What must still happen; empty when everything has come to rest."""
    found: list[str] = []
    if world.client.pending:
        found.append("commands are still to come")
    for partition in range(world.scenario.partitions):
        owners = owners_of(world, partition)
        if len(owners) != 1:
            found.append(f"{partition} is served by {len(owners)} processes")
            continue
        if not _is_given(world, partition, owners[0]):
            found.append(f"{partition} is served by a process that does not know yet that it was given to another")
        for lane in owners[0]._owned.lanes.values():
            if lane.waiting:
                found.append(f"{lane.fold.log}/{partition} has decisions to append")
            for topic in lane.machine.inboxes:
                end = world.broker.partition(topic, partition).end
                if lane.fold.positions.get(topic, -1) + 1 < end:
                    found.append(f"{topic}/{partition} is decided up to {lane.fold.positions.get(topic, -1)} of {end}")
        flows = world.oracle.lanes[LOG_TOPICS[0], partition].model.shown()
        for flow_id, state in flows.items():
            plan, step, status = state[0], state[1], state[-1]
            if status == "running" and not plan[step - 1].startswith("silent"):
                found.append(f"{flow_id} runs step {step} of {plan}")
        counters = world.oracle.lanes[MESSAGES, partition].model
        if not all(counters.has_ended(aggregate_id) for aggregate_id in counters.shown()):
            found.append(f"counters of {partition} have not faded")
    known = [
        flow_id for partition in range(world.scenario.partitions) for flow_id in world.oracle.lanes[LOG_TOPICS[0], partition].model.shown()
    ]
    found += [f"{flow_id} was not started" for flow_id in sorted(world.client.started - set(known))]
    return found


def owners_of(world: World, partition: int) -> list[PartitionRunner]:
    """The runners that serve a partition, in all processes."""
    return [
        process.runners[partition]
        for process in world.all
        if process.loop.life is Life.RUNNING and partition in process.runners and process.runners[partition].serving.is_set()
    ]


def _is_given(world: World, partition: int, owner: PartitionRunner) -> bool:
    """Whether the group has given the partition to this owner: a zombie that has just woken still takes itself for it."""
    process = next(process for process in world.all if process.runners.get(partition) is owner)
    is_member = not world.group.rebalancing and world.group.members.get(process.name) is process.member
    return is_member and partition in process.member.assigned


def differences(world: World) -> Iterator[tuple[str, str]]:
    """What is wrong at the end of a run, as (invariant, message)."""
    for partition in range(world.scenario.partitions):
        for lane in owners_of(world, partition)[0]._owned.lanes.values():
            yield from fold_differs(world, lane.fold)
        yield from _inputs_lost(world, partition)
        yield from _effects_lost(world, partition)
    for process in world.all:
        for fault in process.loop.faults:
            yield "no-defect", f"{process.name}: {fault!r}"


def fold_differs(world: World, fold: LogFold) -> Iterator[tuple[str, str]]:
    """Where an owner's state differs from what the oracle reads in the log."""
    partition = fold.view.partition
    lane = world.oracle.lanes[fold.log, partition]
    expected = lane.model.shown()
    live = {aggregate: shown_state(state) for aggregate, state in fold.view.aggregates.items()}
    where = f"{fold.log}/{partition}"
    for key in sorted(live.keys() | expected.keys()):
        # What ended may be parked, what stays may rest: then it is in memory no more, and what comes for it is decided as if it were.
        if live.get(key) != expected.get(key) and (key in live or lane.model.due(key) is not None or not lane.model.has_ended(key)):
            yield "fold-equals-live", f"{where}: {key} is {live.get(key)}, by the log {expected.get(key)}"
    for key in sorted(fold.view.sequences):
        if fold.view.sequences[key] != lane.sequences.get(key, 0):
            yield "fold-equals-live", f"{where}: {key} is at {fold.view.sequences[key]}, by the log at {lane.sequences.get(key, 0)}"
    timers = {aggregate: due for aggregate in expected if (due := lane.model.due(aggregate)) is not None}
    if dict(fold._due) != timers:
        yield "fold-equals-live", f"{where}: timers are {fold._due}, by the log {timers}"


def shown_state(state: Any) -> Any:
    """A machine's state in the model's words."""
    if hasattr(state, "plan"):
        return (state.plan, state.step, state.attempt, state.since_us, state.told, state.answered, state.status)
    return (state.total, state.since_us)


def _inputs_lost(world: World, partition: int) -> Iterator[tuple[str, str]]:
    oracle = world.oracle
    for lane in (oracle.lanes[topic, partition] for topic in LOG_TOPICS):
        oracle._note_quiet(lane)
        for topic in lane.inboxes:
            for offset, quiet in lane.quiet[topic].items():
                if not quiet:
                    yield "no-input-skipped", f"{topic}/{partition}@{offset} was never decided"
    # What was no input must have gone where it belongs.
    dead = {
        dict(record.headers)["__streams.errors.offset"] for record in oracle.records.get((COMMANDS + DEAD_LETTER_SUFFIX, partition), ())
    }
    for record in oracle.records.get((COMMANDS, partition), ()):
        home = None if record.key is None else partition_of(home_of(record.key.decode()), world.scenario.partitions)
        if home is None or record.value == b"garbage":
            if str(record.offset).encode() not in dead:
                yield "no-input-skipped", f"{COMMANDS}/{partition}@{record.offset} is not among the dead letters"
        elif home != partition:
            arrived = [
                other for other in oracle.records.get((COMMANDS, home), ()) if other.value == record.value and other.key == record.key
            ]
            if not any(name == FORWARDED_HEADER for other in arrived for name, _ in other.headers):
                yield "no-input-skipped", f"{COMMANDS}/{partition}@{record.offset} was not forwarded to {home}"


def _effects_lost(world: World, partition: int) -> Iterator[tuple[str, str]]:
    """Whoever still waits for somebody outside must have asked."""
    for flow_id, state in world.oracle.lanes[LOG_TOPICS[0], partition].model.shown().items():
        if state[-1] != "running":
            continue
        step, attempt = state[1], state[2]
        asked = [
            legit
            for legit in world.oracle.legit.values()
            if legit.topic == OUTSIDE and legit.key == flow_id and legit.record.step_id == str(step) and legit.record.attempt == attempt  # type: ignore[attr-defined]
        ]
        if not asked or asked[0].id not in world.oracle.performed:
            yield "effects-at-least-once", f"{flow_id} waits at step {step}, yet nobody was asked"


__all__ = ["differences", "fold_differs", "owners_of", "shown_state", "unfinished"]
