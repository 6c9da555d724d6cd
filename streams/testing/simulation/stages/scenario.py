"""What a seed makes of a run of the stages: topics, weather, troubles, rules and records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from streams.records import Json
from streams.testing.simulation.broker import Weather, stormy

Chance = Callable[[], float]

#: Matchers by name: types of records that satisfy them.
EVENTS: dict[str, list[str]] = {"a": ["sim.a", "sim.ab"], "b": ["sim.b", "sim.ab", "sim.bc"], "c": ["sim.c", "sim.bc"]}
TYPES = ("sim.a", "sim.a", "sim.a", "sim.b", "sim.b", "sim.c", "sim.ab", "sim.bc", "sim.other")
SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StageScenario:
    """Times in microseconds."""

    sources: int  #: partitions of the events
    partitions: int  #: of matches and composites
    workers: int
    records: int
    groups: int
    storm_us: int
    speed: float  #: event time that goes by in the time of the wall clock
    disorder_us: int  #: a record is at most so far behind others in event time
    weather: Weather
    rules: tuple[Json, ...]  #: in force from the beginning
    changes: tuple[tuple[float, str, Json], ...]  #: (when, as a share of the storm; id; document, None: deleted)
    crashes: float  #: chance that a process gets a planned crash when it starts
    stops: float  #: mean stops per process and second
    terminations: float
    rebalances: float
    doubles: float  #: chance that a partition is given to a second member as well
    watermark_s: float
    checkpoint_s: float
    checkpoint_records: int
    batch_records: int  #: most records of a producer's batch
    void: float  #: share of the transitions that an owner writes who has lost the log
    broken: float  #: share of the events that are no record
    ahead: float  #: share of the events that are dated far into the future

    @classmethod
    def drawn(cls, chance: Chance) -> StageScenario:
        """A random one: each trouble is there or not, so that runs differ in kind and not only in degree."""

        def rate(most: float, share: float = 0.5) -> float:
            return most * chance() if chance() < share else 0.0

        weather = stormy(chance)
        weather = replace(weather, doubled=weather.doubled * 0.5, slow_us=min(weather.slow_us, 3 * SECOND_US))
        storm_us = int(1_500_000 + chance() ** 2 * 8_000_000)
        rules = tuple(rule(chance, f"rule-{number}") for number in range(1 + int(chance() * 4)))
        return cls(
            sources=1 + int(chance() * chance() * 4), partitions=1 + int(chance() * chance() * 4), workers=1 + int(chance() * 3),
            records=int(6 + 70 * chance()), groups=1 + int(chance() * 4), storm_us=storm_us,
            speed=(1.0, 5.0, 20.0)[int(chance() * 3)], disorder_us=int(rate(6 * SECOND_US)), weather=weather,
            rules=rules, changes=tuple(_changes(chance, len(rules))),
            crashes=rate(1.0, 0.8), stops=rate(0.5), terminations=rate(0.2, 0.3), rebalances=rate(1.2, 0.6), doubles=rate(0.8, 0.3),
            watermark_s=0.1 if chance() < 0.3 else 0.2 + 0.8 * chance(), checkpoint_s=0.2 + 4 * chance() ** 2,
            checkpoint_records=int(5 + 200 * chance() ** 2), batch_records=int(2 + 60 * chance() ** 2),
            void=rate(0.4), broken=rate(0.1, 0.3), ahead=rate(0.1, 0.3),
        )  # fmt: skip


def _changes(chance: Chance, rules: int) -> list[tuple[float, str, Json]]:
    if chance() < 0.4:
        return []
    changes: list[tuple[float, str, Json]] = []
    for _ in range(1 + int(chance() * 3)):
        # An old rule or a new one; the first one never changes, so that each run has one that must go on as if nothing was.
        rule_id = f"rule-{1 + int(chance() * (rules + 1))}"
        changes.append((chance(), rule_id, None if chance() < 0.2 else rule(chance, rule_id)))
    return sorted(changes, key=lambda change: change[0])


def rule(chance: Chance, rule_id: str) -> dict[str, Any]:
    """A random rule's document."""
    correlation, names = _SHAPES[int(chance() * len(_SHAPES))](chance)
    correlation |= {"grace": f"{int(8000 + 40_000 * chance() ** 2)}ms"}
    if chance() < 0.8:
        correlation["group-by"] = ["data.g"]
    if chance() < 0.4:
        correlation["output"] = "final"
    if chance() < 0.3 and correlation["type"] != "absence":
        correlation["after-match"] = "continue"
    document: dict[str, Any] = {"id": rule_id, "events": {name: {"type": EVENTS[name]} for name in names}, "correlation": correlation}
    if chance() < 0.3:
        document["suppress"] = f"{1 + int(chance() * 20)}s"
    return document


def _name(chance: Chance) -> str:
    return ("a", "a", "b", "c")[int(chance() * 4)]


def _span(chance: Chance) -> str:
    return f"{(1, 3, 6, 12)[int(chance() * 4)]}s"


def _count(chance: Chance) -> tuple[dict[str, Any], list[str]]:
    window = ("sliding", "sliding", "tumbling", "session")[int(chance() * 4)]
    kind = ("event_count", "event_count", "value_count", "value_sum", "value_avg", "value_max", "value_percentile")[int(chance() * 7)]
    condition: dict[str, Any] = {"gte": 1 + int(chance() * 3)} if window == "sliding" or chance() < 0.6 else {"lt": 3}
    if kind != "event_count":
        condition["field"] = "data.v"
    if kind == "value_percentile":
        condition["percentile"] = 95
    names = sorted({_name(chance), _name(chance)})
    correlation: dict[str, Any] = {"type": kind, "events": names, "window": window, "condition": condition}
    if window == "session":
        correlation["gap"] = _span(chance)
    else:
        correlation["timespan"] = _span(chance)
    return correlation, names


def _rate(chance: Chance) -> tuple[dict[str, Any], list[str]]:
    return {"type": "rate_change", "events": ["a"], "timespan": "3s", "condition": {"baseline": 1 + int(chance() * 2), "gte": 1.5}}, ["a"]


def _temporal(chance: Chance) -> tuple[dict[str, Any], list[str]]:
    return {"type": "temporal", "events": ["a", "b"], "timespan": _span(chance)}, ["a", "b"]


def _ordered(chance: Chance) -> tuple[dict[str, Any], list[str]]:
    sequences: list[list[Any]] = [["a", "b"], ["a", {"not": "c"}, "b"], [{"event": "a", "times": 2}, "b"], ["a", "b", {"not": "c"}]]
    events = sequences[int(chance() * 4)]
    names = sorted({each if isinstance(each, str) else next(iter(each.values())) for each in events})
    return {"type": "temporal_ordered", "events": events, "timespan": _span(chance)}, names


def _absence(chance: Chance) -> tuple[dict[str, Any], list[str]]:
    names = ["a"] if chance() < 0.4 else ["a", "b"]
    return {"type": "absence", "events": names, "timespan": _span(chance)}, names


_SHAPES: tuple[Callable[[Chance], tuple[dict[str, Any], list[str]]], ...] = (_count, _count, _rate, _temporal, _ordered, _ordered, _absence)
