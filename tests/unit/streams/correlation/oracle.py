"""What rules mean, said again in the slowest and plainest way: straight from `docs/concepts/rules.md`, sharing nothing with the engine.

Everything is counted anew at every record, every sequence is found by trying all. Durations and times are whole seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from math import ceil
from typing import Any

TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b, "gte": lambda a, b: a >= b, "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b, "eq": lambda a, b: a == b, "neq": lambda a, b: a != b,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    time: int
    id: str
    type: str = "a"
    group: Any = "g"
    value: Any = None
    order: tuple[Any, ...] = ()  #: what orders records of equal time; by default the id


@dataclass(frozen=True)
class Match:
    firing: str  #: the record's id, or "" of a window or deadline
    start: int
    end: int
    ids: tuple[str, ...]
    value: float
    group: Any = None
    suppressed: int = 0


def names_of(rule: dict[str, Any], record: Record) -> set[str]:
    """Matchers are given by lists of types."""
    return {name for name, matcher in rule["events"].items() if record.type in matcher["type"]}


def on_time(rule: dict[str, Any], arrived: list[Record]) -> list[Record]:
    """The records that are not late when they arrive: not older than the watermark, the greatest time before less grace."""
    kept, newest = [], None
    for record in arrived:
        newest = record.time if newest is None else max(newest, record.time)
        if record.time >= newest - rule["correlation"].get("grace", 10):
            kept.append(record)
    return kept


def truth(rule: dict[str, Any], arrived: list[Record], until: int | None = None) -> list[Match]:
    """What `final` says of the records, in no particular order over groups; up to the watermark `until`, by default everything."""
    found: list[Match] = []
    groups: dict[Any, list[Record]] = {}
    for record in on_time(rule, arrived):
        if record.group is not None:
            groups.setdefault(record.group, []).append(record)
    for group, records in groups.items():
        records.sort(key=lambda record: (record.time, record.order or (record.id,)))
        matches = list(matched(rule, records))
        if until is not None:
            matches = [match for match in matches if (match.end < until if match.firing else match.end <= until)]
        found += [replace(match, group=group) for match in spoken(rule, matches)]
    return found


def spoken(rule: dict[str, Any], matches: list[Match]) -> Iterator[Match]:
    """`suppress`: a group is silent while `window_end` < that of the last composite said + `suppress`."""
    last, silent = None, 0
    for match in matches:
        if last is not None and match.end < last + rule.get("suppress", 0):
            silent += 1
            continue
        yield replace(match, suppressed=silent)
        last, silent = match.end, 0


def matched(rule: dict[str, Any], records: list[Record]) -> Iterator[Match]:
    """All matches of one group, in the order in which they are said."""
    kind, of = rule["correlation"]["type"], rule["correlation"]
    named = of.get("events", list(rule["events"]))
    if kind == "temporal":
        yield from together(rule, [r for r in records if names_of(rule, r) & set(named)])
    elif kind == "temporal_ordered":
        yield from ordered(rule, records)
    elif kind == "absence":
        yield from absent(rule, [r for r in records if names_of(rule, r) & set(named)])
    else:
        taking_part = [r for r in records if names_of(rule, r) & set(named) and takes_part(kind, r.value)]
        yield from windowed(rule, taking_part)


# --- windows ---


def takes_part(kind: str, value: Any) -> bool:
    if kind in ("event_count", "rate_change"):
        return True
    return value is not None and (kind == "value_count" or (isinstance(value, (int, float)) and not isinstance(value, bool)))


def figure(rule: dict[str, Any], records: list[Record]) -> float:
    condition, values = rule["correlation"]["condition"], [record.value for record in records]
    match rule["correlation"]["type"]:
        case "event_count":
            return len(records)
        case "value_count":
            distinct: list[Any] = []
            for value in values:
                if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in distinct):
                    distinct.append(value)
            return len(distinct)
        case "value_sum":
            return float(sum(map(Fraction, values)))
        case "value_avg":
            return float(sum(map(Fraction, values)) / len(values))
        case "value_min":
            return min(values)
        case "value_max":
            return max(values)
        case _:
            rank = max(1, ceil(Fraction(str(condition["percentile"])) * len(values) / 100))
            return sorted(values)[rank - 1]


def holds(rule: dict[str, Any], value: float) -> bool:
    return all(
        test(value, rule["correlation"]["condition"][name]) for name, test in TESTS.items() if name in rule["correlation"]["condition"]
    )


def windowed(rule: dict[str, Any], records: list[Record]) -> Iterator[Match]:
    of = rule["correlation"]
    window = "tumbling" if of["type"] == "rate_change" else of.get("window", "sliding")
    lower_only = not {"lt", "lte", "eq", "neq"} & of["condition"].keys()
    at_records = window == "sliding" or (lower_only and of["type"] in ("event_count", "value_count", "value_sum", "value_max"))
    if window == "sliding":
        yield from sliding(rule, records)
    elif window == "tumbling":
        starts = sorted({record.time - record.time % of["timespan"] for record in records})
        for start in starts:
            inside = [record for record in records if start <= record.time < start + of["timespan"]]
            if of["type"] == "rate_change":
                yield from rate(rule, starts[0], start, inside, records)
            elif at_records:
                yield from rising(rule, inside)
            elif holds(rule, figure(rule, inside)):
                yield match_of("", start, start + of["timespan"], inside, figure(rule, inside))
    else:
        yield from sessions(rule, records, at_records=at_records)


def sliding(rule: dict[str, Any], records: list[Record]) -> Iterator[Match]:
    of, empty_until = rule["correlation"], 0
    for index, record in enumerate(records):
        window = [other for other in records[empty_until : index + 1] if other.time > record.time - of["timespan"]]
        if holds(rule, figure(rule, window)):
            yield match_of(record.id, window[0].time, record.time, window, figure(rule, window))
            if of.get("after-match", "reset") == "reset":
                empty_until = index + 1


def rising(rule: dict[str, Any], inside: list[Record]) -> Iterator[Match]:
    """At the records of one window; after a match with reset it starts empty."""
    begin = 0
    for index, record in enumerate(inside):
        window = inside[begin : index + 1]
        if holds(rule, figure(rule, window)):
            yield match_of(record.id, window[0].time, record.time, window, figure(rule, window))
            if rule["correlation"].get("after-match", "reset") == "reset":
                begin = index + 1


def rate(rule: dict[str, Any], first: int, start: int, inside: list[Record], records: list[Record]) -> Iterator[Match]:
    span, baseline = rule["correlation"]["timespan"], rule["correlation"]["condition"]["baseline"]
    begins = [start - span * number for number in range(1, baseline + 1)]
    counts = [sum(begin <= record.time < begin + span for record in records) for begin in begins]
    if begins[-1] < first or sum(counts) == 0:
        return
    value = float(Fraction(len(inside)) / Fraction(sum(counts), baseline))
    if holds(rule, value):
        yield match_of("", start, start + span, inside, value)


def sessions(rule: dict[str, Any], records: list[Record], *, at_records: bool) -> Iterator[Match]:
    of, session = rule["correlation"], list[Record]()

    def end() -> int:
        ends = [session[-1].time + of["gap"]]
        return min(ends + ([session[0].time + of["timespan"]] if "timespan" in of else []))

    def closed() -> Iterator[Match]:
        if session and not at_records and holds(rule, figure(rule, session)):
            yield match_of("", session[0].time, end(), session, figure(rule, session))

    for record in records:
        if session and record.time >= end():
            yield from closed()
            session = []
        session.append(record)
        if at_records and holds(rule, figure(rule, session)):
            yield match_of(record.id, session[0].time, record.time, session, figure(rule, session))
            if of.get("after-match", "reset") == "reset":
                session = []
    yield from closed()


def match_of(firing: str, start: int, end: int, records: list[Record], value: float) -> Match:
    return Match(firing, start, end, tuple(record.id for record in records), value)


# --- patterns ---


def together(rule: dict[str, Any], records: list[Record]) -> Iterator[Match]:
    of, used = rule["correlation"], set[str]()
    for index, record in enumerate(records):
        latest = []
        for name in of.get("events", list(rule["events"])):
            of_name = [
                r for r in records[: index + 1] if name in names_of(rule, r) and r.id not in used and r.time > record.time - of["timespan"]
            ]
            latest += of_name[-1:] or [None]
        if None not in latest:
            made = [r for r in records if r in latest]
            yield match_of(record.id, made[0].time, record.time, made, len(made))
            if of.get("after-match", "reset") == "reset":
                used |= {r.id for r in made}


def absent(rule: dict[str, Any], records: list[Record]) -> Iterator[Match]:
    of = rule["correlation"]
    named = of.get("events", list(rule["events"]))
    for index, record in enumerate(records):
        deadline = record.time + of["timespan"]
        answered = any(named[-1] in names_of(rule, later) and later.time < deadline for later in records[index + 1 :])
        if named[0] in names_of(rule, record) and not answered:
            yield match_of("", record.time, deadline, [record], 1)


def ordered(rule: dict[str, Any], records: list[Record]) -> Iterator[Match]:
    """Records of a used match are gone; an `until` drops what began before it for good."""
    of, used = rule["correlation"], set[int]()
    steps, barred, barred_last = elements(of["events"])
    watched: dict[int, tuple[int, ...]] = {}
    reset = of.get("after-match", "reset") == "reset"

    def due(now: int | None) -> Iterator[Match]:
        for begin in sorted(watched):
            deadline = records[begin].time + of["timespan"]
            if begin in watched and (now is None or deadline <= now):
                places = watched.pop(begin)
                yield match_of("", records[begin].time, deadline, [records[place] for place in places], len(places))
                if reset:
                    used.update(places)
                    for other in [other for other, others in watched.items() if used & set(others)]:
                        del watched[other]

    for index, record in enumerate(records):
        names = names_of(rule, record)
        yield from due(record.time)
        if of.get("until") in names or barred_last & names:
            watched.clear()
        places = best(rule, records, index, used, steps, barred)
        if places is None:
            continue
        if barred_last:
            watched[places[0]] = places
        else:
            yield match_of(record.id, records[places[0]].time, record.time, [records[place] for place in places], len(places))
            if reset:
                used.update(places)
    yield from due(None)


def elements(events: list[Any]) -> tuple[list[str], list[set[str]], set[str]]:
    """The names in order, what is barred in front of each, and what is barred after the last."""
    steps, barred, waiting = list[str](), list[set[str]](), set[str]()
    for element in events:
        if isinstance(element, dict) and "not" in element:
            waiting.add(element["not"])
            continue
        name, times = (element, 1) if isinstance(element, str) else (element["event"], element.get("times", 1))
        for _ in range(times):
            steps.append(name)
            barred.append(waiting)
            waiting = set()
    return steps, barred, waiting


def best(
    rule: dict[str, Any], records: list[Record], last: int, used: set[int], steps: list[str], barred: list[set[str]]
) -> tuple[int, ...] | None:
    """Of all ways to end at record `last`: the latest begin, and then the latest records from the last backwards."""
    of = rule["correlation"]

    def valid(places: tuple[int, ...]) -> bool:
        if any(steps[n] not in names_of(rule, records[place]) or place in used for n, place in enumerate(places)):
            return False
        if records[places[-1]].time - records[places[0]].time >= of["timespan"]:
            return False
        if any(of.get("until") in names_of(rule, records[place]) for place in range(places[0] + 1, last + 1)):
            return False
        return not any(
            barred[n] & names_of(rule, records[between])
            for n in range(1, len(places))
            for between in range(places[n - 1] + 1, places[n])
            if between not in used
        )

    found = [(*places, last) for places in combinations(range(last), len(steps) - 1) if valid((*places, last))]
    return max(found, key=lambda places: (places[0], places[::-1]), default=None)
