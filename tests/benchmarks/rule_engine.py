"""The rule engine alone: records per second and type, no Kafka, no decoding. Run as `python -m tests.benchmarks.rule_engine`.

- `types`: each type with its window, 1,000 groups, records in order; about one match per 1,000 records;
- `distinct` (S3): distinct count with 1,800 values in the window of one group;
- `disorder`: one group, eager, grace 10 s at 5,000 records/s, every second record 5 s behind;
- `rules` (S2): matching and correlation with 1 rule and with 1,000 rules of mixed types, 1 % of the records matching.

Each line is the best of `REPEATS` runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from streams.correlation.chain import Chain
from streams.correlation.engine import Engine
from streams.correlation.figures import value_of
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule, Rule
from streams.correlation.seen import Seen
from streams.matching.matchers import RecordView

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
RECORDS = 50_000
GROUPS = 1000
REPEATS = 2

_COUNT = {"type": "event_count", "condition": {"gte": 1000}, "timespan": "5m"}
_FIELD = {"field": "data.v"}


def _value(kind: str, window: str = "sliding", **condition: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "condition": {**_FIELD, **condition},
        "timespan": "5m",
        "window": window,
        **({"gap": "10s"} if window == "session" else {}),
    }


TYPES: dict[str, dict[str, Any]] = {
    "event_count sliding": _COUNT,
    "event_count tumbling": {**_COUNT, "window": "tumbling"},
    "event_count session": {**_COUNT, "window": "session", "gap": "10s"},
    "value_count": _value("value_count", gte=1000),
    "value_sum": _value("value_sum", gte=1e9),
    "value_avg": _value("value_avg", gte=1e9),
    "value_min": _value("value_min", gte=1e9),
    "value_max": _value("value_max", gte=1e9),
    "value_percentile": _value("value_percentile", percentile=95, gte=1e9),
    "value_percentile tumbling": _value("value_percentile", "tumbling", percentile=95, gte=1e9),
    "rate_change": {"type": "rate_change", "condition": {"gte": 1000, "baseline": 5}, "timespan": "1s"},
    "temporal": {"type": "temporal", "events": ["a", "b", "z"], "timespan": "5m"},
    "temporal_ordered": {"type": "temporal_ordered", "events": ["a", {"event": "b", "times": 3}, {"not": "c"}, "z"], "timespan": "5m"},
    "absence": {"type": "absence", "events": ["a", "b"], "timespan": "30s"},
    "anomaly": {"type": "anomaly", "condition": {**_FIELD, "threshold": 0.9999}},
    "anomaly, counts": {"type": "anomaly", "condition": {"threshold": 0.9999}, "timespan": "1s"},
}
EVENTS = {name: {"type": name} for name in "abcz"}


def rule(id: str, **correlation: Any) -> Rule:
    return parse_rule({"id": id, "events": EVENTS, "correlation": {"events": ["a", "b", "c"], **correlation}})


def matches(of: Rule, count: int, groups: int, *, values: int = 1800, step_us: int = 1000) -> list[tuple[str, Seen]]:
    """Records in order, as the index gives them."""
    found = []
    for number in range(count):
        name = "abc"[number // groups % 3]
        value = value_of(of.type, f"v{number % values}" if of.type == "value_count" else (number * 7919 % 1000) / 8)
        data = '{"v":1}'
        found.append((f'["g{number % groups}"]', Seen(T0 + number * step_us, f"e{number}", name, names=(name,), data=data, value=value)))
    return found


def engine_rate(of: Rule, given: list[tuple[str, Seen]], *, every: int = 100) -> float:
    """Records per second through the engine; the clock moves every `every` records, as watermarks come."""
    engine = Engine()
    engine.use(ActiveRule(rule=of, version=1, order=0))
    started = time.process_time()
    clock = T0
    for number, (group, seen) in enumerate(given):
        engine.feed("r", group, seen, (number,))
        clock = max(clock, seen.time_us)
        if number % every == 0:
            engine.advance(clock)
            engine.flush()
    return len(given) / (time.process_time() - started)


def best(measure: Callable[[], float]) -> float:
    return max(measure() for _ in range(REPEATS))


def types() -> Iterator[tuple[str, float]]:
    for name, correlation in TYPES.items():
        for output in ("eager", "final"):
            of = rule("r", **correlation, output=output, **{"group-by": ["data.g"]})
            given = matches(of, RECORDS, GROUPS)
            yield f"{name}, {output}", best(lambda of=of, given=given: engine_rate(of, given))


def distinct() -> Iterator[tuple[str, float]]:
    of = rule("r", type="value_count", condition={**_FIELD, "gte": 100_000}, timespan="1800ms")
    given = matches(of, RECORDS, 1)
    yield "distinct count, 1,800 values in the window, eager", best(lambda: engine_rate(of, given))
    final = rule("r", type="value_count", condition={**_FIELD, "gte": 100_000}, timespan="1800ms", output="final")
    yield "distinct count, 1,800 values in the window, final", best(lambda: engine_rate(final, given))


def disorder() -> Iterator[tuple[str, float]]:
    for name, timespan, condition in (("no match", "30s", {"gte": 10**9}), ("a match per 1,000", "30s", {"gte": 1000})):
        of = rule("r", type="event_count", condition=condition, timespan=timespan, grace="10s")
        given = matches(of, 50_000, 1, step_us=200)
        late = [
            (group, seen._replace(time_us=seen.time_us - 5 * SECOND if number % 2 else seen.time_us))
            for number, (group, seen) in enumerate(given)
        ]
        yield f"one group, 5,000/s, every second record 5 s behind, {name}", best(lambda of=of, late=late: engine_rate(of, late, every=500))


def mixed(number: int, topic: str | None = None) -> dict[str, Any]:
    """One of many rules: a fifth by type, a fifth by a glob, the others by what the payload says; of a topic, or the default ones."""
    correlation = [{**item, "group-by": ["data.g"]} for item in TYPES.values()][number % len(TYPES)]
    of: dict[str, Any] = {} if topic is None else {"topic": topic}
    events = {name: {"type": f"t{number}.{name}", **of} if number % 5 == 0 else {"type": f"t{number}.*", **of} if number % 5 == 1 else
              {"type": "shared.*", "where": f'data.kind == "k{number}" && data.v >= 0', **of} for name in "abcz"}  # fmt: skip
    return {"id": f"r{number}", "events": events, "correlation": {"events": ["a", "b", "c"], **correlation}}


def views(count: int, rules: int) -> list[RecordView]:
    """Records of which 1 % match one of the rules 0 to `rules`."""
    found = []
    for number in range(count):
        hit = number % 100 == 0
        of = number // 100 * 7 % rules if hit else rules + number % 50
        type_ = f"t{of}.{'abc'[number % 3]}" if of % 5 < 2 else "shared.a"
        data = orjson.dumps({"g": number % GROUPS, "v": number % 97, "kind": f"k{of}", "text": "x" * 40}).decode()
        found.append(
            RecordView({"id": f"e{number}", "type": type_, "source": "s", "subject": "", "time": T0 + number * 1000, "data": data})
        )
    return found


def rules() -> Iterator[tuple[str, float]]:
    for count in (1, 1000):
        chain_rules = [ActiveRule(rule=parse_rule(mixed(number + 2)), version=1, order=number) for number in range(count)]

        def measure(of: list[ActiveRule] = chain_rules, count: int = count) -> float:
            chain, given = Chain(of), views(RECORDS, count + 2)
            started = time.process_time()
            for arrival, view in enumerate(given):
                list(chain.record(None, view, arrival))
                if arrival % 100 == 0:
                    list(chain.advance(view.plain["time"]))
            return len(given) / (time.process_time() - started)

        yield f"{count:,} rules of mixed types, 1 % matching", best(measure)


SUITES: dict[str, Callable[[], Iterator[tuple[str, float]]]] = {"types": types, "distinct": distinct, "disorder": disorder, "rules": rules}

if __name__ == "__main__":
    for suite in sys.argv[1:] or SUITES:
        for label, rate in SUITES[suite]():
            print(f"{label:<60} {rate:>12,.0f} records/s", flush=True)
