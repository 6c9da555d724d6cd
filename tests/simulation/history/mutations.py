"""The sink with one of its safeguards switched off, and nothing else changed: what the simulation must catch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest

from services.history import unit
from services.history.block_log import BlockLog
from services.history.blocks import Span
from services.history.reached import Reached
from services.history.unit import Unit
from streams.log.fenced import FencedLog, UnknownOutcome
from tests.simulation.history import shelf

Mutation = Callable[[pytest.MonkeyPatch], None]


def tokens_are_not_known(patch: pytest.MonkeyPatch) -> None:
    """The tables recognise no repeated insert."""
    patch.setattr(shelf, "WINDOW_BLOCKS", 0)


def leases_do_not_end(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks the log before an insert, and an insert may begin at any time; few tokens are remembered."""

    async def confirm(self: BlockLog) -> float:
        return 1e6

    patch.setattr(BlockLog, "confirm", confirm)
    patch.setattr(shelf, "WINDOW_BLOCKS", 3)


def offset_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    """Who lost its hold goes on deciding."""
    patch.setattr(FencedLog, "_as_expected", lambda self, offset: True)


def blocks_are_decided_afterwards(patch: pytest.MonkeyPatch) -> None:
    """Nothing is appended before the insert: decisions come with the next notes."""

    async def decide(self: BlockLog, spans: Iterable[Span]) -> None:
        if not self._log.held:
            raise UnknownOutcome("log.not-held", "It is not held.")
        self._notes += [(span.topic, lambda epoch, at, span=span: self._decision(span, epoch, at)) for span in spans]  # type: ignore[misc]

    patch.setattr(BlockLog, "decide", decide)


def blocks_are_noted_first(patch: pytest.MonkeyPatch) -> None:
    """A block is noted as inserted when its insert begins."""
    insert = Unit._insert

    async def noted(self: Unit, built: unit._Built) -> None:
        self._log.note_inserted(built.span, built.rows.count)
        await self._log.flush()
        await insert(self, built)

    patch.setattr(Unit, "_insert", noted)


def epochs_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What a fence in a part that was deleted said is not asked for."""

    async def epoch_at(self: Unit, part: object, offset: int) -> int:
        return 0

    patch.setattr(Unit, "_epoch_at", epoch_at)


def others_are_not_followed(patch: pytest.MonkeyPatch) -> None:
    """What other sinks insert is not heard of."""

    async def follow(self: Reached, record: object, history: str) -> None:
        return

    patch.setattr(Reached, "follow", follow)


def remade_topics_are_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """What is read of a topic that was deleted and made again is taken for more of the earlier one."""

    async def drop_remade(self: Unit, places: object = None) -> None:
        return

    patch.setattr(Unit, "drop_remade", drop_remade)


def what_was_reached_is_of_any_topic(patch: pytest.MonkeyPatch) -> None:
    """How far an earlier topic was inserted is taken for how far the one of now is."""
    patch.setattr(Reached, "are", lambda self, topic_ids: None)


def tokens_are_trusted(patch: pytest.MonkeyPatch) -> None:
    """A repeated insert that succeeds has brought its rows."""

    async def lacks(self: Unit, rows: object, span: Span) -> bool:
        return False

    patch.setattr(Unit, "_lacks", lacks)


#: Name → what is switched off, and the invariant that says so.
MUTATIONS: Mapping[str, tuple[Mutation, str]] = {
    "tokens are not known": (tokens_are_not_known, "once"),
    "leases do not end": (leases_do_not_end, "once"),
    "offset is not compared": (offset_is_not_compared, "once"),
    "blocks are decided afterwards": (blocks_are_decided_afterwards, "once"),
    "blocks are noted first": (blocks_are_noted_first, "noted"),
    "epochs are forgotten": (epochs_are_forgotten, "right"),
    "others are not followed": (others_are_not_followed, "told"),
    "remade topics are not noticed": (remade_topics_are_not_noticed, "own"),
    "tokens are trusted": (tokens_are_trusted, "noted"),
    "what was reached is of any topic": (what_was_reached_is_of_any_topic, "told"),
}
