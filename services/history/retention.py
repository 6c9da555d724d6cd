"""How long the history keeps rows: what is wished, what it may not go below, and what follows from both. Pure.

A lifetime is counted from Kafka's timestamp of the record (`_timestamp`). Tables are partitioned by the month of it, and only whole
parts are dropped, never rows picked out of them: so a row may live up to a month longer than it has to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.history.rows import Rows, Source
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, TABLES, all_tables
from streams.durations import format_duration, parse_duration_ms
from streams.errors import InvalidInput, Refused
from streams.records import iso, to_micros
from streams.topics import CATALOGUE, DAY_MS

#: Tables of what belongs to executions.
OF_EXECUTIONS = ("workflow_transitions", "workflow_commands", "module_messages")
#: Tables that rules read, and are tried on.
OF_RULES = ("system_events", "composite_events", "workflow_transitions", "module_messages")
#: Dead letters may be put back for so long, whatever topic they are of.
LETTERS_MS = 30 * DAY_MS
#: A lifetime that is held longer is held in steps, so that it is not changed with every look.
STEP_MS = 30 * DAY_MS

_PAIR = re.compile(r"\s*([a-z_]+)\s*=\s*(.+?)\s*")
_TTL = re.compile(r"_timestamp \+ toIntervalSecond\((\d+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A lifetime that something needs."""

    ms: int
    why: str


def parse(text: str) -> dict[str, int]:
    """Lifetimes in milliseconds by table, of `system_events=400d, deliveries=90d`.

    Raises `InvalidInput` (`retention.invalid`).
    """
    found: dict[str, int] = {}
    for part in filter(str.strip, text.split(",")):
        pair = _PAIR.fullmatch(part)
        if pair is None or pair[1] not in all_tables():
            raise InvalidInput(
                "retention.invalid", f"{part.strip()!r} is not of the form table=duration.",
                advice=f"The tables are: {', '.join(all_tables())}.",
            )  # fmt: skip
        try:
            lifetime_ms = parse_duration_ms(pair[2])
        except InvalidInput as error:
            raise InvalidInput("retention.invalid", f"{pair[1]}: {error.message}") from error
        if lifetime_ms % 1000 or pair[1] in found:
            raise InvalidInput("retention.invalid", f"{pair[1]} has one lifetime, of whole seconds.")
        found[pair[1]] = lifetime_ms
    return found


def of_topics() -> dict[str, Bound]:
    """What rebuilds and replays need: as long as a topic has a record, the history keeps its row."""
    found: dict[str, Bound] = {DEAD_LETTERS: Bound(ms=LETTERS_MS, why="dead letters can be put back for 30 d")}
    for topic in CATALOGUE:
        if topic.sunk and topic.retention_ms > 0:
            bound = Bound(ms=topic.retention_ms, why=f"{topic.name} keeps its records for {format_duration(topic.retention_ms)}")
            tables = {TABLES[record.__name__] for record in topic.records if record.__name__ in TABLES} or {DEAD_LETTERS}
            for table in (*tables, LOG_RECORDS):
                found[table] = max(found.get(table, bound), bound, key=lambda each: each.ms)
    return found


def of_rules(spans_ms: Mapping[str, int]) -> dict[str, Bound]:
    """What rules need (id → the longest that one looks back): so much history is what they can be tried on."""
    if not spans_ms:
        return {}
    rule = max(spans_ms, key=lambda each: (spans_ms[each], each))
    return dict.fromkeys(OF_RULES, Bound(ms=spans_ms[rule], why=f"the rule {rule} looks back over {format_duration(spans_ms[rule])}"))


