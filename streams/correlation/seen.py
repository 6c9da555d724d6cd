"""What the engine keeps of a record, and what a type of correlation finds in records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from streams.records import Json

#: Where a record stands among those that arrived: compared as it is. `()` is before every record.
Arrival: TypeAlias = tuple[Any, ...]
#: The arrival and id of the source record that fired a finding; of a deadline or a window before every record.
Place: TypeAlias = tuple[Arrival, str]
BEFORE_ALL: Place = ((), "")

#: Records of a window, counted from its newest, whose payload is kept for insights.
SAMPLES_MAX = 100


class Seen(NamedTuple):
    """A record that takes part, as a group keeps it."""

    time_us: int
    id: str
    type: str = ""
    source: str = ""
    tenant: str = "default"
    correlation_id: str = ""
    names: tuple[str, ...] = ()  #: the matchers that it satisfies
    data: str = "{}"  #: JSON text; "{}" once it is no longer among the samples
    value: Any = None  #: of the condition's field, as `streams.correlation.figures.value_of` gives it
    after: tuple[Arrival, str, int] | None = None  #: of a composite: arrival and id of the record that fired it, and the rule's level
    depth: int = 0  #: see `streams.causation`

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        return list(self)

    @classmethod
    def load(cls, state: Json) -> Seen:
        """From `dump`."""
        values: list[Any] = list(state)
        values[6] = tuple(values[6])
        values[8] = tuple(values[8]) if isinstance(values[8], list) else values[8]
        values[9] = None if values[9] is None else (tuple(values[9][0]), *values[9][1:])
        return cls(*values)


def thinned(seen: Seen) -> Seen:
    """What is left of a record that counts but is no longer known by its id."""
    return Seen(seen.time_us, "", value=seen.value, depth=seen.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a value was held against: what its group's own history led to expect (`streams.correlation.anomaly`)."""

    value: float
    score: float  #: in [0, 1)
    expected: float
    low: float  #: of the usual range
    high: float
    kind: str  #: what is unusual about it, e.g. `level`


@dataclass(frozen=True, slots=True)
class Found:
    """What a fold found: the rule's pattern is satisfied, with these records. `count` may exceed `records` (limits)."""

    firing: str  #: identifies it within rule, version and group: the firing record's id, the window or the deadline
    window_start_us: int
    window_end_us: int
    records: tuple[Seen, ...]  #: in their order
    count: int
    value: float  #: the figure that the condition was tested with; of patterns the number of records
    suppressed: int = 0  #: matches kept silent since the last composite that was said
    judged: Judged | None = None  #: of `anomaly`

    def says(self, other: Found) -> bool:
        """Whether both lead to the same composite; payloads that are no longer kept make no difference."""
        return (
            (self.firing, self.window_start_us, self.window_end_us, self.count, self.value, self.suppressed)
            == (other.firing, other.window_start_us, other.window_end_us, other.count, other.value, other.suppressed)
            and self.judged == other.judged
            and [seen.id for seen in self.records] == [seen.id for seen in other.records]
            and [seen.data for seen in self.records[-SAMPLES_MAX:]] == [seen.data for seen in other.records[-SAMPLES_MAX:]]
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Draft:
    """What the engine says: a finding of a group, said for the `revision`-th time after the first, or taken back."""

    rule_id: str
    group_key: str
    composite_id: str
    found: Found
    revision: int = 0
    retracted: bool = False
    place: Place = BEFORE_ALL
    before: Found | None = None  #: what was said under this id until now and stands no more
