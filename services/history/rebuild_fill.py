"""Fills new tables: from the topics as far as they go, from the old tables for the rest; and what it filled in as sums, to be checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.history import verify_sql
from services.history.blocks import Span
from services.history.ports import BlockRefused
from services.history.rebuild_tables import RebuildTables
from services.history.replay import Piece, Replay
from services.history.rows import Source
from services.history.tables import all_tables
from services.history.verify_judge import Row
from services.history.verify_reads import TableSide, TopicSide, kinds_of
from services.history.verify_sums import Range, Sums, bucket_of, differing
from streams.errors import Defect

Place = tuple[str, int]  #: topic (name on the broker), partition


@dataclass(slots=True, kw_only=True)
class Filled:
    """One partition of the broker, as far as the new tables have it."""

    place: Place
    topic: str  #: logical name
    source: Source
    replayed: bool  #: read again from the topic; else copied
    first: int = 0  #: from here on it was read from the topic
    end: int = 0  #: filled up to here
    checked: int = 0  #: up to here it was checked
    sums: Sums = field(default_factory=Sums)  #: of what came since, by reading
    rows: int = 0  #: that were made of records of the topic


class Filler:
    """Fills the new tables of a rebuild."""

    def __init__(self, tables: RebuildTables, replay: Replay, old: TableSide, new: TableSide, topics: TopicSide) -> None:
        self._tables, self._replay, self._old, self._new, self._topics = tables, replay, old, new, topics

    async def read(self, part: Filled, end: int, ends: Sequence[int], moved: Callable[[int], None]) -> None:
        """Reads a partition again, from where it is filled to `end`; a piece ends at each of `ends`. `moved` is told of every piece."""
        first = None
        wanted = Range(first=part.end, end=end)
        async for piece in self._replay.pieces(*part.place, part.source, wanted, ends):
            first = piece.span.first if first is None else first
            await self._fill(part, piece)
            moved(piece.span.offsets)
        first = max(end, part.end) if first is None else first
        if not part.end:
            part.first = first
        elif first > part.end:
            # Retention was faster than we: what it took is in the old tables.
            await self._copy_span(part, Range(first=part.end, end=first))
        part.end = max(part.end, end)

    async def _fill(self, part: Filled, piece: Piece) -> None:
        kept = await self._still_kept(part, piece)
        if kept:
            piece.rows.tables = piece.rows.without(kept).tables
        for table, rows in (await self._topics.of_piece(piece, verify_sql.container_sums)).items():
            for bucket, count, digest in rows:
                part.sums.add(int(bucket), table, int(count), int(digest))
        try:
            await self._tables.insert(piece.span, piece.rows)
        except BlockRefused as error:
            raise Defect("history.rebuild", f"ClickHouse refused rows of {piece.span}: {error}") from error
        part.rows += piece.rows.count
        if kept:
            await self._tables.copy_block(piece.span, swapped=False, offsets=sorted(kept))

    async def _still_kept(self, part: Filled, piece: Piece) -> set[int]:
        """The offsets that the topic has no more (compaction), and of which the old tables have a row."""
        gaps = {offset for offset, kind in kinds_of(piece.rows).items() if kind == "gap"}
        if not gaps:
            return set()
        of = Range(first=min(gaps), end=max(gaps) + 1)
        found = await self._old.rows(part.topic, part.place[1], of, list(all_tables()))
        kept = {offset: rows for offset, rows in found.items() if offset in gaps and any(row.kind != "gap" for row in rows)}
        self._count(part, kept)
        return set(kept)

    async def _copy_span(self, part: Filled, of: Range) -> None:
        self._count(part, await self._old.rows(part.topic, part.place[1], of, list(all_tables())))
        await self.copy_block(part, of)

    def _count(self, part: Filled, found: Mapping[int, Sequence[Row]]) -> None:
        for offset, rows in found.items():
            for row in rows:
                part.sums.add(bucket_of(offset), row.table, 1, row.digest)

    async def copy(self, parts: Sequence[Filled]) -> None:
        """Everything of the old tables that was not read from the topics: what lies below that, and other partitions."""
        for topic in sorted({part.topic for part in parts}):
            own = [part for part in parts if part.topic == topic]
            ranges = {part.place[1]: Range(first=0, end=part.first if part.replayed else part.end) for part in own}
            await self._tables.copy(topic, ranges)

    async def copy_block(self, part: Filled, of: Range) -> None:
        """What the old tables have of some offsets, by a token of those."""
        await self._tables.copy_block(Span(topic=part.place[0], partition=part.place[1], first=of.first, end=of.end), swapped=False)

    async def check(self, parts: Sequence[Filled]) -> None:
        """Raises `Defect` (`history.rebuild-differs`) unless the new tables have what was read and what was copied since the last check."""
        for topic in sorted({part.topic for part in parts}):
            own = {part.place[1]: part for part in parts if part.topic == topic}
            read = {n: Range(first=max(part.first, part.checked), end=part.end) for n, part in own.items() if part.replayed}
            copied = {n: Range(first=part.checked, end=part.first if part.replayed else part.end) for n, part in own.items()}
            for number, sums in (await self._sums(self._new, topic, read)).items():
                self._same(topic, number, sums, own[number].sums)
            old, new = await self._sums(self._old, topic, copied), await self._sums(self._new, topic, copied)
            for number in copied:
                self._same(topic, number, new[number], old[number])
        for part in parts:
            part.sums, part.checked = Sums(), part.end

    def _same(self, topic: str, number: int, found: Sums, expected: Sums) -> None:
        if differing(found, expected):
            raise Defect(
                "history.rebuild-differs",
                f"The new tables do not have of {topic}/{number} what was read: {found.rows()} rows, not {expected.rows()}.",
                advice="The old tables are untouched. Run `mplp history verify`, then the rebuild again.",
            )

    async def _sums(self, side: TableSide, topic: str, ranges: Mapping[int, Range]) -> dict[int, Sums]:
        found = {number: Sums() for number in ranges}
        if any(of.offsets for of in ranges.values()):
            none = Range(first=0, end=0)
            listed = [ranges.get(number, none) for number in range(max(ranges) + 1)]
            for table in all_tables():
                if table not in self._tables.tables:
                    continue
                async for number, _, bucket, offsets, digest in side.sums(topic, table, listed, [0] * len(listed), quick=False):
                    found[number].add(bucket, table, offsets.count, digest)
        return found
