"""The kernel with one of its checks switched off, and nothing else changed: what the simulation must catch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from streams.log import fold
from streams.log.appending import Appending
from streams.log.archive import Archive, Leaving
from streams.log.checkpoint import Checkpointer
from streams.log.fenced import FencedLog
from streams.log.fold import LogFold
from streams.log.index import Entry as Place
from streams.log.index import Index
from streams.log.inputs import Inputs
from streams.log.lanes import Lane
from streams.log.memory import Memory
from streams.log.ports import Kept
from streams.log.resting import Resting
from streams.log.rule import FENCED, POSITIONED, ReadersRule, Verdict
from streams.log.snapshot import Checkpoint
from streams.log.types import Entry, Input, Received
from streams.records import InputPosition, LogEvent
from streams.testing.simulation.ports import SimulatedInboxes

Mutation = Callable[[pytest.MonkeyPatch], None]


def fence_is_not_read_back(patch: pytest.MonkeyPatch) -> None:
    """Whoever has appended a fence takes the partition for its own, also when another fence came first."""
    patch.setattr(FencedLog, "_won", lambda self, found, offset, epoch: True)


def epochs_are_not_judged(patch: pytest.MonkeyPatch) -> None:
    """Readers take records of any epoch for valid."""

    def judge(self: ReadersRule, record_type: str, epoch: int | None) -> Verdict:
        if record_type == FENCED:
            if epoch is None or epoch <= self.epoch:
                return Verdict.FENCE_IGNORED
            self.epoch = epoch
            return Verdict.FENCE
        return Verdict.POSITION if record_type == POSITIONED else Verdict.VALID

    patch.setattr(ReadersRule, "judge", judge)


def offset_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    """An append may get any offset."""
    patch.setattr(FencedLog, "_as_expected", lambda self, offset: True)


def sequences_are_not_guarded(patch: pytest.MonkeyPatch) -> None:
    """A batch that lies in the log twice is folded twice."""

    def replay(self: LogFold, event: LogEvent, offset: int) -> Entry | None:
        entry = Entry(event=event, position=InputPosition(topic=self.log, partition=self.view.partition, offset=offset))
        self._apply(entry)
        return entry

    patch.setattr(LogFold, "replay", replay)


def effects_come_first(patch: pytest.MonkeyPatch) -> None:
    """Effects are performed before their events are acknowledged."""

    async def flush(self: Appending, lane: Lane) -> None:
        while True:
            if not lane.waiting:
                lane.idle.set()
                lane.wake.clear()
                await lane.wake.wait()
            batch, records = self._next_batch(lane)
            for waiting in batch:
                await self._after(lane, waiting, self._ports.clock.now_us())
            if records:
                await lane.log.append_encoded(records)
            for _ in batch:
                lane.waiting.popleft()
            lane.advance(lane.log.next_offset)
            self._owned.work.set()

    patch.setattr(Appending, "flush", flush)


def inboxes_are_read_from_their_beginning(patch: pytest.MonkeyPatch) -> None:
    """A new owner does not know how far the inboxes were handled."""
    opened = SimulatedInboxes.open

    async def from_the_beginning(self: SimulatedInboxes, positions: Mapping[str, int]) -> Mapping[str, int]:
        return await opened(self, {})

    patch.setattr(SimulatedInboxes, "open", from_the_beginning)
    patch.setattr(LogFold, "handled", lambda self, topic, offset: False)


def inboxes_are_read_from_their_end(patch: pytest.MonkeyPatch) -> None:
    """A new owner goes on with what comes from here on, as a consumer does that lost its offsets."""
    opened = SimulatedInboxes.open

    async def from_the_end(self: SimulatedInboxes, positions: Mapping[str, int]) -> Mapping[str, int]:
        ends = await opened(self, positions)
        self._positions = dict(ends)
        return ends

    patch.setattr(SimulatedInboxes, "open", from_the_end)


def timers_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    """After a takeover timers fire although inboxes were not read to the end that they had."""
    choose = Inputs.choose

    def hasty(self: Inputs, timer_due_us: int | None, now_us: int) -> Any:
        for source in self.sources.values():
            source.behind = False
        return choose(self, timer_due_us, now_us)

    patch.setattr(Inputs, "choose", hasty)


def effects_are_not_performed_again(patch: pytest.MonkeyPatch) -> None:
    """A new owner does not perform what the log shows as unanswered."""
    patch.setattr(LogFold, "outstanding", lambda self: iter(()))


def checkpoints_are_dated_when_they_are_written(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint names the end of the log at which it is written, not the one at which its states were captured."""
    record = Checkpointer._record

    def late(self: Checkpointer, checkpoint: Checkpoint) -> Kept:
        return record(self, replace(checkpoint, offset=self._lane.done))

    patch.setattr(Checkpointer, "_record", late)


