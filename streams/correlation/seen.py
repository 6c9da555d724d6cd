"""What the engine keeps of a record, and what a type of correlation finds in records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.records import Json

#: Records of a window, counted from its newest, whose payload is kept for insights.
SAMPLES_MAX = 100


class Seen(NamedTuple):
    """A record that takes part, as a group keeps it. Records are ordered by `order`."""

    time_us: int
    tie: int | str  #: orders records of equal time: the number of the arrival (eager) or the id (final)
    id: str
    type: str = ""
    source: str = ""
    tenant: str = "default"
    correlation_id: str = ""
    names: tuple[str, ...] = ()
    data: str = "{}"  #: JSON text; "{}" once it is no longer among the samples

    @property
    def order(self) -> tuple[int, int | str]:
        """Its place among the records of its group."""
        return self.time_us, self.tie

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        return list(self)

    @classmethod
    def load(cls, state: Json) -> Seen:
        """From `dump`."""
        values: list[Any] = list(state)
        values[7] = tuple(values[7])
        return cls(*values)


@dataclass(frozen=True, slots=True)
class Found:
    """What a fold found: the rule's pattern is satisfied, with these records. `count` may exceed `records` (limits)."""

    firing: str  #: identifies it within rule, version and group: the id of the firing record
    window_start_us: int
    window_end_us: int
    records: tuple[Seen, ...]  #: in their order
    count: int
    value: float  #: the figure that the condition was tested with
    suppressed: int = 0  #: matches kept silent since the last composite that was said


@dataclass(frozen=True, slots=True)
class Draft:
    """What the engine says: a finding of a group, said for the `revision`-th time after the first, or taken back."""

    rule_id: str
    group_key: str
    composite_id: str
    found: Found
    revision: int = 0
    retracted: bool = False
