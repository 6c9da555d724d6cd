"""Checks of chaining and of actions, switched off or one step too early: what the simulation of the stages must catch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streams.correlation import engine, partition
from streams.correlation.composites import Link, link_of
from streams.correlation.level_clocks import LevelClocks, LevelMark
from streams.correlation.rules import Rule
from streams.faust_app import match_stage
from streams.faust_app.action_lanes import Item, Lanes
from streams.faust_app.action_partition import ActionPartition
from streams.faust_app.action_plan import Write, delivery
from streams.faust_app.action_stage import has_actions
from streams.faust_app.correlate_stage import Emission, Owner
from streams.records import Json, now

# --- chaining ---


def marks_do_not_wait_for_their_composites(patch: pytest.MonkeyPatch) -> None:
    """A level's clock counts as soon as it is told, whether or not the composites before it were matched."""

    def count(self: LevelClocks, of: tuple[int, int], marks: list[LevelMark]) -> None:
        while marks:
            clock_us = marks.pop(0).clock_us
            self._clocks[of] = max(clock_us, self._clocks.get(of, clock_us))

    patch.setattr(LevelClocks, "_count", count)


def marks_come_before_composites(patch: pytest.MonkeyPatch) -> None:
    """An owner tells how far its rules have come before what they said is acknowledged."""

    async def emit(self: Owner, emissions: Sequence[Emission]) -> None:
        if self._taken:
            self._mark()
        await emitted(self, emissions)

    emitted = Owner._emit
    patch.setattr(Owner, "_emit", emit)


def revisions_are_read_as_new(patch: pytest.MonkeyPatch) -> None:
    """A composite that is said again does not say what it was before."""

    def forgetful(*given: Any) -> Link | None:
        link = link_of(*given)
        return None if link is None else replace(link, before=None)

    patch.setattr(partition, "link_of", forgetful)


def what_is_taken_back_stays_read(patch: pytest.MonkeyPatch) -> None:
    """A composite that is taken back is read as if it stood."""
    rows = match_stage.composite_rows
    patch.setattr(match_stage, "composite_rows", lambda index, plain, link, *, retracted: rows(index, plain, link, retracted=False))


def readers_settle_by_their_own_grace(patch: pytest.MonkeyPatch) -> None:
    """A rule that reads composites does not wait for those that are said, or revised, within the grace of another."""

    def own(rules: Collection[Rule], _: Mapping[str, int]) -> dict[str, int]:
        return {rule.id: rule.grace_us for rule in rules}

    patch.setattr(engine, "lags", own)


# --- actions ---


def actions_come_before_their_composites(patch: pytest.MonkeyPatch) -> None:
    """What a rule does is done when its composite is on its way, not when it is acknowledged."""

    async def append(self: Owner, emissions: Sequence[Emission]) -> None:
        log, actions = self._log, self._actions
        assert actions is not None
        encoded = log.append_encoded

        async def hasty(batch: Sequence[Any]) -> int:
            first, end = log.next_offset, log.next_offset + len(batch)
            acting = [log.stored(each, first + index) for index, each in enumerate(batch) if has_actions(each)]
            ActionPartition.said(actions, acting, end)
            return await encoded(batch)

        with pytest.MonkeyPatch.context() as hasten:
            hasten.setattr(log, "append_encoded", hasty)
            hasten.setattr(actions, "said", lambda *_: None)
            await appended(self, emissions)

    appended = Owner._append
    patch.setattr(Owner, "_append", append)


def actions_are_finished_first(patch: pytest.MonkeyPatch) -> None:
    """What is to be written counts as done, also for checkpoints, before it is written."""

    def finish_once(self: Lanes, item: Item) -> None:
        if any(item.place in lane.todo for lane in self.lanes.values()):
            finish(self, item)

    async def write_items(self: ActionPartition, items: Sequence[Item]) -> None:
        assert self._lanes is not None
        for item in items:
            self._lanes.finish(item)
        await written(self, items)

    finish, written = Lanes.finish, ActionPartition._write_items
    patch.setattr(Lanes, "finish", finish_once)
    patch.setattr(ActionPartition, "_write_items", write_items)


def successors_begin_with_what_they_say(patch: pytest.MonkeyPatch) -> None:
    """What an earlier owner said and did not do is left undone."""

    async def begin(self: ActionPartition, state: Json, *, position: int, end: int) -> None:
        await begun(self, None, position=end, end=end)

    begun = ActionPartition.begin
    patch.setattr(ActionPartition, "begin", begin)


def deliveries_are_told_first(patch: pytest.MonkeyPatch) -> None:
    """What is written to Kafka is told as done before it is."""

    async def write_items(self: ActionPartition, items: Sequence[Item]) -> None:
        tasks = [item.errand.task for item in items if isinstance(item.errand, Write)]
        await self._tell(*(delivery(task, 1, None, retries=False, latency_ms=0.0, at=now()) for task in tasks))
        await written(self, items)

    written = ActionPartition._write_items
    patch.setattr(ActionPartition, "_write_items", write_items)


_READ = ("as-one-sequence", "comes-to-rest", "only-what-matches", "none-is-missing")

#: As `tests.simulation.stage_mutations.MUTATIONS`.
MUTATIONS = (
    (marks_do_not_wait_for_their_composites, _READ, 27),
    (marks_come_before_composites, _READ, 9),
    (revisions_are_read_as_new, _READ, 10),
    (what_is_taken_back_stays_read, _READ, 135),
    (readers_settle_by_their_own_grace, _READ, 54),
    (actions_come_before_their_composites, ("acts-on-what-counts",), 1),
    (actions_are_finished_first, ("comes-to-rest",), 580),
    (successors_begin_with_what_they_say, ("comes-to-rest",), 28),
    (deliveries_are_told_first, ("told-after-done",), 0),
)