def what_ended_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was parked does not come back when an input asks for it."""
    patch.setattr(Index, "may_have", lambda self, key, time_us: False)


def a_doubt_after_a_rebalance_stops_the_process(patch: pytest.MonkeyPatch) -> None:
    """Found by the simulation: when the broker could not be asked whose the log was, the partition stayed suspended for ever."""

    async def still_ours(self: FencedLog) -> bool:
        return self.held and await self._port.end() == self.next_offset

    patch.setattr(FencedLog, "still_ours", still_ours)


def refusals_of_one_moment_share_an_id(patch: pytest.MonkeyPatch) -> None:
    """Found by the simulation: of two requests refused at one moment after a takeover, readers ignored the second."""

    def origin(input: Input) -> tuple[object, ...]:
        at = input.position if isinstance(input, Received) else None
        return (input.time_us,) if at is None else (at.topic, at.partition, at.offset)

    patch.setattr(fold, "_origin", origin)


def what_was_looked_for_in_vain_stays_absent(patch: pytest.MonkeyPatch) -> None:
    """Found by the simulation: a fact that had been looked for before it was one was not found after a checkpoint: a repeat counted."""

    def forget_facts(self: Memory, facts: list[Place]) -> None:
        for place in facts:
            if place.key not in self.recent:
                self.remembered.pop(place.key, None)

    patch.setattr(Memory, "forget_facts", forget_facts)


def what_rests_is_not_found(patch: pytest.MonkeyPatch) -> None:
    """Whoever names an aggregate that rests finds none."""
    patch.setattr(Archive, "_awake", lambda *_: False)


def what_changes_meanwhile_rests(patch: pytest.MonkeyPatch) -> None:
    """An aggregate leaves memory although it has changed since the round of checkpoints began."""

    def choose(self: Resting, live_bytes: int) -> list[Leaving]:
        view = self._lane.fold.view
        changed, view.changed = view.changed, {}
        try:
            return chosen(self, live_bytes)
        finally:
            view.changed = changed

    chosen = Resting.choose
    patch.setattr(Resting, "choose", choose)


#: Each with the invariant that must have caught it.
MUTATIONS: Mapping[str, tuple[Mutation, str]] = {
    mutation.__name__: (mutation, invariant)
    for mutation, invariant in (
        (fence_is_not_read_back, "decided-once"),
        (epochs_are_not_judged, "void-never-seen"),
        (offset_is_not_compared, "acknowledged-is-kept"),
        (sequences_are_not_guarded, "fold-equals-live"),
        (effects_come_first, "effects-of-valid-events"),
        (inboxes_are_read_from_their_beginning, "decided-once"),
        (inboxes_are_read_from_their_end, "no-input-skipped"),
        (timers_do_not_wait, "timers"),
        (effects_are_not_performed_again, "comes-to-rest"),
        (checkpoints_are_dated_when_they_are_written, "decided-once"),
        (what_ended_is_forgotten, "as-the-oracle"),
        (a_doubt_after_a_rebalance_stops_the_process, "no-defect"),
        (refusals_of_one_moment_share_an_id, "decided-once"),
        (what_was_looked_for_in_vain_stays_absent, "as-the-oracle"),
        (what_rests_is_not_found, "as-the-oracle"),
        (what_changes_meanwhile_rests, "no-defect"),
    )
}
