"""What lies in a topic of snapshots, and which checkpoint a takeover may use. Pure.

Keys: `<epoch>/<aggregate id>` for the state of an aggregate, `<epoch>/checkpoint/<partition>` for a checkpoint,
`fence/<log>/<partition>/<epoch>` for an entry of the index of fences. So an owner overwrites nothing of another epoch.

A state is written only when every event in it is acknowledged, so it is true whoever wrote it; what a zombie can do is to
write an *old* truth, or to delete what it takes for outdated. Hence the rules of `usable`:

1. The checkpoint with the highest epoch comes first. Its epoch must have been in force at its offset X, by the index of fences, and
   (checked by the takeover, which reads it) by the record before X in the log itself.
2. States count that lie under the epochs that the checkpoint names (a zombie may have written others since), of each aggregate the one
   with the highest offset; an owner that goes on with a checkpoint of the epoch right before its own, and in which nothing rests, may
   leave its states where they are, any other writes all of them anew.
3. A state may be newer than X (the next checkpoint was under way): events of the log that it contains already are not folded again.
4. What the checkpoint names as gone is no state. What is left must be as many as the checkpoint says.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.errors import InvalidInput
from streams.log.freeze import StateFormat

SNAPSHOTTED = "aggregate.snapshotted"  #: type of a state
PARKED = "aggregate.parked"  #: type of a state that left memory
RESTED = "aggregates.rested"  #: type of a block of states that rest
INDEXED = "log.indexed"  #: type of a segment of an index
CHECKPOINTED = "log.checkpointed"  #: type of a checkpoint
#: Raised when the content of checkpoints changes. One of the first format names nothing that rests; one of a later format is not used.
FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """An aggregate as it is kept."""

    state: Any  #: None: nothing but its sequence is left
    sequence: int  #: of its last event
    born: int  #: offset of its first event
    since: int  #: offset from which on it was in memory without a break


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The fold of a log partition before `offset`, without the states of its aggregates."""

    epoch: int
    offset: int
    time_us: int  #: of the latest decision
    positions: Mapping[str, int]  #: highest offset handled, per input topic (name on the broker)
    live: int  #: how many aggregates have a state in the topic of snapshots
    gone: tuple[str, ...] = ()  #: aggregates that are no more, though a state of them may still lie there
    epochs: tuple[int, ...] = ()  #: epochs under which the states lie
    parked: tuple[tuple[int, int], ...] = ()  #: segments of the index of parked aggregates: place and entries
    facts: tuple[tuple[int, int], ...] = ()  #: segments of the index of remembered facts
    resting: tuple[tuple[int, int], ...] = ()  #: segments of the index of aggregates that rest
    rested: tuple[int, int, int] = (0, 0, 0)  #: see `memory.Rested`


def dump_state(format_: StateFormat[Any], frozen: Frozen) -> bytes:
    """The `state` of a `Snapshot`."""
    state = None if frozen.state is None else format_.dump(frozen.state)
    return orjson.dumps([format_.version, frozen.sequence, frozen.born, frozen.since, state], option=orjson.OPT_NON_STR_KEYS)


#: Where the state itself stands in the JSON value that `dump_state` wrote.
STATE_AT = 4


def load_state(format_: StateFormat[Any], raw: bytes) -> Frozen:
    """What `dump_state` wrote. Raises `InvalidInput` (`snapshot.version`, `snapshot.unreadable`)."""
    try:
        content = orjson.loads(raw)
    except ValueError as error:
        raise InvalidInput("snapshot.unreadable", f"A snapshot is not what it should be: {error}") from error
    return thawed(format_, content)


def thawed(format_: StateFormat[Any], content: Any) -> Frozen:
    """What `dump_state` wrote, from its JSON value. Raises as `load_state`."""
    try:
        version, sequence, born, since, state = content
    except (ValueError, TypeError) as error:
        raise InvalidInput("snapshot.unreadable", f"A snapshot is not what it should be: {error}") from error
    if version != format_.version:
        raise InvalidInput("snapshot.version", f"A snapshot has the format {version}, this version reads {format_.version}.")
    return Frozen(state=None if state is None else format_.load(state), sequence=sequence, born=born, since=since)


def dump_block(states: Iterable[tuple[str, bytes]]) -> bytes:
    """The `state` of a block's `Snapshot`: ids with what `dump_state` gave."""
    return zlib.compress(orjson.dumps([[aggregate_id, orjson.Fragment(raw)] for aggregate_id, raw in states]), 1)


def load_block(raw: bytes) -> list[tuple[str, Any]]:
    """What `dump_block` wrote: ids with JSON values for `thawed`."""
    found: list[tuple[str, Any]] = orjson.loads(zlib.decompress(raw))
    return found


def numbers_of(raw: bytes) -> tuple[int, int]:
    """Last sequence and first event's offset of a state, whatever its version."""
    _, sequence, born, _, _ = orjson.loads(raw)
    return sequence, born


def dump_checkpoint(checkpoint: Checkpoint, version: str) -> bytes:
    """The `state` of a checkpoint's `Snapshot`; epoch and offset are fields of that record."""
    content = {
        "format": FORMAT, "version": version, "time_us": checkpoint.time_us, "positions": dict(checkpoint.positions),
        "live": checkpoint.live, "gone": checkpoint.gone, "epochs": checkpoint.epochs, "parked": checkpoint.parked,
        "facts": checkpoint.facts, "resting": checkpoint.resting, "rested": checkpoint.rested,
    }  # fmt: skip
    return orjson.dumps(content)


