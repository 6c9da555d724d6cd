"""State and events of a list that is being gathered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from services.modules.operation import Caller
from streams.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """A list that waits for the answers of other partitions."""

    gathering_id: str
    caller: Caller
    parameters: Json
    partitions: int
    partition: int = -1  #: that was asked by the caller; -1: it had answered when the others were asked, as in early logs
    due_us: int
    end_us: int = 0  #: when it is answered at the latest
    time_us: int  #: when it was asked
    answers: Mapping[str, Json] = field(default_factory=dict)  #: partition (as text) → its list; null: it refused


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAsked:
    """A list was asked of all partitions. In early logs the own one had answered already: these have `due_us` and `answer`."""

    TYPE: ClassVar[str] = "query.asked"
    caller: Caller
    parameters: Json
    partitions: int
    partition: int
    end_us: int = 0
    due_us: int | None = None
    answer: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswered:
    """A partition has answered."""

    TYPE: ClassVar[str] = "query.answered"
    partition: int
    answer: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryMerged:
    """The answers were put together, or what there was of them when the time was over."""

    TYPE: ClassVar[str] = "query.merged"
    missing: tuple[int, ...] = ()


GatherEvent: TypeAlias = QueryAsked | QueryAnswered | QueryMerged
EVENTS = (QueryAsked, QueryAnswered, QueryMerged)
