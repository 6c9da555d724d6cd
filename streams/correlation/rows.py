"""Matches on their way to the correlate stage: those of one source partition, for one partition of matches, in one record. Pure.

A match is small, and there may be one for every event; as a record of its own each would cost more to write, fetch and read than to
correlate. So a `MatchBatch` carries up to `ROWS_CHARACTERS` of them in its payload:

    {"rules": [[rule id, order of its version, [matcher, …]], …],
     "rows": [[rule (index), source offset, ordinal, time (µs), id, type, source, tenant, correlation id, group key, data, extra], …]}

`group key` is the canonical text of the group's values, `data` the payload's JSON text, `extra` null or an object of what only some
matches have: `value` (of the condition's field), `depth` (of the record, if it has one: `streams.causation`), `truncated`
(`data` holds only what the rule reads), `at` (the record's Kafka timestamp, for rules that read composites or are read), and of
composites `after`, `before`, `gone` (`streams.correlation.composites`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import orjson

from streams.correlation.index import Hit
from streams.correlation.payload import SMALL_CHARACTERS, payload_of
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Seen
from streams.matching.matchers import RecordView

#: Characters of a batch after which the next one begins: with any escapes it stays far below what a record may have.
ROWS_CHARACTERS = 64 * 1024
#: Characters of one match; a larger one cannot be carried.
ROW_CHARACTERS_MAX = 32 * 1024


class RowsWriter:
    """Matches of one source partition for one partition of matches, in the order of their sources."""

    __slots__ = ("_last", "_rows", "_rules", "characters")

    def __init__(self) -> None:
        self._rules: dict[tuple[str, int, tuple[str, ...]], int] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._last: tuple[ActiveRule | None, tuple[str, ...], int] = (None, (), 0)  # of the last match: rule, names and its index
        self.characters = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether the next match belongs into another batch."""
        return self.characters >= ROWS_CHARACTERS

    def add(self, hit: Hit, view: RecordView, offset: int, ordinal: int, depth: int = 0, more: Mapping[str, Any] | None = None) -> bool:
        """One more match of a record of this depth; False: it is too large to be carried, and was not added.

        `more`: what else is needed, by the names of `extra`.
        """
        active, names, group_key, value = hit
        record_id, record_type, source, tenant, correlation_id, data, before = view.essentials()
        truncated = False
        if len(data) > SMALL_CHARACTERS:
            data, truncated = payload_of(active.rule, data, lambda: view.data)
        characters = before + len(group_key) + len(data) + 64
        if characters > ROW_CHARACTERS_MAX:
            return False
        last_active, last_names, number = self._last
        if active is not last_active or names is not last_names:
            number = self._rules.setdefault((active.rule.id, active.order, names), len(self._rules))
            self._last = (active, names, number)
        extra: dict[str, Any] | None = None
        if value is not None or depth or truncated or more is not None:
            extra = {} if more is None else dict(more)
            if value is not None:
                extra["value"] = value
            if depth:
                extra["depth"] = depth
            if truncated:
                extra["truncated"] = True
        self._rows.append(
            (number, offset, ordinal, view.time_us, record_id, record_type, source, tenant, correlation_id, group_key, data, extra)
        )
        self.characters += characters
        return True

    def text(self) -> str:
        """The payload of the record."""
        return orjson.dumps({"rules": [*self._rules], "rows": self._rows}).decode()

    def first(self) -> tuple[int, int]:
        """Source offset and ordinal of the first match."""
        return self._rows[0][1], self._rows[0][2]


MatchedRule: TypeAlias = tuple[str, int, tuple[str, ...]]  #: id, order of its version, matchers
Row: TypeAlias = tuple[int, int, int, int, str, str, str, str, str, str, str, dict[str, Any] | None]


def read_rows(text: str) -> tuple[list[MatchedRule], list[Row]]:
    """Rules and rows in the payload of a `MatchBatch`."""
    content = orjson.loads(text)
    return [(rule_id, order, tuple(names)) for rule_id, order, names in content["rules"]], content["rows"]


def seen_of_row(row: Row, names: tuple[str, ...]) -> Seen:
    """What the engine keeps of the record of a row; `names` are the matchers of its rule."""
    _, _, _, time_us, record_id, record_type, source, tenant, correlation_id, _, data, extra = row
    # Made for every match: without the detour over a constructor in Python.
    if extra is None:
        return _new_seen(Seen, (time_us, record_id, record_type, source, tenant, correlation_id, names, data, None, None, 0))
    value, depth = value_of_json(extra.get("value")), extra.get("depth", 0)
    return _new_seen(Seen, (time_us, record_id, record_type, source, tenant, correlation_id, names, data, value, None, depth))


_new_seen = tuple.__new__


def value_of_json(value: Any) -> Any:
    """A figure's value as JSON carries it; a list is the canonical text of a JSON value (`streams.correlation.figures.value_of`)."""
    return tuple(value) if isinstance(value, list) else value
