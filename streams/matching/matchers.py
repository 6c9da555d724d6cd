"""Matchers: conditions on one record, compiled once. Rules and routes both use them.

Pure. `RecordView` is how CEL and paths see a record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from streams.matching.expressions import Expression, ExpressionFailed, compiled
from streams.matching.globs import compile_glob
from streams.matching.reading import required_equalities
from streams.nesting import parsed
from streams.records import from_micros
from streams.topics import COMPOSITES, SYSTEM_EVENTS, TRANSITIONS

#: Topics of a matcher that names none.
DEFAULT_TOPICS = (SYSTEM_EVENTS, TRANSITIONS)


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

    __slots__ = ("_plain", "_values")

    def __init__(self, plain: Mapping[str, Any]) -> None:
        """`plain` as `Codec.decode_raw` gives it: `time` in microseconds, `data` as JSON text."""
        self._plain = plain
        self._values: dict[str, Any] | None = None

    @property
    def plain(self) -> Mapping[str, Any]:
        """The record as it was given."""
        return self._plain

    @property
    def values(self) -> dict[str, Any]:
        """All fields. Raises `ExpressionFailed` if `data` is no JSON, or too deep, or `time` no instant."""
        if self._values is None:
            try:
                self._values = {**self._plain, "data": parsed(self._plain["data"]), "time": from_micros(self._plain["time"])}
            except (ValueError, OverflowError) as error:
                raise ExpressionFailed(f"the record cannot be read: {error}") from error
        return self._values


class CompiledMatcher:
    """A matcher ready for use."""

    __slots__ = (
        "_composites",
        "_severities",
        "_sources",
        "_subjects",
        "_types",
        "_where",
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
        #: Paths that must lead to these texts, and whether `where` says no more than that.
        self.required, self.required_is_all = ({}, False) if matcher.where is None else required_equalities(matcher.where)

    def concerns(self, topic: str | None, record_type: str) -> bool:
        """Whether records of this type in this topic (None: unknown, any) can satisfy it."""
        if self._composites is not None and record_type not in self._composites:
            return False
        return (topic is None or topic in self.topics) and _any(self._types, record_type)

    def holds(self, view: RecordView, *, where: bool = True) -> bool:
        """Whether a record that it concerns satisfies the rest; without `where` all but that. Raises `ExpressionFailed`."""
        plain = view.plain
        if not _any(self._sources, plain.get("source") or "") or not _any(self._subjects, plain.get("subject") or ""):
            return False
        if self._severities is not None and plain.get("severity") not in self._severities:
            return False
        return not where or self._where is None or self._where.holds(view.values)


def _globs(patterns: tuple[str, ...] | None) -> tuple[Callable[[str], bool], ...] | None:
    return None if patterns is None else tuple(map(compile_glob, patterns))


def _any(globs: tuple[Callable[[str], bool], ...] | None, name: str) -> bool:
    return globs is None or any(fits(name) for fits in globs)
