"""Dead letters that are meant by their ids: only those are read, and what is not there is said."""

from __future__ import annotations

import pytest

from streams.bus import Bus
from streams.errors import InvalidInput
from streams.records import SystemEvent
from streams.routing import control, dlq
from streams.routing.selection import LetterSelection
from tests.chaos.redrive import ROUTE, bury

pytestmark = pytest.mark.broker


async def test_letters_named_by_id_are_put_back_and_what_is_not_there_is_said(bus: Bus) -> None:
    await control.apply(bus, [ROUTE], who="test")
    await bury(bus, 40)
    listed = [letter.id async for letter in dlq.letters(bus, LetterSelection())]
    topic, partition, _ = listed[0].rsplit("/", 2)
    absent = {f"{topic}/{partition}/999999", f"{topic}/77/0", "mplp.nowhere.dlq/0/0"}
    wanted = frozenset({listed[0], listed[-1], *absent})

    dry = await dlq.redrive(bus, LetterSelection(ids=wanted), who="ann", dry_run=True)
    done = await dlq.redrive(bus, LetterSelection(ids=wanted), who="ann")
    again = await dlq.redrive(bus, LetterSelection(ids=wanted), who="ann")
    purged = await dlq.purge(bus, LetterSelection(ids=frozenset({listed[1], *absent})), who="ann")
    left = [letter.id async for letter in dlq.letters(bus, LetterSelection())]

    assert (dry.matched, done.matched, done.redriven, again.matched, purged["purged"]) == (2, 2, 2, 0, 1)
    for report in (dry, done, again):  # what was put back already is no fault: the command can be run again
        assert sorted((each["id"], each["code"]) for each in report.refused) == [
            (letter_id, "letter.unknown") for letter_id in sorted(absent)
        ]
    assert left == listed[2:-1]


@pytest.mark.parametrize(("ids", "where"), [(frozenset({"nonsense"}), None), (None, "data.number <")])
async def test_what_is_no_selection_is_refused_before_anything_is_told(bus: Bus, ids: frozenset[str] | None, where: str | None) -> None:
    await bury(bus, 2)
    selection = LetterSelection(ids=ids, where=where)
    with pytest.raises(InvalidInput):
        await dlq.redrive(bus, selection, who="ann")
    with pytest.raises(InvalidInput):
        await dlq.purge(bus, selection, who="ann")
    assert [event for event in await bus.history(type="dlq.*") if isinstance(event, SystemEvent)] == []
