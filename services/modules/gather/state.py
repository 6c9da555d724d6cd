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
    due_us: int
    time_us: int  #: when it was asked
    answers: Mapping[str, Json] = field(default_factory=dict)  #: partition (as text) → its list; null: it refused


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAsked:
    """A list was asked of all partitions. `answer` is that of the own one."""

    TYPE: ClassVar[str] = "query.asked"
    caller: Caller
    parameters: Json
    partitions: int
    partition: int
    answer: Json
    due_us: int


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
