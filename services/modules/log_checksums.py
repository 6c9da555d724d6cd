"""What a log says of the modules' states, found by walking it from its beginning: to compare owners with what they are to know. Pure.

It shares with the owners what states *are* (`ModulesMachine.evolve`) and nothing of how they come by them: no checkpoints, no snapshots,
nothing parked or resting, no timers, no memory of requests. It also checks what owners rely on: sequences without gaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.modules.hub.checksums import digest_of
from services.modules.machine import ModulesMachine
from streams.errors import Defect
from streams.log.types import Entry
from streams.records import InputPosition, LogEvent

#: Aggregates of a module on a partition, and the sum of their digests.
Sum = tuple[int, int]


@dataclass(slots=True)
class LogChecksums:
    """The fold of one partition of the log. `time_us`: the moment at which its states are compared, microseconds since the epoch.

    From `watched_from` on (an offset) every sum that there has been is kept: an owner that was asked meanwhile knew one of them.
    """

    partition: int
    time_us: int
    watched_from: int
    offset: int = 0  #: after the last event
    _states: dict[str, Any] = field(default_factory=dict)
    _sequences: dict[str, int] = field(default_factory=dict)
    _sums: dict[str, Sum] | None = None
    _seen: dict[str, set[Sum]] = field(default_factory=dict)
    _machine: ModulesMachine = field(default_factory=ModulesMachine)

    def fold(self, event: LogEvent, topic: str, offset: int) -> None:
        """Takes a valid event in. Raises `Defect` (`log.gap`) when events of an aggregate are missing."""
        if offset >= self.watched_from:
            self._watch()
        self.offset = offset + 1
        aggregate_id, sequence = event.aggregate_id, event.sequence
        if aggregate_id is None or not sequence:
            return
        before = self._states.get(aggregate_id)
        known = self._sequences.get(aggregate_id, 0)
        if sequence == 1 and (before is None or self._machine.ended(before) is not None):
            known, before = 0, None  # nothing was left of it, or its window was over: its id is used again
        if sequence <= known:
            return  # a repeat
        if sequence > known + 1:
            raise Defect("log.gap", f"{topic}/{self.partition}@{offset}: sequence {sequence} of {aggregate_id} follows {known}.")
        position = InputPosition(topic=topic, partition=self.partition, offset=offset)
        after = self._machine.evolve(before, Entry(event=event, position=position))
        self._sequences[aggregate_id] = sequence
        if self._sums is not None and after is not before:
            self._count(aggregate_id, self._states.get(aggregate_id), -1)
            self._count(aggregate_id, after, 1)
        if after is None:
            self._states.pop(aggregate_id, None)
        else:
            self._states[aggregate_id] = after

    def seen(self) -> Mapping[str, set[Sum]]:
        """By module, the sums that there have been since `watched_from`; of a module that is missing there was nothing."""
        self._watch()
        return self._seen

    def _watch(self) -> None:
        if self._sums is None:
            self._sums = {}
            for aggregate_id, state in self._states.items():
                self._count(aggregate_id, state, 1, keep=False)
            self._seen = {module: {found} for module, found in self._sums.items()}

    def _count(self, aggregate_id: str, state: Any, times: int, *, keep: bool = True) -> None:
        assert self._sums is not None
        found = digest_of(aggregate_id, state, self.time_us)
        if found is None:
            return
        module, digest = found
        count, total = self._sums.get(module, (0, 0))
        self._sums[module] = (count + times, (total + times * digest) % 2**256)
        if keep:
            self._seen.setdefault(module, {(0, 0)}).add(self._sums[module])