def load_checkpoint(epoch: int, offset: int, raw: bytes, version: str) -> Checkpoint:
    """What `dump_checkpoint` wrote. Raises `InvalidInput` (`snapshot.version`, `snapshot.unreadable`)."""
    try:
        content = orjson.loads(raw)
        if content["format"] not in (1, FORMAT) or content["version"] != version:
            raise InvalidInput("snapshot.version", f"A checkpoint has the format {content['format']}/{content['version']}.")
        return Checkpoint(
            epoch=epoch, offset=offset, time_us=content["time_us"], positions=content["positions"], live=content["live"],
            gone=tuple(content["gone"]), epochs=tuple(content["epochs"]),
            parked=tuple((place, entries) for place, entries in content["parked"]),
            facts=tuple((place, entries) for place, entries in content["facts"]),
            resting=tuple((place, entries) for place, entries in content.get("resting", ())),
            rested=tuple(content.get("rested", (0, 0, 0))),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput("snapshot.unreadable", f"A checkpoint is not what it should be: {error!r}") from error


def state_key(epoch: int, aggregate_id: str) -> str:
    """Key of an aggregate's state."""
    return f"{epoch}/{aggregate_id}"


def checkpoint_key(epoch: int, partition: int) -> str:
    """Key of a checkpoint."""
    return f"{epoch}/checkpoint/{partition}"


@dataclass(slots=True)
class Shelf:
    """What one partition of a topic of snapshots holds for one log, as it is read."""

    log: str
    partition: int
    fences: dict[int, int] = field(default_factory=dict)  #: offset in the log, by epoch
    checkpoints: dict[int, tuple[str, int, bytes]] = field(default_factory=dict)  #: key, offset and content, by epoch
    states: dict[str, dict[int, tuple[int, bytes]]] = field(default_factory=dict)  #: by aggregate and epoch: offset and content

    def fence(self, epoch: int, offset: int) -> None:
        """Takes an entry of the index of fences."""
        self.fences[epoch] = offset

    def take(self, record_type: str, plain: Mapping[str, Any], key: str) -> None:
        """Takes a `Snapshot`, as plain fields."""
        if plain["log"] != self.log or plain["partition"] != self.partition:
            return
        if record_type == CHECKPOINTED:
            self.checkpoints[plain["epoch"]] = (key, plain["offset"], plain["state"])
        elif record_type == SNAPSHOTTED:
            self.states.setdefault(plain["aggregate_id"], {})[plain["epoch"]] = (plain["offset"], plain["state"])

    def epoch_before(self, offset: int) -> int:
        """The epoch in force before an offset of the log."""
        return max((epoch for epoch, at in self.fences.items() if at < offset), default=0)

    def candidates(self) -> list[int]:
        """Epochs of the checkpoints that may be used, the highest first (rule 1)."""
        return [
            epoch
            for epoch, (_, offset, _) in sorted(self.checkpoints.items(), reverse=True)
            if epoch in self.fences and self.epoch_before(offset) == epoch
        ]

    def keys(self) -> Iterable[str]:
        """All keys of states and checkpoints."""
        yield from (key for key, _, _ in self.checkpoints.values())
        yield from (state_key(epoch, aggregate) for aggregate, states in self.states.items() for epoch in states)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """A checkpoint with its states."""

    checkpoint: Checkpoint
    states: Mapping[str, Frozen]
    contained: Mapping[str, int]  #: of states newer than the checkpoint: the offset before which they have everything
    kept: Mapping[str, int]  #: the epoch under which each state lies
    sizes: Mapping[str, int]  #: bytes of each state


def usable(shelf: Shelf, epoch: int, format_: StateFormat[Any]) -> Usable:
    """The checkpoint of an epoch with its states (rules 2 to 4). Raises `InvalidInput` (`snapshot.…`) if it cannot be used."""
    _, offset, raw = shelf.checkpoints[epoch]
    checkpoint = load_checkpoint(epoch, offset, raw, format_.version)
    gone = frozenset(checkpoint.gone)
    states: dict[str, Frozen] = {}
    contained: dict[str, int] = {}
    kept: dict[str, int] = {}
    sizes: dict[str, int] = {}
    found = 0
    for aggregate_id, by_epoch in shelf.states.items():
        newest = max(((at, of) for of, (at, _) in by_epoch.items() if of in checkpoint.epochs), default=None)
        if newest is None or (aggregate_id in gone and newest[0] <= offset):
            continue
        at, of = newest
        frozen = load_state(format_, by_epoch[of][1])
        states[aggregate_id], kept[aggregate_id], sizes[aggregate_id] = frozen, of, len(by_epoch[of][1])
        if at > offset:
            contained[aggregate_id] = at
        # What had gone by X and came back while the next checkpoint was under way is not among those that this one has.
        found += frozen.since < offset and aggregate_id not in gone
    if found != checkpoint.live:
        raise InvalidInput("snapshot.missing", f"A checkpoint has {checkpoint.live} states, {found} are there.")
    return Usable(checkpoint=checkpoint, states=states, contained=contained, kept=kept, sizes=sizes)
