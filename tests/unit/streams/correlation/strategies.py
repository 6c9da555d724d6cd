"""Random rules, random records, and the engine run over them; times are seconds."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import orjson
from hypothesis import strategies as st

from streams.correlation.chain import Chain
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent, to_micros
from tests.unit.streams.correlation.oracle import Match, Record

SECOND = 1_000_000
T0 = 1_699_999_200 * SECOND  # a multiple of the timespans below
EVENTS = {"a": {"type": ["a", "ab"]}, "b": {"type": ["b", "ab", "bc"]}, "c": {"type": ["c", "bc"]}}
#: What is common comes first: records that meet are worth more than records that pass each other.
TYPES = ["a", "a", "a", "b", "b", "c", "ab", "bc", "other"]
FIELD = "data.v"

VALUES = [1, 2, 3, 1.0, None, 0.1, 0.2, 0.7, -3, 1e300, -1e300, 1e-300, True, "1", "x", [1], {"n": 1}]
_LOWER = st.sampled_from([{"gte": 1}, {"gte": 2}, {"gt": 2}, {"gte": 3}, {"gt": 1, "gte": 2}])
_ANY = st.one_of(_LOWER, st.sampled_from([{"lt": 2}, {"lte": 1}, {"eq": 2}, {"neq": 1}, {"gte": 1, "lt": 3}]))


@st.composite
def windowed(draw: st.DrawFn, kinds: tuple[str, ...]) -> dict[str, Any]:
    kind = draw(st.sampled_from(kinds))
    window = draw(st.sampled_from(["sliding", "tumbling", "session"]))
    of: dict[str, Any] = {"type": kind, "window": window, "condition": dict(draw(_LOWER if window == "sliding" else _ANY))}
    if window == "session":
        of["gap"] = draw(st.sampled_from([1, 3, 6]))
    if window != "session" or draw(st.booleans()):
        of["timespan"] = draw(st.sampled_from([1, 3, 6, 12]))
    if kind != "event_count":
        of["condition"]["field"] = FIELD
    if kind == "value_percentile":
        of["condition"]["percentile"] = draw(st.sampled_from([0, 50, 55, 95, 99.9, 100]))
    return of


@st.composite
def rates(draw: st.DrawFn) -> dict[str, Any]:
    condition = {"baseline": draw(st.integers(1, 3)), **draw(st.sampled_from([{"gte": 2}, {"lt": 1}, {"gt": 0.5}, {"eq": 1}]))}
    return {"type": "rate_change", "timespan": draw(st.sampled_from([1, 3])), "condition": condition}


@st.composite
def sequences(draw: st.DrawFn) -> dict[str, Any]:
    name = st.sampled_from(["a", "b", "c"])
    element = st.one_of(
        name, name, st.builds(lambda n, t: {"event": n, "times": t}, name, st.integers(1, 3)), st.builds(lambda n: {"not": n}, name)
    )
    events = [draw(name), *draw(st.lists(element, max_size=3))]
    of = {"type": "temporal_ordered", "events": events, "timespan": draw(st.sampled_from([3, 6, 12]))}
    if draw(st.integers(0, 3)) == 0:
        of["until"] = draw(name)
    return of


_PLAIN_PATTERNS = st.builds(
    lambda of, timespan: {**of, "timespan": timespan},
    st.sampled_from(
        [
            {"type": "temporal", "events": ["a", "b"]}, {"type": "temporal", "events": ["a", "b", "c"]},
            {"type": "absence", "events": ["a"]}, {"type": "absence", "events": ["a", "b"]}, {"type": "absence", "events": ["b", "c"]},
        ]
    ),
    st.sampled_from([1, 3, 6]),
)  # fmt: skip


FAMILIES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "counts": windowed(("event_count",)),
    "values": windowed(("value_count", "value_sum", "value_avg", "value_min", "value_max", "value_percentile")),
    "rates": rates(),
    "sequences": sequences(),
    "patterns": _PLAIN_PATTERNS,
}


@st.composite
def rules(draw: st.DrawFn, family: str | None = None) -> dict[str, Any]:
    """A rule as the oracle reads it: durations in seconds."""
    of = dict(draw(FAMILIES[family] if family is not None else st.one_of(*FAMILIES.values())))
    of["grace"] = draw(st.sampled_from([0, 2, 7]))
    of["after-match"] = draw(st.sampled_from(["reset", "continue"]))
    if of["type"] not in ("temporal_ordered",):
        of.setdefault("events", draw(st.sampled_from([["a"], ["a", "b"]])))
    rule = {"id": "r", "events": EVENTS, "correlation": of}
    suppress = draw(st.sampled_from([0, 0, 2, 5]))
    return {**rule, "suppress": suppress} if suppress else rule


def document(rule: dict[str, Any], **correlation: Any) -> dict[str, Any]:
    """The rule as a document."""
    of = {**rule["correlation"], "group-by": ["data.g"], **correlation}
    of |= {name: of[name] * 1000 for name in ("timespan", "gap", "grace") if name in of}
    return {**rule, "correlation": of, "suppress": rule.get("suppress", 0) * 1000}


@st.composite
def records(draw: st.DrawFn, *, most: int = 14) -> list[Record]:
    """Records in the order of time; their ids sort in another.

    Drawn by a seed: Hypothesis itself prefers what is small and alike, and such records pass each other by.
    """
    count, chance = draw(st.integers(1, most)), Random(draw(st.integers(0, 2**32)))
    span = chance.choice([6, 20])
    times = sorted(chance.randint(0, span) for _ in range(count))
    ids = chance.sample(range(count), count)
    return [
        Record(time, f"e{number:02}", chance.choice(TYPES), chance.choice(["g", "g", "g", "g", "h", None]), chance.choice(VALUES))
        for time, number in zip(times, ids, strict=True)
    ]


@st.composite
def arrivals(draw: st.DrawFn, of: list[Record], grace: int) -> list[Record]:
    """The records in an order of arrival in which none is late: each comes at most `grace` after what is newer."""
    chance = Random(draw(st.integers(0, 2**32)))
    return sorted(of, key=lambda record: (record.time + chance.randint(0, grace), chance.random()))


def chain_of(*documents: dict[str, Any]) -> Chain:
    return Chain([ActiveRule(rule=parse_rule(each), version=1, order=0) for each in documents])


def view(record: Record) -> RecordView:
    data = {"g": record.group, "v": record.value}
    plain = {
        "id": record.id,
        "type": record.type,
        "source": "",
        "subject": "",
        "time": T0 + record.time * SECOND,
        "data": orjson.dumps(data).decode(),
    }
    return RecordView(plain)


def feed(chain: Chain, arrived: Iterable[Record], *, first: int = 1) -> list[CompositeEvent]:
    said = []
    for arrival, record in enumerate(arrived, first):
        said += chain.advance(T0 + record.time * SECOND)
        said += chain.record(None, view(record), arrival)
    return said


def finish(chain: Chain, until: int = 10_000) -> list[CompositeEvent]:
    return [*chain.flush(), *chain.flush(), *chain.finish(T0 + until * SECOND)]


def as_matches(composites: Iterable[CompositeEvent]) -> list[Match]:
    """As the oracle says it; composites do not say whether a record or an instant fired them."""
    return [
        Match(
            "", (to_micros(composite.window_start) - T0) // SECOND,
            (to_micros(composite.window_end) - T0) // SECOND, composite.event_ids, composite.data["value"],
            composite.group_key.get("data.g"), composite.suppressed_count,
        )
        for composite in composites
    ]  # fmt: skip


def standing(said: Iterable[CompositeEvent]) -> list[CompositeEvent]:
    """The last revision of each composite, less the retracted; revisions grow by one."""
    last: dict[str, CompositeEvent] = {}
    for composite in said:
        before = last.get(composite.id)
        assert composite.revision == (0 if before is None else before.revision + 1), "revisions grow by one"
        assert before is None or not (before.retracted and composite.retracted)
        last[composite.id] = composite
    return [composite for composite in last.values() if not composite.retracted]


def comparable(matches: Iterable[Match]) -> list[tuple[Any, ...]]:
    """In one order, and without what composites do not say."""
    return sorted((str(match.group), match.start, match.end, match.ids, match.value, match.suppressed) for match in matches)
