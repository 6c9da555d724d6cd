"""What of the history rules need, as SQL: only records that their matchers may be satisfied by, of only the columns that they read. Pure.

What is asked for is never less than what the matchers take: a glob becomes its literal beginning, a required text becomes "it occurs
somewhere in the payload". What comes is matched like any record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from streams.correlation.rules import Rule
from streams.correlation.templates import escaped
from streams.errors import InvalidDocument, Violation
from streams.matching.expressions import compiled
from streams.matching.globs import is_literal
from streams.matching.matchers import DEFAULT_TOPICS, Matcher
from streams.matching.paths import compile_path
from streams.matching.reading import Steps, required_equalities
from streams.records import RECORDS
from streams.topics import COMMANDS, COMPOSITES, DELIVERIES, MESSAGES, REQUESTS, RESPONSES, SYSTEM_EVENTS, TRANSITIONS

#: Table → the record that its rows were.
_RECORDS = {
    "workflow_transitions": "WorkflowTransition", "workflow_commands": "WorkflowCommand", "module_messages": "ModuleMessage",
    "system_events": "SystemEvent", "composite_events": "CompositeEvent", "deliveries": "Delivery",
}  # fmt: skip
#: Topic → the tables that have its records.
_TABLES = {
    TRANSITIONS: ("workflow_transitions",), COMMANDS: ("workflow_commands",), SYSTEM_EVENTS: ("system_events",),
    MESSAGES: ("module_messages", "system_events"), REQUESTS: ("module_messages",), RESPONSES: ("module_messages",),
    COMPOSITES: ("composite_events",), DELIVERIES: ("deliveries",),
}  # fmt: skip
#: What a match keeps of every record; first among the columns.
BASE = ("id", "type", "source", "time", "tenant", "correlation_id", "data")
_TIMES = frozenset({"time", "deadline", "window_start", "window_end"})
#: Fields that are no single value; they come as JSON texts.
STRUCTURED = frozenset({"input", "error", "group_key", "event_ids", "insights"})
_PLAIN = re.compile(r"[ -!#-.0-\[\]-~]+")  # ASCII without quotes, slashes and backslashes: written in JSON as it is
#: The order of records: that of event time; ties by arrival.
_ORDER = "time, _timestamp, _topic, _partition, _offset"


@dataclass(slots=True)
class Query:
    """SQL with parameters."""

    sql: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """What of the history some rules read: tables, columns, conditions."""

    matchers: tuple[Matcher, ...]  #: that read topics; those that read composites of other rules are no matter of the history
    fields: tuple[str, ...]  #: of records, in the order of the answers' columns

    @cached_property
    def tables(self) -> dict[str, list[tuple[str, list[Matcher]]]]:
        """Table → (topic, the matchers that read it)."""
        found: dict[str, list[tuple[str, list[Matcher]]]] = {}
        by_topic: dict[str, list[Matcher]] = {}
        for matcher in self.matchers:
            for topic in matcher.topics or DEFAULT_TOPICS:
                by_topic.setdefault(topic, []).append(matcher)
        for topic, matchers in sorted(by_topic.items()):
            for table in _tables_of(topic):
                found.setdefault(table, []).append((topic, matchers))
        return found

    def fields_of(self, table: str) -> tuple[str, ...]:
        """Those of `fields` that records of a table have."""
        known = RECORDS[_RECORDS[table]].__dataclass_fields__
        return tuple(name for name in self.fields if name in known)

    def counted(self, first_us: int, end_us: int, width_us: int) -> Query:
        """(bucket, records) of the period in buckets of `width_us`, in order."""
        made = _Writer()
        parts = [
            f"SELECT intDiv(toUnixTimestamp64Micro(time) - {made.value(first_us, 'Int64')}, {made.value(width_us, 'Int64')}) AS bucket "
            f"FROM {table} WHERE {self._where(made, table, first_us, end_us)}"
            for table in self.tables
        ]
        sql = f"SELECT bucket, count() AS records FROM ({' UNION ALL '.join(parts)}) GROUP BY bucket ORDER BY bucket"
        return Query(sql, made.parameters)

    def looked_at(self, first_us: int, end_us: int) -> Query:
        """How many records the topics have in the period, whatever their type."""
        made = _Writer()
        parts = []
        for table, topics in self.tables.items():
            names = ", ".join(made.value(topic, "String") for topic, _ in topics)
            parts.append(f"SELECT count() AS records FROM {table} WHERE _topic IN ({names}) AND {_period(made, first_us, end_us)}")
        return Query(f"SELECT sum(records) AS records FROM ({' UNION ALL '.join(parts)})", made.parameters)

    def page(self, first_us: int, end_us: int, skip: int, rows: int) -> Query:
        """At most `rows` records of a period in their order, less the first `skip`: a column for each field, `_table` and `_topic`."""
        made = _Writer()
        parts = []
        for number, table in enumerate(self.tables):
            here = set(self.fields_of(table))
            columns = [_column(name) if name in here else f"NULL AS {alias(name)}" for name in self.fields]
            where = self._where(made, table, first_us, end_us)
            parts.append(f"SELECT {number} AS _table, {', '.join(columns)}, {_PLACE} FROM {table} WHERE {where}")
        names = ", ".join(["_table", "_topic", *map(alias, self.fields)])
        limit = f"{made.value(rows, 'UInt64')} OFFSET {made.value(skip, 'UInt64')}"
        return Query(f"SELECT {names} FROM ({' UNION ALL '.join(parts)}) ORDER BY {_ORDER} LIMIT {limit}", made.parameters)

    def _where(self, made: _Writer, table: str, first_us: int, end_us: int) -> str:
        by_topic = [
            f"(_topic = {made.value(topic, 'String')} AND ({' OR '.join(_condition(made, table, each) for each in matchers)}))"
            for topic, matchers in self.tables[table]
        ]
        return f"{_period(made, first_us, end_us)} AND ({' OR '.join(by_topic)})"


#: What `_ORDER` needs.
_PLACE = "time, _timestamp, _topic, _partition, _offset"


class _Writer:
    """Collects values as parameters: nothing of a rule stands in the SQL itself."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self._names: dict[tuple[str, Any], str] = {}

    def value(self, value: Any, kind: str) -> str:
        """The value as a parameter."""
        name = self._names.setdefault((kind, value), f"p{len(self._names)}")
        self.parameters[name] = value
        return f"{{{name}:{kind}}}"


