"""The stages with one of their checks switched off, or one step too early, and nothing else changed: what the simulation must catch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from streams.correlation.checkpoint import CheckpointWriter, Entry
from streams.correlation.partition import CorrelatePartition
from streams.faust_app import match_stage
from streams.faust_app.batches import Raw, Written
from streams.faust_app.correlate_stage import Emission, Owner
from streams.faust_app.feed import Handler
from streams.faust_app.match_stage import MatchStage
from streams.faust_app.prefix import Chunk
from streams.log.fenced import FencedLog, UnknownOutcome
from streams.log.rule import FENCED, ReadersRule, Verdict
from streams.testing.simulation.stages.feed import SimulatedFeed
from tests.simulation.chain_mutations import MUTATIONS as CHAIN_MUTATIONS

Mutation = Callable[[pytest.MonkeyPatch], None]


def what_was_said_is_not_muted(patch: pytest.MonkeyPatch) -> None:
    """A successor says again what the log has."""
    fold = Owner._fold
    patch.setattr(Owner, "_fold", lambda self, record, said: fold(self, record, set()))


def everything_is_muted(patch: pytest.MonkeyPatch) -> None:
    """A successor takes for said whatever the replay leads to."""

    async def emit_nothing(self: Owner, emissions: Sequence[Emission]) -> None:
        if self._taken:
            await emit(self, emissions)

    emit = Owner._emit
    patch.setattr(Owner, "_emit", emit_nothing)


def epochs_are_not_judged(patch: pytest.MonkeyPatch) -> None:
    """Readers take records of any epoch for valid."""

    def judge(self: ReadersRule, record_type: str, epoch: int | None) -> Verdict:
        if record_type == FENCED:
            self.epoch = max(self.epoch, epoch or 0)
            return Verdict.FENCE
        return Verdict.VALID

    patch.setattr(ReadersRule, "judge", judge)


def lost_appends_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """After an append of unknown outcome the owner claims the log anew and goes on with the state that it has."""

    async def append(self: Owner, emissions: Sequence[Emission]) -> None:
        try:
            await appended(self, emissions)
        except UnknownOutcome:
            await self._log.claim(start=0)

    appended = Owner._append
    patch.setattr(Owner, "_append", append)


def matches_are_not_told_apart(patch: pytest.MonkeyPatch) -> None:
    """What a match stage has written twice is taken twice, as far as the source position is concerned."""

    class Nothing(dict[Any, Any]):
        def setdefault(self, key: Any, default: Any = None) -> Any:
            return default

    made = CorrelatePartition.__init__

    def forgetful(self: CorrelatePartition) -> None:
        made(self)
        self._last = Nothing()

    patch.setattr(CorrelatePartition, "__init__", forgetful)


def sources_stand_where_they_are_fetched(patch: pytest.MonkeyPatch) -> None:
    """Found by the simulation: a partition of which nothing was matched yet was taken for matched up to where it was fetched."""
    place = SimulatedFeed.place

    def fetched(self: SimulatedFeed, topic: str, partition: int) -> tuple[int, bool] | None:
        found = place(self, topic, partition)
        return None if found is None else (self._positions[topic, partition], found[1])

    patch.setattr(SimulatedFeed, "place", fetched)


def checkpoints_are_completed_first(patch: pytest.MonkeyPatch) -> None:
    """The record that completes a checkpoint is written before its groups."""

    async def write(self: Owner, raws: Sequence[Raw]) -> None:
        if raws and all(b"checkpoint" not in key and value is not None for key, value, _ in raws):
            held[id(self)] = list(raws)
            return
        await written(self, raws)
        if groups := held.pop(id(self), None):
            await written(self, groups)

    held: dict[int, list[Raw]] = {}
    written = Owner._write
    patch.setattr(Owner, "_write", write)


def groups_have_one_slot(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint under way overwrites what the last complete one needs."""
    groups = CheckpointWriter.groups

    def always_the_first(self: CheckpointWriter, contents: Any) -> Iterator[Entry]:
        self._slots = dict.fromkeys(self._slots, 1)
        return groups(self, contents)

    patch.setattr(CheckpointWriter, "groups", always_the_first)


def checkpoints_leave_changes_out(patch: pytest.MonkeyPatch) -> None:
    """Groups that changed by the clock alone are not written anew."""
    checkpoint = Owner._checkpoint

    async def only_emitted(self: Owner) -> None:
        self.state.engine.take_changed()
        await checkpoint(self)

    patch.setattr(Owner, "_checkpoint", only_emitted)


