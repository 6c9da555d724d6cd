"""A unit of the sink's work: one partition of the log of blocks, and the partitions of topics whose blocks are decided there.

It claims its partition of the log, takes up every partition of topics after the last decided block, and goes round: cut blocks, append the
decisions, insert them side by side, note what is in. A block that cannot be inserted holds up its own partition and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import structlog

from services.history.block_log import BlockLog
from services.history.blocks import BLOCK_BYTES_MAX, BLOCK_OFFSETS_MAX, Progress, Span, same_topic
from services.history.origins import Origins
from services.history.partition import Partition
from services.history.ports import BlockRefused, Feed, Incarnation, Kept, Place, Ports
from services.history.reached import Reached
from services.history.rows import Raw, Rows, SeenIds, Source
from services.history.tables import LOG_RECORDS
from streams.errors import Unavailable

log = structlog.get_logger(__name__)

#: How long a record may wait for others before its block is cut, seconds. A query does not wait for it.
#: A block costs about the same however few its records are (an insert, and later merges): so blocks are made rarely.
AGE_S = 5.0
#: The same where other sinks share the work: a query that waits hurries only the sink of its own process.
SHARED_AGE_S = 1.0
#: How often is looked for records that have waited long enough, and notes are appended that nothing else carries, seconds.
LOOK_S = 0.5
#: Blocks whose inserts are under way, and their bytes.
BLOCKS_UNDER_WAY_MAX = 16
BYTES_UNDER_WAY_MAX = 64 * 1024 * 1024
#: Delay between two tries when something is away or a hold was lost: from, to (seconds).
RETRY_S = (0.2, 5.0)


@dataclass(slots=True)
class Pace:
    """How long records wait for others; shared by all units of a sink."""

    hurry: int = 0  #: calls that wait for everything to be inserted
    age_s: float = AGE_S
    enough_bytes: int = BLOCK_BYTES_MAX  #: are a block; fewer while nothing more can be read before something is inserted


class Unit:
    """Lives from the claim of a hold to its loss."""

    def __init__(
        self, ports: Ports, number: int, *, history: str, feed: Feed, reached: Reached, pace: Pace, room: Callable[[], None],
    ) -> None:  # fmt: skip
        """`history`: identity of the tables; `room` is called when records have been taken out of a buffer."""
        self.number = number
        self.places: dict[Place, Partition] = {}
        self.claimed = asyncio.Event()
        self.troubles: dict[Place, str] = {}  #: why an insert waits
        self.wake = asyncio.Event()
        self._ports, self._feed, self._reached, self._pace, self._room = ports, feed, reached, pace, room
        self._log = BlockLog(ports, number, history)
        self._origins = Origins(ports, feed)
        self._dropped = False  #: partitions, since they were last taken in
        self._inserting: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Works until cancelled. Raises `UnknownOutcome` when the hold is lost, and what the broker raises."""
        try:
            await self._log.claim(self._feed)
            self.claimed.set()
            await self._write()
        finally:
            for task in self._inserting:
                task.cancel()
            await asyncio.gather(*self._inserting, return_exceptions=True)
            await self._log.close()

    # -- partitions of topics

    async def take_in(self, sources: Mapping[Place, Source]) -> bool:
        """Works on these partitions of topics from now on; whether that is a change. The hold must be claimed."""
        before = len(self.places)
        self.places = {place: part for place, part in self.places.items() if place in sources}
        self.troubles = {place: trouble for place, trouble in self.troubles.items() if place in sources}
        gone, self._dropped = self._dropped or len(self.places) < before, False
        new = [place for place in sources if place not in self.places]
        origins = await self._origins.of(new, self._log) if new else {}
        if origins:
            unknown = {place[0] for place, origin in origins.items() if self._progress(place, origin) is None}
            kept = await self._ports.tables.kept(unknown) if unknown else {}
            starts = await self._feed.starts(origins)
            for place, origin in origins.items():
                self.places[place] = await self._resume(place, sources[place], starts[place], kept.get(place), origin)
                self._reached.begins(place, self.places[place].start, origin.topic_id)
                self.troubles.pop(place, None)
        return bool(origins) or gone

    async def drop_remade(self, places: Iterable[Place] | None = None) -> None:
        """Drops partitions whose topic was deleted and made again under its name (of `places`, or all), with what was read of them.

        What was read before a look that still finds the topic is of that topic. `take_in` takes the new one in.
        """
        looked = {place: self.places[place] for place in (self.places if places is None else places)}
        ids = await self._feed.topic_ids({topic for topic, _ in looked}) if looked else {}
        for place, part in looked.items():
            if self.places.get(place) is part and not same_topic(part.topic_id, ids.get(place[0], "")):
                del self.places[place]
                self._dropped = True
                self.troubles[place] = "its topic was deleted and made again"
                log.warning("history.topic.remade", topic=place[0], partition=place[1], earlier=part.topic_id, now=ids[place[0]])
                if part.busy:
                    self._origins.leaving[place] = part

    def _progress(self, place: Place, origin: Incarnation) -> Progress | None:
        """What the log of blocks says of a partition of the topic that there is now."""
        progress = self._log.progress.get(place)
        return progress if progress is not None and same_topic(progress.topic_id, origin.topic_id) else None

    async def _resume(self, place: Place, source: Source, log_start: int, kept: Kept | None, origin: Incarnation) -> Partition:
        """Where a partition goes on: after its last block; if the log says nothing of it, where the tables may lack something."""
        topic, number = place
        progress = self._progress(place, origin)
        part = Partition(topic=topic, partition=number, source=source, decided=log_start, topic_id=origin.topic_id, salt=origin.salt)
        if progress is not None:
            part.decided, part.epoch, part.pending, part.known = progress.end, progress.epoch, progress.pending, progress.known
        else:
            if kept:
                # Of the last block perhaps not all tables have their rows: it is looked over again.
                part.known = kept.last + 1
                part.decided = max(kept.first, part.known - BLOCK_OFFSETS_MAX)
            # Where what is known ends, an insert may have been cut off that left its token and no row.
            part.known = max(part.known, part.decided)
            part.epoch = await self._epoch_at(part, part.decided)
        part.read = part.start
        return part

    async def _epoch_at(self, part: Partition, offset: int) -> int:
        if not offset or part.source.catalogue is None or not part.source.is_log:
            return 0
        return await self._feed.epoch_at(part.source.catalogue.name, part.partition, offset)

    # -- blocks

    async def _write(self) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            due = self._due()
            if due:
                await self._round(due)
            else:
                await self._sleep_until_due()

    def _due(self) -> list[Partition]:
        """The partitions whose next block is due and has room: the one that has waited longest first."""
        now_s = asyncio.get_running_loop().time()
        hurry = self._pace.hurry > 0
        age_s, enough_bytes = self._pace.age_s, self._pace.enough_bytes
        due = [
            part for part in self.places.values() if not part.busy and part.due(now_s, age_s=age_s, hurry=hurry, enough_bytes=enough_bytes)
        ]
        under_way = [part.under_way for part in self.places.values() if part.busy]
        chosen: list[Partition] = []
        for part in sorted(due, key=lambda part: part.oldest_s):
            weight = sum(under_way) + min(part.bytes, BLOCK_BYTES_MAX)
            if under_way and (weight > BYTES_UNDER_WAY_MAX or len(under_way) >= BLOCKS_UNDER_WAY_MAX):
                break
            under_way.append(min(part.bytes, BLOCK_BYTES_MAX))
            chosen.append(part)
        return chosen

    async def _sleep_until_due(self) -> None:
        self.wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self.wake.wait()
        if self._log.notes_age_s >= LOOK_S:
            await self._log.flush()

    async def _round(self, due: list[Partition]) -> None:
        """One block of each: build, decide, and begin to insert."""
        await self.drop_remade([(part.topic, part.partition) for part in due])
        due = [part for part in due if self.places.get((part.topic, part.partition)) is part]
        now_s = asyncio.get_running_loop().time()
        built = [await self._build(part, *part.cut(now_s)) for part in due]
        self._room()
        await self._log.decide([one.span for one in built if not one.decided])
        for one in built:
            one.part.busy = True
            task = asyncio.create_task(self._insert(one))
            self._inserting.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._inserting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
        self.wake.set()

    async def _build(self, part: Partition, span: Span, records: list[Raw], decided: bool) -> _Built:
        if part.seen is None:
            ids = await self._ports.tables.recent_ids(span.topic, span.partition, span.first) if span.first else []
            part.seen = SeenIds(ids)
        # What was deleted before it was read may have been a fence.
        if records and (part.after_gap or records[0].offset > span.first):
            span = replace(span, epoch_before=max(span.epoch_before, await self._epoch_at(part, records[0].offset)))
        part.after_gap = not records
        rows = await self._ports.in_thread(self._ports.build, span, records, part.source, self._ports.codec, part.seen)
        if not decided:
            part.epoch = rows.epoch_after
        span = replace(span, epoch_after=rows.epoch_after)
        return _Built(part=part, span=span, records=records, rows=rows, decided=decided, partly=decided or span.first <= part.known)

    async def _insert(self, built: _Built) -> None:
        """Inserts a block, however long it takes. Raises `UnknownOutcome` when the hold is lost meanwhile."""
        part, span, rows, place = built.part, built.span, built.rows, (built.span.topic, built.span.partition)
        delay, strict, partly, again = RETRY_S[0], False, built.partly, 0
        if built.decided and await self._is_cut(built):
            # Its rows are others now than those of an insert that may still be under way, and no token tells that.
            await self._log.outwait()
        while True:
            try:
                missing = rows.without(await self._ports.tables.offsets_of(span)) if partly else rows
                # `log_records` comes last: it takes what the other tables refuse, and its token must stand for all of it.
                for table in sorted(missing.tables, key=lambda name: (name == LOG_RECORDS, name)):
                    within_s = await self._log.confirm()
                    await self._ports.tables.insert(span, table, missing.tables[table], within_s=within_s, again=again)
                if not partly or not await self._lacks(rows, span):
                    break
                # MergeTree notes a token before it has the rows: an engine that was killed in between takes the next try for a repeat.
                again += 1
                log.warning("history.insert.token-without-rows", **_where(span), again=again)
                continue
            except BlockRefused as error:
                partly = True
                if not strict:
                    strict = True
                    rows = await self._rebuilt(built)
                    continue
                self.troubles[place] = str(error)
                log.error("history.insert.refused", **_where(span), error=str(error))
            except Unavailable as error:
                partly = True
                self.troubles[place] = error.message
                log.warning("history.insert.waits", **_where(span), error=error.message)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_S[1])
        self.troubles.pop(place, None)
        assert part.seen is not None
        part.seen.trim(span.end)
        self._log.note_inserted(span, rows.count)
        part.busy, part.under_way = False, 0
        await self._reached.inserted(place, span.end)

    async def _lacks(self, rows: Rows, span: Span) -> bool:
        """Whether rows of a block that was inserted are not there."""
        return bool(rows.without(await self._ports.tables.offsets_of(span)).tables)

    async def _is_cut(self, built: _Built) -> bool:
        """Whether retention has taken records of a block since it was decided."""
        span = built.span
        if built.records and built.records[0].offset == span.first:
            return False
        place = (span.topic, span.partition)
        return (await self._feed.starts([place]))[place] > span.first

    async def _rebuilt(self, built: _Built) -> Rows:
        """The block's rows with every body decoded: finds those that ClickHouse cannot read."""
        seen = built.part.seen
        assert seen is not None
        seen.forget_from(built.span.first)
        rows = await self._ports.in_thread(
            self._ports.build, built.span, built.records, built.part.source, self._ports.codec, seen, strict=True
        )
        assert isinstance(rows, Rows)
        return rows


def _where(span: Span) -> dict[str, object]:
    return {"topic": span.topic, "partition": span.partition, "first": span.first, "end": span.end}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """A block ready to be inserted."""

    part: Partition
    span: Span
    records: list[Raw]
    rows: Rows
    decided: bool  #: by an earlier sink
    partly: bool  #: some of its rows may be in the tables