def selection(rules: Iterable[Rule]) -> Selection:
    """What the rules read. Raises `InvalidDocument` (`rule.not-backtested`) for a topic that the history does not keep."""
    given = list(rules)
    used = [(rule, matcher) for rule in given for matcher in rule.matchers if matcher.name in rule.names]
    faults = [
        Violation(
            code="backtest.topic-not-kept", pointer=f"/events/{escaped(matcher.name)}/topic",
            message=f"The history does not keep {topic}, which {matcher.name} of {rule.id} reads.",
        )
        for rule, matcher in used
        for topic in matcher.topics or ()
        if not _tables_of(topic)
    ]  # fmt: skip
    if faults:
        raise InvalidDocument("rule.not-backtested", "The history does not have what the rules read.", faults)
    reading = tuple(matcher for _, matcher in used if matcher.rules is None)
    return Selection(matchers=reading, fields=_fields(given, reading))


def _tables_of(topic: str) -> tuple[str, ...]:
    return _TABLES.get(topic, ("module_messages",) if topic.startswith(REQUESTS + ".") else ())


def _fields(rules: Sequence[Rule], matchers: Sequence[Matcher]) -> tuple[str, ...]:
    """The fields of records that the rules read, and those that every match keeps."""
    wanted = set(BASE)
    for matcher in matchers:
        wanted |= {name for name, part in (("subject", matcher.subjects), ("severity", matcher.severities)) if part is not None}
        if matcher.where is not None:
            wanted |= compiled(matcher.where, numbers_alike=True).variables
    for rule in rules:
        paths = [path for entry in rule.group_by for path in (rule.aliases[entry].values() if entry in rule.aliases else (entry,))]
        if rule.condition.field is not None:
            paths.append(rule.condition.field)
        wanted |= {compile_path(path).root for path in paths}
    known = [name for record in _RECORDS.values() for name in RECORDS[record].__dataclass_fields__]
    return tuple(name for name in dict.fromkeys((*BASE, *known)) if name in wanted)


def alias(name: str) -> str:
    """What a record's field is called in answers: its own name may be that of a column of another type."""
    return f"f_{name}"


def _column(name: str) -> str:
    """A record's field, as `Codec.decode_raw` gives it."""
    if name in _TIMES:
        return f"toUnixTimestamp64Micro({name}) AS {alias(name)}"
    if name in STRUCTURED:
        return f"toJSONString({name}) AS {alias(name)}"
    return f"{'data_text' if name == 'data' else name} AS {alias(name)}"


def _period(made: _Writer, first_us: int, end_us: int) -> str:
    first, end = (f"fromUnixTimestamp64Micro({made.value(at, 'Int64')}, 'UTC')" for at in (first_us, end_us))
    return f"time >= {first} AND time < {end}"


def _condition(made: _Writer, table: str, matcher: Matcher) -> str:
    """What a record satisfies at least if the matcher takes it."""
    if matcher.severities is not None and "severity" not in RECORDS[_RECORDS[table]].__dataclass_fields__:
        return "0"
    parts = [
        _globs(made, column, globs)
        for column, globs in (("type", matcher.types), ("source", matcher.sources), ("subject", matcher.subjects))
        if globs is not None
    ]
    if matcher.severities is not None:
        parts.append(f"severity IN ({', '.join(made.value(each, 'String') for each in matcher.severities)})")
    if matcher.where is not None:
        parts += [part for steps, text in required_equalities(matcher.where)[0].items() if (part := _required(made, steps, text))]
    return f"({' AND '.join(parts) or '1'})"


def _globs(made: _Writer, column: str, globs: Sequence[str]) -> str:
    literal = [glob for glob in globs if is_literal(glob)]
    parts = [f"{column} IN ({', '.join(made.value(each, 'String') for each in literal)})"] if literal else []
    for glob in globs:
        if not is_literal(glob):
            beginning = glob.partition("*")[0]
            # `order.**` takes `order` itself, too.
            parts.append(f"startsWith({column}, {made.value(beginning.removesuffix('.'), 'String')})")
    return f"({' OR '.join(parts)})"


def _required(made: _Writer, steps: Steps, text: str) -> str | None:
    """A text that must stand at a path: of the payload, it occurs in its JSON, unless that has escapes."""
    if steps[0] == "data" and len(steps) > 1 and _PLAIN.fullmatch(text):
        return f"(position(data_text, {made.value(text, 'String')}) > 0 OR position(data_text, '\\\\') > 0)"
    if steps in (("source",), ("subject",), ("type",)):
        return f"{steps[0]} = {made.value(text, 'String')}"
    return None