def of_executions(oldest: tuple[str, datetime] | None, now: datetime) -> dict[str, Bound]:
    """What executions need that have not ended: all that happened to them."""
    if oldest is None:
        return {}
    execution_id, began = oldest
    age_ms = max(0, (to_micros(now) - to_micros(began)) // 1000)
    why = f"the execution {execution_id} runs since {iso(began)}"
    # One step more: it goes on to grow older until the next look.
    return dict.fromkeys(OF_EXECUTIONS, Bound(ms=(age_ms // STEP_MS + 1) * STEP_MS, why=why))


def greatest(*bounds: Mapping[str, Bound]) -> dict[str, Bound]:
    """Of every table the greatest."""
    found: dict[str, Bound] = {}
    for each in bounds:
        for table, bound in each.items():
            found[table] = max(found.get(table, bound), bound, key=lambda one: one.ms)
    return found


def check(wished: Mapping[str, int], bounds: Mapping[str, Bound]) -> None:
    """Raises `Refused` (`retention.too-short`) if a wish goes below what is needed."""
    for table, lifetime_ms in wished.items():
        bound = bounds.get(table)
        if bound is not None and lifetime_ms < bound.ms:
            least = format_duration(bound.ms)
            raise Refused(
                "retention.too-short", f"{table} cannot be kept for {format_duration(lifetime_ms)} only: {bound.why}.",
                advice=f"Keep it for at least {least} (MPLP_HISTORY_RETENTION={table}={least}), or for ever: leave it out.",
            )  # fmt: skip


def check_setting(text: str) -> dict[str, int]:
    """The lifetimes of the setting. Raises `InvalidInput` (`retention.invalid`), `Refused` (`retention.too-short`)."""
    wished = parse(text)
    check(wished, of_topics())
    return wished


def in_force(wished: Mapping[str, int], bounds: Mapping[str, Bound]) -> dict[str, int]:
    """The lifetimes (milliseconds) that tables get: as wished, but no shorter than needed."""
    return {table: max(lifetime_ms, bounds[table].ms if table in bounds else 0) for table, lifetime_ms in wished.items()}


def statements(table: str, lifetime_ms: int | None) -> list[str]:
    """What gives a table its lifetime; None: for ever."""
    if lifetime_ms is None:
        return [f"ALTER TABLE {table} REMOVE TTL"]
    return [
        # Whole parts only; and what is there is not written anew, it is only noted when it ends.
        f"ALTER TABLE {table} MODIFY SETTING ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1",
        f"ALTER TABLE {table} MODIFY TTL _timestamp + toIntervalSecond({lifetime_ms // 1000})",
    ]


def definitions() -> str:
    """The query whose rows `lifetimes` reads: how tables are defined."""
    listed = ", ".join(f"'{table}'" for table in all_tables())
    return f"SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() AND name IN ({listed})"


def lifetimes(rows: Iterable[tuple[Any, ...]]) -> dict[str, int]:
    """The lifetimes that tables have, milliseconds."""
    found = {str(name): _TTL.search(str(text)) for name, text in rows}
    return {name: int(match[1]) * 1000 for name, match in found.items() if match is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """What the tables still have to have, for whoever compares them with the topics: rows since an instant, by table."""

    since_ms: Mapping[str, int] = field(default_factory=dict)  #: tables without a lifetime are not in it

    def of(self, source: Source) -> int | None:
        """The instant (milliseconds) since when the tables have to have everything of a topic; None: ever since."""
        tables = {TABLES[name] for name in source.records if name in TABLES} or {DEAD_LETTERS}
        found = [self.since_ms[table] for table in (*tables, LOG_RECORDS) if table in self.since_ms]
        return max(found, default=None)

    def condition(self, table: str) -> str:
        """What a row has to meet to be looked at, for a WHERE that has conditions already."""
        since_ms = self.since_ms.get(table)
        return "" if since_ms is None else f" AND _timestamp >= fromUnixTimestamp64Milli({since_ms}, 'UTC')"

    def left(self, rows: Rows) -> Rows:
        """Rows without those that tables need not have any more."""
        if self.since_ms:
            kept = {table: [row for row in some if row[1] >= self.since_ms.get(table, row[1])] for table, some in rows.tables.items()}
            rows.tables = {table: some for table, some in kept.items() if some}
        return rows


def retained(lifetimes_ms: Mapping[str, int], now: datetime, *, margin_ms: int = 0) -> Retained:
    """What tables with these lifetimes have to have now. `margin_ms`: what is about to be dropped does not count either."""
    now_ms = to_micros(now) // 1000
    return Retained(since_ms={table: now_ms - lifetime_ms + margin_ms for table, lifetime_ms in lifetimes_ms.items()})
