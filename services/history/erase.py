"""Takes a subject's payloads out of the history, for good.

Theory of operation. 1. The sink reaches the topics' ends of now: what was sent before is in the tables. 2. The tables are asked which
rows are the subject's, and which quote those (`erase_sql`). 3. Their places are kept in the topic of erasures: from here on whoever makes
rows of these records leaves the payloads out, and there is no way back. 4. The payloads are taken out of the tables. 5. It is noted in
the database, and told as an event. Killed after 3, the next who opens the history does 4 and 5 (`finish`).

What comes later of the same subject is another record, and stays until the next erasure.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from services.history import erase_log
from services.history import erase_sql as sql
from services.history.erase_sql import Hit
from services.history.erase_tables import ErasedTables
from services.history.erasures import Erasure, Places
from services.history.store import History
from services.history.verify import Progress, Tell
from streams.codec.avro import Codec
from streams.concurrency import to_the_end
from streams.errors import NotFound, Refused, TooLarge, Unavailable
from streams.kafka import Kafka
from streams.records import SystemEvent, derived_id, iso, new_id, now

T = TypeVar("T")
#: Rows that one erasure may reach.
ROWS_MAX = 2_000_000
#: Ids in one question.
IDS_PER_QUERY = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseAsk:
    """Whose payloads go, and why."""

    subject: str
    who: str
    why: str
    effects: bool = False  #: also of everything that these records caused, with whole executions
    dry_run: bool = False
    timeout_s: float = 60.0  #: that the sink is given to catch up


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedReport:
    """What an erasure did."""

    subject: str
    erasure: str | None  #: its id; None: there was nothing to erase, or nothing was done
    tables: Mapping[str, int]  #: rows that lost their payloads, by table
    already: int  #: rows that had lost them before
    caused: int  #: rows that these records caused directly, and that keep their payloads
    dry_run: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "subject": self.subject, "erasure": self.erasure, "rows": sum(self.tables.values()), "tables": dict(self.tables),
            "already": self.already, "caused": self.caused, "dry_run": self.dry_run, "seconds": round(self.seconds, 3),
        }  # fmt: skip


class Eraser:
    """Erases in one history; one erasure at a time. `behind`: gives the sink so many seconds, and says how many offsets it lacks then."""

    def __init__(
        self, kafka: Kafka, codec: Codec, history: History, behind: Callable[[float], Awaitable[int]],
        publish: Callable[[Iterable[SystemEvent]], Awaitable[Any]], busy: asyncio.Lock,
    ) -> None:  # fmt: skip
        """`busy` is held meanwhile: nothing else makes tables anew."""
        self._kafka, self._codec, self._history, self._behind, self._publish, self._busy = kafka, codec, history, behind, publish, busy

    async def run(self, ask: EraseAsk, tell: Tell = lambda _: None) -> ErasedReport:
        """Erases.

        Raises `NotFound` (`subject.unknown`), `Refused` (`history.busy`), `TooLarge` (`erase.too-many`), `Unavailable` (`history.behind`
        if the sink does not catch up in time); then nothing was done. A cancelled call is carried out once its places are kept.
        """
        if self._busy.locked():
            raise Refused("history.busy", "The history is being rebuilt, or something else is being erased.", advice="Wait for its end.")
        async with self._busy:
            return await self._run(ask, tell)

    async def _run(self, ask: EraseAsk, tell: Tell) -> ErasedReport:
        began_s = time.monotonic()
        tell(Progress(phase="waiting"))
        if behind := await self._behind(ask.timeout_s):
            raise Unavailable(
                "history.behind", f"The history is {behind} records behind the topics: what is not there yet cannot be erased.",
                advice="Try again, or give it longer with --timeout.",
            )  # fmt: skip
        tables = ErasedTables(self._history)
        try:
            tell(Progress(phase="looking"))
            hits, caused = await self._hits(tables, ask)
            found = [each for each in hits if not each.erased]
            if not hits:
                raise NotFound("subject.unknown", f"The history has nothing about the subject {ask.subject!r}.")
            erasure = None
            if found and not ask.dry_run:
                erasure = Erasure(
                    id=new_id(), subject=ask.subject, who=ask.who, why=ask.why, time=now(), places=tuple(places_of(found)),
                )  # fmt: skip
                await to_the_end(self._carry_out(tables, erasure, tell))
        finally:
            await asyncio.shield(tables.close())
        by_table = dict(sorted(Counter(each.table for each in found).items()))
        return ErasedReport(
            subject=ask.subject, erasure=None if erasure is None else erasure.id, tables=by_table,
            already=len(hits) - len(found), caused=caused, dry_run=ask.dry_run, seconds=time.monotonic() - began_s,
        )  # fmt: skip

    async def _carry_out(self, tables: ErasedTables, erasure: Erasure, tell: Tell) -> None:
        await erase_log.append(self._kafka, self._codec, erasure)
        await erase_log.refresh(self._kafka, self._codec, self._history.erasures)
        await tables.erase(erasure, lambda done: tell(Progress(phase="erasing", done=done, of=erasure.rows)))
        await self._publish([told(erasure)])
        await tables.note(erasure.id)

    async def finish(self) -> bool:
        """Does what erasures have left undone that were cut off; whether nothing is left. Nothing is done while the history is behind."""
        await erase_log.refresh(self._kafka, self._codec, self._history.erasures)
        if not len(self._history.erasures):
            return True
        if self._busy.locked():
            return False
        async with self._busy:
            tables = ErasedTables(self._history)
            try:
                noted = await tables.noted()
                undone = [erasure for erasure in self._history.erasures if erasure.id not in noted]
                if undone and await self._behind(0.0):
                    return False
                for erasure in undone:
                    await tables.erase(erasure, lambda _: None)
                    if not await tables.has_event(told(erasure).id):
                        await self._publish([told(erasure)])
                    await tables.note(erasure.id)
            finally:
                await asyncio.shield(tables.close())
        return True

    # -- what is reached

    async def _hits(self, tables: ErasedTables, ask: EraseAsk) -> tuple[list[Hit], int]:
        """The rows that are reached, and how many that are not were caused by them."""
        hits: dict[tuple[str, int, int], Hit] = {}
        executions: set[str] = set()
        fresh = _taken(hits, await tables.hits(sql.own(ask.subject)))
        while fresh:
            found = await self._asked(tables, sql.quoting, {each.id for each in fresh})
            if ask.effects:
                found += await self._asked(tables, sql.caused, {each.id for each in fresh})
                begun = {each.execution_id for each in (*fresh, *found)} - executions - {""}
                found += await self._asked(tables, sql.of_executions, begun)
                executions |= begun
            fresh = _taken(hits, found)
            if len(hits) > ROWS_MAX:
                raise TooLarge("erase.too-many", f"More than {ROWS_MAX} rows are reached: that is no subject.")
        caused = await self._asked(tables, sql.caused, {each.id for each in hits.values()})
        left = {(each.topic, each.partition, each.offset) for each in caused if not each.erased} - hits.keys()
        return list(hits.values()), len(left)

    @staticmethod
    async def _asked(tables: ErasedTables, queries: Callable[[Sequence[str]], list[str]], texts: Iterable[str]) -> list[Hit]:
        found: list[Hit] = []
        for some in slices(sorted(set(texts) - {""}), IDS_PER_QUERY):
            found += await tables.hits(queries(some))
        return found


def _taken(hits: dict[tuple[str, int, int], Hit], found: Iterable[Hit]) -> list[Hit]:
    """Takes in what is new, and returns it."""
    fresh = []
    for each in found:
        place = (each.topic, each.partition, each.offset)
        if place not in hits:
            hits[place] = each
            fresh.append(each)
    return fresh


def places_of(hits: Iterable[Hit]) -> Iterator[Places]:
    """The places of rows."""
    by_place: dict[tuple[str, int], list[Hit]] = {}
    for each in hits:
        by_place.setdefault((each.topic, each.partition), []).append(each)
    for (topic, partition), some in sorted(by_place.items()):
        offsets = tuple(sorted(each.offset for each in some))
        yield Places(topic=topic, partition=partition, offsets=offsets, until_ms=max(each.timestamp_ms for each in some))


def told(erasure: Erasure) -> SystemEvent:
    """The event that tells of an erasure: administrative acts are events."""
    topics = Counter({each.topic: 0 for each in erasure.places})
    for each in erasure.places:
        topics[each.topic] += len(each.offsets)
    return SystemEvent(
        id=derived_id(sql.TOLD, erasure.id), type=sql.TOLD, source="mplp/history", subject=erasure.subject, time=now(),
        data={
            "erasure": erasure.id, "who": erasure.who, "why": erasure.why, "asked_at": iso(erasure.time), "rows": erasure.rows,
            "topics": dict(sorted(topics.items())),
        },
    )  # fmt: skip


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Items in groups of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
