"""What a rule is: frozen values, complete and valid. `streams.correlation.parse` makes them from documents."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

from streams.correlation.actions import Action
from streams.matching.matchers import Matcher
from streams.records import Json, Severity

#: Every correlation type of the language.
TYPES = (
    "event_count", "value_count", "value_sum", "value_avg", "value_min", "value_max", "value_percentile", "rate_change", "temporal",
    "temporal_ordered", "absence", "anomaly",
)  # fmt: skip
#: Types over windows of records, tested by a condition.
WINDOWED = frozenset(TYPES[:8])
#: Types whose condition names a field.
WITH_FIELD = frozenset(TYPES[1:7])
#: Figures that satisfy a lower bound for good once they satisfy it as records are added, so that the firing record is the first.
_GROWING = frozenset({"event_count", "value_count", "value_sum", "value_max"})
#: Score that `anomaly` asks for if its rule does not say.
THRESHOLD_DEFAULT = 0.99

Window: TypeAlias = Literal["sliding", "tumbling", "session"]

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le, "eq": operator.eq, "neq": operator.ne,
}  # fmt: skip
#: The same with the bound in front.
_SWAPPED: Mapping[str, Callable[[float, float], bool]] = {
    "gt": operator.lt, "gte": operator.le, "lt": operator.gt, "lte": operator.ge, "eq": operator.eq, "neq": operator.ne,
}  # fmt: skip
_SIGNS = {"gt": "more than", "gte": "at least", "lt": "less than", "lte": "at most", "eq": "exactly", "neq": "other than"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a figure must satisfy: all of `tests`."""

    tests: tuple[tuple[str, float], ...] = ()
    field: str | None = None  #: path of the figure's values
    percentile: float | None = None
    baseline: int | None = None  #: windows before this one that `rate_change` compares with
    threshold: float | None = None  #: score that `anomaly` must exceed

    def holds(self, figure: float) -> bool:
        """Whether the figure satisfies every test."""
        return all(_OPERATORS[name](figure, bound) for name, bound in self.tests)

    def test_holds(self, name: str, figure: float) -> bool:
        """Whether the figure satisfies the test of this name."""
        return all(_OPERATORS[name](figure, bound) for each, bound in self.tests if each == name)

    def test(self) -> Callable[[float], bool]:
        """`holds`, as cheap as it can be: it is asked at every record."""
        if len(self.tests) == 1:
            name, bound = self.tests[0]
            return partial(_SWAPPED[name], bound)
        return self.holds

    @property
    def only_lower_bounds(self) -> bool:
        """Whether it has `gt` and `gte` alone."""
        return all(name in ("gt", "gte") for name, _ in self.tests)

    def text(self) -> str:
        """The tests in words: `at least 3 and less than 10`."""
        return " and ".join(f"{_SIGNS[name]} {bound:.15g}" for name, bound in self.tests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One record of a `temporal_ordered` sequence."""

    name: str
    barred: frozenset[str] = frozenset()  #: matchers that must have no record between the step before and this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A complete, valid rule. Durations are microseconds."""

    id: str
    title: str = ""
    severity: Severity = "warning"
    enabled: bool = True
    matchers: tuple[Matcher, ...]
    type: str
    names: tuple[str, ...]  #: the matchers that the correlation speaks about, in the order in which they are named first
    steps: tuple[Step, ...] = ()  #: of `temporal_ordered`; `times` is written out
    barred_last: frozenset[str] = frozenset()  #: of `temporal_ordered`: a last `{not}`; watched until first + timespan
    until: str | None = None  #: of `temporal_ordered`: the matcher whose record drops what was begun
    group_by: tuple[str, ...] = ()  #: paths or aliases, as written
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  #: alias → matcher name → path
    condition: Condition = Condition()
    window: Window = "sliding"
    timespan_us: int = 0
    gap_us: int = 0
    grace_us: int = 0
    after_match: Literal["reset", "continue"] = "reset"
    output: Literal["eager", "final"] = "eager"
    suppress_us: int = 0
    confidence: float | str | None = None  #: a number, CEL, or None: the type's own measure
    actions: tuple[Action, ...] = ()
    document: Json = None  #: as it was given

    @property
    def timed(self) -> bool:
        """Whether it speaks when a window closes or a deadline is reached; else it speaks at records."""
        if self.type in WINDOWED:
            return self.window != "sliding" and not (self.type in _GROWING and self.condition.only_lower_bounds)
        return self.type == "absence" or bool(self.barred_last) or (self.type == "anomaly" and bool(self.timespan_us))

    @property
    def kept_us(self) -> int:
        """How long after its time a record can matter at most."""
        if self.type == "anomaly":
            return self.timespan_us or 1  # a record that is judged by itself has no span, and is still one record
        return self.gap_us if self.type in WINDOWED and self.window == "session" else self.timespan_us

    @property
    def upstream(self) -> frozenset[str]:
        """The rules whose composites it reads."""
        return frozenset(rule for matcher in self.matchers if matcher.name in self.names for rule in matcher.rules or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRule:
    """A version of a rule that is in use."""

    rule: Rule
    version: int  #: grows by one with each change; what people see
    order: int  #: offset in the control topic; orders versions, also of concurrent changes

    @property
    def id(self) -> str:
        """The rule's id."""
        return self.rule.id


def aggregate_of(rule_id: str, group_key: str) -> str:
    """The aggregate of a rule's group, and the key of its matches and composites. A rule's id has no `/`."""
    return f"{rule_id}/{group_key}"
