"""Checkpoints of a correlate partition: which records make one, and how one is found again. Pure.

A checkpoint is a set of group snapshots and, written after them, one record that completes it. Each group has two slots and
writes them in turn, so that an unfinished checkpoint never overwrites what the last complete one needs: a reader takes, of the
two, the newest that is not newer than the complete checkpoint. The first checkpoint of an owner (an epoch) has all groups, later
ones those that changed; when the first is complete, the records of earlier epochs are tombstoned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import orjson

from streams.records import Json

#: Of the state in a checkpoint. One of another format is not used: what it would have told is folded from the matches again.
FORMAT = 2

Group = tuple[str, str]  #: (rule, group key)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the snapshots topic: key, aggregate and state; `state` None: a tombstone."""

    key: str
    aggregate_id: str
    state: bytes | None


@dataclass(slots=True)
class Loaded:
    """What a successor finds."""

    epoch: int
    number: int
    matches_offset: int  #: first offset of the matches partition that is not in the state
    composites_offset: int  #: where the composites log is read from
    state: Json
    groups: dict[Group, Json] = field(default_factory=dict)  #: {"state": …, "sequence": …}


def checkpoint_key(epoch: int, partition: int) -> str:
    """Key of the record that completes a checkpoint."""
    return f"{epoch}/checkpoint/correlate/{partition}"


def _group_key(epoch: int, partition: int, slot: int, group: Group) -> str:
    return f"{epoch}/correlate/{partition}/{slot}/{group[0]}/{group[1]}"


class CheckpointWriter:
    """Makes the records of one owner's checkpoints. Nothing is counted as written before `completed`."""

    def __init__(self, epoch: int, partition: int) -> None:
        self._epoch = epoch
        self._partition = partition
        self._number = 0
        self._slots: dict[Group, int] = {}  # group → slot of its last complete write
        self._gone: set[Group] = set()  # groups whose last complete write says that nothing is left
        self._writing: dict[Group, bool] = {}  # group → whether something is left of it

    def groups(self, contents: Iterable[tuple[Group, Json]]) -> Iterator[Entry]:
        """The snapshots of the changed groups, as they are asked for; content None: nothing is left of the group."""
        self._writing = {}
        for group, content in contents:
            slot = 1 - self._slots.get(group, 1)
            self._writing[group] = content is not None
            state = {"number": self._number + 1, "rule": group[0], "group": group[1], "content": content}
            aggregate = f"correlate/{self._partition}/{group[0]}/{group[1]}"
            yield Entry(_group_key(self._epoch, self._partition, slot, group), aggregate, orjson.dumps(state))

    def completion(self, *, matches_offset: int, composites_offset: int, state: Json) -> Entry:
        """The record that completes the checkpoint, to be written after all others are acknowledged."""
        content = {"format": FORMAT, "number": self._number + 1, "matches": matches_offset, "composites": composites_offset, "state": state}
        return Entry(checkpoint_key(self._epoch, self._partition), f"checkpoint/correlate/{self._partition}", orjson.dumps(content))

    def completed(self) -> list[Entry]:
        """The checkpoint is acknowledged; the tombstones that may now be written."""
        self._number += 1
        tombstones = []
        for group in sorted(self._gone - self._writing.keys()):
            # The older write first: whoever sees only one of the two tombstones must not find it alone.
            last = self._slots.pop(group)
            tombstones += [Entry(_group_key(self._epoch, self._partition, slot, group), "", None) for slot in (1 - last, last)]
        self._gone -= {group for group in self._gone if group not in self._slots}
        for group, left in self._writing.items():
            self._slots[group] = 1 - self._slots.get(group, 1)
            (self._gone.discard if left else self._gone.add)(group)
        self._writing = {}
        return tombstones


class CheckpointReader:
    """Finds the last complete checkpoint among the records of a partition of the snapshots topic."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._completions: dict[int, Json] = {}
        self._groups: dict[str, tuple[int, Json]] = {}  # key → (epoch, state)

    def read(self, key: str, state: bytes | None) -> None:
        """The next record of the topic."""
        epoch_text, _, rest = key.partition("/")
        if not epoch_text.isdigit():
            return
        if key == checkpoint_key(int(epoch_text), self._partition):
            if state is None:
                self._completions.pop(int(epoch_text), None)
            else:
                self._completions[int(epoch_text)] = orjson.loads(state)
        elif rest.startswith(f"correlate/{self._partition}/"):
            if state is None:
                self._groups.pop(key, None)
            else:
                self._groups[key] = (int(epoch_text), orjson.loads(state))

    def loaded(self) -> Loaded | None:
        """The complete checkpoint of the highest epoch; None: there is none, or another version of this product wrote it."""
        if not self._completions:
            return None
        epoch = max(self._completions)
        content = self._completions[epoch]
        if content.get("format") != FORMAT:
            return None
        found = Loaded(epoch, content["number"], content["matches"], content["composites"], content["state"])
        newest: dict[Group, int] = {}
        for of, state in self._groups.values():
            group = (state["rule"], state["group"])
            if of == epoch and newest.get(group, 0) < state["number"] <= found.number:
                newest[group] = state["number"]
                if state["content"] is None:
                    found.groups.pop(group, None)
                else:
                    found.groups[group] = state["content"]
        return found

    def keys_before(self, epoch: int) -> list[str]:
        """Keys of everything that owners before `epoch` wrote: tombstoned once `epoch` has a complete checkpoint of its own."""
        older = [key for key, (of, _) in self._groups.items() if of < epoch]
        return older + [checkpoint_key(of, self._partition) for of in self._completions if of < epoch]
