"""Matchers: conditions on one record, compiled once. Rules and routes both use them.

Pure. `RecordView` is how CEL and paths see a record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streams.matching.expressions import Expression, ExpressionFailed, compiled
from streams.matching.globs import compile_glob
from streams.matching.paths import MISSING
from streams.matching.reading import required_equalities
from streams.nesting import parsed
from streams.records import from_micros, to_micros
from streams.topics import COMPOSITES, SYSTEM_EVENTS, TRANSITIONS

#: Topics of a matcher that names none.
DEFAULT_TOPICS = (SYSTEM_EVENTS, TRANSITIONS)
_FIRST_US, _LAST_US = to_micros(datetime.min.replace(tzinfo=UTC)), to_micros(datetime.max.replace(tzinfo=UTC))
_PAYLOAD = frozenset({"data"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """Conditions on one record; None: anything. Globs are texts (`streams.matching.globs`), `where` is CEL."""

    name: str
    topics: tuple[str, ...] | None = None  #: logical names; None: the default topics
    types: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    subjects: tuple[str, ...] | None = None
    severities: tuple[str, ...] | None = None
    rules: tuple[str, ...] | None = None  #: composites of these rules, and nothing else
    where: str | None = None


class RecordView:
    """A record as CEL and paths see it: its fields by name, `data` parsed, `time` an instant; parsed only when read."""

    __slots__ = ("_data", "_plain", "_values", "time_us", "type")

    def __init__(self, plain: Mapping[str, Any]) -> None:
        """`plain` as `Codec.decode_raw` gives it: `time` in microseconds, `data` as JSON text."""
        self.type: str = plain["type"]
        self.time_us: int = plain["time"]
        self._plain: Mapping[str, Any] | None = plain
        self._data: Any = MISSING
        self._values: dict[str, Any] | None = None

    @property
    def plain(self) -> Mapping[str, Any]:
        """The record as it was given."""
        assert self._plain is not None
        return self._plain

    def text(self, name: str) -> str:
        """A text of the envelope; empty if it is missing or null."""
        return self.plain.get(name) or ""

    @property
    def payload(self) -> bytes:
        """The payload's JSON text, as it came. Raises as `data` if it is none."""
        _ = self.data
        return self.text("data").encode()

    @property
    def severity(self) -> str:
        """`info` of records that have none."""
        return self.plain.get("severity") or "info"

    def essentials(self) -> tuple[str, str, str, str, str, str, int]:
        """What correlation keeps of a record: id, type, source, tenant, correlation id, and the payload's JSON text.

        Last comes how many characters those before the payload have at most.
        """
        texts = (self.plain["id"], self.type, self.text("source"), self.text("tenant") or "default", self.text("correlation_id"))
        return *texts, self.text("data"), sum(map(len, texts))

    @property
    def data(self) -> Any:
        """The payload. Raises `ExpressionFailed` if it is no JSON, or the record's time no instant."""
        if self._data is MISSING:
            if not _FIRST_US <= self.time_us <= _LAST_US:
                raise ExpressionFailed("the record cannot be read: its time is no instant")
            try:
                self._data = parsed(self.text("data"))
            except ValueError as error:
                raise ExpressionFailed(f"the record cannot be read: {error}") from error
        return self._data

    def root(self, name: str) -> Any:
        """A field by its name; `MISSING` if there is none. Raises as `data`."""
        return self.data if name == "data" else self.values.get(name, MISSING)

    def draft(self, roots: Collection[str]) -> Mapping[str, Any]:
        """As `values`, with at least these fields and those that all records share. Raises as `data`."""
        return self.values

    @property
    def values(self) -> dict[str, Any]:
        """All fields. Raises as `data`."""
        if self._values is None:
            self._values = {**self.plain, "data": self.data, "time": from_micros(self.time_us)}
        return self._values


class CompiledMatcher:
    """A matcher ready for use."""

    __slots__ = (
        "_composites",
        "_of_payload",
        "_severities",
        "_sources",
        "_subjects",
        "_types",
        "_where",
        "bare",
        "name",
        "patterns",
        "required",
        "required_is_all",
        "topics",
    )

    def __init__(self, matcher: Matcher) -> None:
        self.name = matcher.name
        self.topics: Collection[str] = matcher.topics if matcher.topics is not None else DEFAULT_TOPICS
        self._composites = None if matcher.rules is None else frozenset(f"composite.{rule}" for rule in matcher.rules)
        #: Globs of which a record's type satisfies one; None: any type. For a first look: `concerns` decides.
        self.patterns = matcher.types
        if self._composites is not None:
            self.topics = (COMPOSITES,)
            self.patterns = tuple(self._composites)
        self._types = _globs(matcher.types)
        self._sources = _globs(matcher.sources)
        self._subjects = _globs(matcher.subjects)
        self._severities = None if matcher.severities is None else frozenset(matcher.severities)
        self._where: Expression | None = None if matcher.where is None else compiled(matcher.where, numbers_alike=True)
        self._of_payload = self._where is not None and self._where.variables <= _PAYLOAD
        #: Whether a record that it concerns satisfies it, whatever else it says.
        self.bare = self._sources is None and self._subjects is None and self._severities is None and self._where is None
        #: Paths that must lead to these texts, and whether `where` says no more than that.
        self.required, self.required_is_all = ({}, False) if matcher.where is None else required_equalities(matcher.where)

    def concerns(self, topic: str | None, record_type: str) -> bool:
        """Whether records of this type in this topic (None: unknown, any) can satisfy it."""
        if self._composites is not None and record_type not in self._composites:
            return False
        return (topic is None or topic in self.topics) and _any(self._types, record_type)

    def holds(self, view: RecordView, *, where: bool = True) -> bool:
        """Whether a record that it concerns satisfies the rest; without `where` all but that. Raises `ExpressionFailed`."""
        if self._sources is not None and not _any(self._sources, view.text("source")):
            return False
        if self._subjects is not None and not _any(self._subjects, view.text("subject")):
            return False
        if self._severities is not None and view.plain.get("severity") not in self._severities:
            return False
        if not where or self._where is None:
            return True
        return self._where.holds({"data": view.data} if self._of_payload else view.values)


def refusal(matcher: Matcher, view: RecordView) -> str | None:
    """Which of source, subject and severity does not satisfy the matcher, a sentence; None: they do."""
    for name, patterns in (("source", matcher.sources), ("subject", matcher.subjects)):
        if not _any(_globs(patterns), view.text(name)):
            return f"its {name} {view.text(name) or '(empty)'} does not satisfy {', '.join(patterns or ())}"
    severity = view.plain.get("severity")
    if matcher.severities is not None and severity not in matcher.severities:
        return f"its severity {severity} is none of {', '.join(matcher.severities)}"
    return None


def _globs(patterns: tuple[str, ...] | None) -> tuple[Callable[[str], bool], ...] | None:
    return None if patterns is None else tuple(map(compile_glob, patterns))


def _any(globs: tuple[Callable[[str], bool], ...] | None, name: str) -> bool:
    return globs is None or any(fits(name) for fits in globs)
