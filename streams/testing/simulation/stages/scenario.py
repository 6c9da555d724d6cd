"""What a seed makes of a run of the stages: topics, weather, troubles, rules and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from streams.records import Json
from streams.testing.simulation.broker import Weather, stormy
from streams.testing.simulation.stages.rules import TOLD, Chance, rule

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
    calls: float  #: chance that a call of a webhook goes wrong

    @classmethod
    def drawn(cls, chance: Chance) -> StageScenario:
        """A random one: each trouble is there or not, so that runs differ in kind and not only in degree."""

        def rate(most: float, share: float = 0.5) -> float:
            return most * chance() if chance() < share else 0.0

        weather = stormy(chance)
        weather = replace(weather, doubled=weather.doubled * 0.5, slow_us=min(weather.slow_us, 3 * SECOND_US))
        storm_us = int(1_500_000 + chance() ** 2 * 8_000_000)
        count = 1 + int(chance() * 4)
        rules: list[Json] = []
        for number in range(count):
            rules.append(rule(chance, f"rule-{number}", rules, last=number == count - 1))
        return cls(
            sources=1 + int(chance() * chance() * 4), partitions=1 + int(chance() * chance() * 4), workers=1 + int(chance() * 3),
            records=int(6 + 70 * chance()), groups=1 + int(chance() * 4), storm_us=storm_us,
            speed=(1.0, 5.0, 20.0)[int(chance() * 3)], disorder_us=int(rate(6 * SECOND_US)), weather=weather,
            rules=tuple(rules), changes=tuple(_changes(chance, rules)), calls=rate(0.5),
            crashes=rate(1.0, 0.8), stops=rate(0.5), terminations=rate(0.2, 0.3), rebalances=rate(1.2, 0.6), doubles=rate(0.8, 0.3),
            watermark_s=0.1 if chance() < 0.3 else 0.2 + 0.8 * chance(), checkpoint_s=0.2 + 4 * chance() ** 2,
            checkpoint_records=int(5 + 200 * chance() ** 2), batch_records=int(2 + 60 * chance() ** 2),
            void=rate(0.4), broken=rate(0.1, 0.3), ahead=rate(0.1, 0.3),
        )  # fmt: skip


def _changes(chance: Chance, rules: Sequence[Json]) -> list[tuple[float, str, Json]]:
    if chance() < 0.4:
        return []
    changes: list[tuple[float, str, Json]] = []
    for _ in range(1 + int(chance() * 3)):
        # An old rule or a new one; the first one never changes, so that each run has one that must go on as if nothing was.
        number = 1 + int(chance() * (len(rules) + 1))
        below = [each for each in rules[:number] if {"type": TOLD} not in each["events"].values()]
        changes.append((chance(), f"rule-{number}", None if chance() < 0.2 else rule(chance, f"rule-{number}", below)))
    return sorted(changes, key=lambda change: change[0])