def positions_come_before_composites(patch: pytest.MonkeyPatch) -> None:
    """An owner counts a chunk as done, and may write so in a checkpoint, before what it leads to is acknowledged."""

    async def emit(self: Owner, emissions: Sequence[Emission]) -> None:
        if self._taken and emissions:
            self.position = emissions[-1].offset + 1
            await self._checkpoint()
        await emitted(self, emissions)

    emitted = Owner._emit
    patch.setattr(Owner, "_emit", emit)


def chunks_are_acknowledged_first(patch: pytest.MonkeyPatch) -> None:
    """A chunk is acknowledged before its handler has returned."""

    async def agent(self: SimulatedFeed, queue: asyncio.Queue[Chunk], handle: Handler) -> None:
        async def hasty(chunk: Chunk) -> None:
            self._prefix.acknowledge((chunk.topic, chunk.partition), chunk)
            await handle(chunk)

        await run(self, queue, hasty)

    run: Callable[[SimulatedFeed, asyncio.Queue[Chunk], Handler], Awaitable[None]] = SimulatedFeed._agent
    patch.setattr(SimulatedFeed, "_agent", agent)


def offset_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    """An append may get any offset."""
    patch.setattr(FencedLog, "_as_expected", lambda self, offset: True)


def clocks_run_ahead_of_matches(patch: pytest.MonkeyPatch) -> None:
    """A chunk counts as matched when its matches are on their way, not when they are acknowledged."""
    sent = match_stage.send_batches

    async def handle(self: MatchStage, chunk: Chunk) -> None:
        async def send_later(*given: Any) -> list[Written]:
            background.append(asyncio.ensure_future(sent(*given)))
            return []

        background: list[asyncio.Future[list[Written]]] = []
        patch.setattr(match_stage, "send_batches", send_later)
        try:
            await handled(self, chunk)
        finally:
            patch.setattr(match_stage, "send_batches", sent)
        await asyncio.gather(*background)

    handled = MatchStage.handle
    patch.setattr(MatchStage, "handle", handle)


def matches_are_counted_for_all_rules(patch: pytest.MonkeyPatch) -> None:
    """Found by the simulation: what somebody had matched by older rules hid the matches of newer ones."""

    class Shared(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return max(self.values(), default=default)

    class Sources(dict[Any, Any]):
        def setdefault(self, key: Any, default: Any = None) -> Any:
            return super().setdefault(key, Shared())

    made = CorrelatePartition.__init__

    def shared(self: CorrelatePartition) -> None:
        made(self)
        self._last = Sources()

    patch.setattr(CorrelatePartition, "__init__", shared)


#: Each with the invariants of which one must have caught it, and a seed from which on it is soon caught.
MUTATIONS: Mapping[str, tuple[Mutation, tuple[str, ...], int]] = {
    mutation.__name__: (mutation, invariants, seed)
    for mutation, invariants, seed in (
        (what_was_said_is_not_muted, ("said-once",), 0),
        (everything_is_muted, ("said-in-order",), 1),
        (epochs_are_not_judged, ("only-what-counts",), 0),
        (lost_appends_are_forgotten, ("said-once", "said-in-order"), 24),
        (matches_are_not_told_apart, ("matched-once",), 2),
        (sources_stand_where_they_are_fetched, ("clock-behind-matches",), 5),
        (checkpoints_are_completed_first, ("said-in-order", "said-once", "replay-equals-live"), 57),
        (groups_have_one_slot, ("said-in-order", "said-once", "replay-equals-live"), 500),
        (checkpoints_leave_changes_out, ("said-in-order", "said-once", "replay-equals-live"), 1),
        (positions_come_before_composites, ("said-in-order",), 11),
        (chunks_are_acknowledged_first, ("none-is-missing", "comes-to-rest", "clock-behind-matches"), 5),
        (offset_is_not_compared, ("acts-the-same", "acts-on-what-counts", "said-once", "said-in-order", "comes-to-rest"), 61),
        (matches_are_counted_for_all_rules, ("none-is-missing", "said-in-order", "replay-equals-live"), 1),
        (clocks_run_ahead_of_matches, ("clock-behind-matches",), 4),
        *CHAIN_MUTATIONS,
    )
}
