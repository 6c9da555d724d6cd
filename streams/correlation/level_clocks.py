"""The clocks of rules that read composites: how far the rules that they read have come, in all partitions. Pure.

Each owner of a partition of matches tells, level by level, the clock up to which its rules have said everything, and up to which
offset of its partition of the composites that was (`LevelMark`). The composites themselves come by another way, through a match
stage, so a mark counts here only once the matches of everything before that offset are here: match stages say so in their
watermarks, in which the partitions of the composites stand like other sources.

A mark needs no epoch: it is true whoever wrote it. What a partition has said up to a clock follows from its matches, and an owner
tells only what its log has acknowledged; a former owner that wakes up repeats what is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.records import Json

#: Marks of a partition and level that wait for their composites. Beyond that the newest takes the place of the one before it.
_WAITING_MAX = 16


@dataclass(frozen=True, slots=True)
class LevelMark:
    """The rules of a level have said, in this partition, everything up to this clock, before this offset of the composites."""

    partition: int
    level: int
    clock_us: int
    offset: int


class LevelClocks:
    """What one partition of matches knows of the levels of all partitions."""

    def __init__(self) -> None:
        self._partitions = 0
        self._reached: dict[int, int] = {}  # partition of the composites → offset up to which their matches are here
        self._clocks: dict[tuple[int, int], int] = {}  # (level, partition) → the clock that counts
        self._waiting: dict[tuple[int, int], list[LevelMark]] = {}  # in the order of their offsets

    def reached(self, partition: int, offset: int, *, partitions: int) -> None:
        """The matches of all composites of a partition (of so many) before this offset are here."""
        self._partitions = max(self._partitions, partitions)
        if offset > self._reached.get(partition, -1):
            self._reached[partition] = offset
            for of, marks in self._waiting.items():
                if of[1] == partition:
                    self._count(of, marks)

    def told(self, mark: LevelMark) -> None:
        """An owner has come this far; what is behind what is known changes nothing."""
        of = (mark.level, mark.partition)
        marks = self._waiting.setdefault(of, [])
        if marks and (mark.offset < marks[-1].offset or mark.clock_us <= marks[-1].clock_us):
            return
        if len(marks) == _WAITING_MAX:
            marks.pop()
        marks.append(mark)
        self._count(of, marks)

    def _count(self, of: tuple[int, int], marks: list[LevelMark]) -> None:
        reached = self._reached.get(of[1], -1)
        while marks and marks[0].offset <= reached:
            clock_us = marks.pop(0).clock_us
            self._clocks[of] = max(clock_us, self._clocks.get(of, clock_us))

    def clock(self, level: int) -> int | None:
        """Up to where the rules of a level have said everything, everywhere; None: some partition has not told."""
        if not self._partitions:
            return None
        clocks = [self._clocks.get((level, partition)) for partition in range(self._partitions)]
        known = [clock for clock in clocks if clock is not None]
        return min(known) if len(known) == len(clocks) else None

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        return {
            "partitions": self._partitions,
            "reached": sorted(self._reached.items()),
            "clocks": [[*of, clock_us] for of, clock_us in sorted(self._clocks.items())],
            "waiting": [
                [mark.partition, mark.level, mark.clock_us, mark.offset] for _, marks in sorted(self._waiting.items()) for mark in marks
            ],
        }

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave."""
        self._partitions = state["partitions"]
        self._reached = dict(state["reached"])
        self._clocks = {(level, partition): clock_us for level, partition, clock_us in state["clocks"]}
        self._waiting = {}
        for values in state["waiting"]:
            mark = LevelMark(*values)
            self._waiting.setdefault((mark.level, mark.partition), []).append(mark)
