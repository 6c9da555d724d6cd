"""Rules over many partitions, whatever happens in which order, against the same rules over one sequence of records."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.records import CompositeEvent
from tests.unit.streams.correlation.cluster import Cluster
from tests.unit.streams.correlation.oracle import Record
from tests.unit.streams.correlation.strategies import arrivals, chain_of, document, feed, records, rules, standing, view

#: How a rule reads the group of another's composites, by what that rule groups by.
OF_RECORDS, OF_READERS = 'data.group["data.g"]', "data.group.g"


@st.composite
def readers(draw: st.DrawFn, id: str, reads: dict[str, str], *, kinds: list[str]) -> dict[str, Any]:
    """A rule that reads composites (`reads`: rule → path of the group) as `x`, those of several rules also as `y`, and records as `c`."""
    names = dict(zip("xy", reads, strict=False))
    events: dict[str, Any] = {"c": {"type": kinds}, **{name: {"rule": rule} for name, rule in names.items()}}
    if draw(st.booleans()):
        events["x"]["where"] = draw(st.sampled_from(["data.count % 2 == 0", "data.value > 1.0", "data.confidence < 0.8"]))
    last = list(names)[-1]
    of = draw(
        st.sampled_from(
            [
                {"type": "event_count", "condition": {"gte": 2}, "events": list(names)},
                {"type": "value_sum", "condition": {"gte": 3, "field": "data.count"}, "events": ["x"]},
                {"type": "event_count", "condition": {"gte": 1}, "events": list(names), "window": "tumbling"},
                {"type": "event_count", "condition": {"lt": 3}, "events": ["x", "c"], "window": "tumbling"},
                {"type": "temporal", "events": [*names, "c"]},
                {"type": "temporal_ordered", "events": ["c", last]},
                {"type": "temporal_ordered", "events": ["x", {"not": "c"}, last]},
                {"type": "absence", "events": ["x", "c"]},
                {"type": "absence", "events": ["c", last]},
            ]
        )
    )  # fmt: skip
    aliases: dict[str, Any] = {"g": {"c": "data.g", **{name: reads[rule] for name, rule in names.items()}}}
    if of["events"] == ["x"] and draw(st.booleans()):
        aliases["n"] = {"x": "data.count"}  # a revision moves it to another group, in another partition
    return {
        "id": id,
        "events": events,
        "correlation": {
            **of, "timespan": draw(st.sampled_from([3, 6])) * 1000, "grace": draw(st.sampled_from([2, 4, 7])) * 1000,
            "after-match": draw(st.sampled_from(["reset", "continue"])), "output": draw(st.sampled_from(["eager", "final"])),
            "group-by": list(aliases), "aliases": aliases,
        },
        "suppress": draw(st.sampled_from([0, 0, 2000])),
    }  # fmt: skip


def told(said: list[CompositeEvent]) -> list[tuple[Any, ...]]:
    """What stands in the end."""
    return sorted(
        (of.rule_id, of.id, str(of.group_key), of.window_start, of.window_end, of.event_ids, of.event_count, of.data["value"],
         of.confidence,
         of.suppressed_count, of.subject, of.correlation_id)
        for of in standing(said)
    )  # fmt: skip


@pytest.mark.parametrize(("sources", "partitions"), [(1, 1), (3, 2), (2, 4), (5, 12)])
@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_many_partitions_say_in_the_end_what_one_sequence_says(sources: int, partitions: int, data: st.DataObject) -> None:
    up = document(data.draw(rules()), output=data.draw(st.sampled_from(["eager", "eager", "final"])))
    up["correlation"]["grace"] = data.draw(st.sampled_from([2000, 2000, 6000]))  # disorder makes revisions
    middle = data.draw(readers("middle", {"r": OF_RECORDS}, kinds=["c", "bc"]))
    top = data.draw(readers("top", {"middle": OF_READERS, "r": OF_RECORDS}, kinds=["a", "ab"]))
    documents = [up, middle, top]
    grace = min(of["correlation"]["grace"] for of in documents) // 1000
    arrived = data.draw(arrivals(data.draw(records(most=20)), grace))
    chance = Random(data.draw(st.integers(0, 2**32)))
    closing = [Record(10_000, f"end{partition}", "other", None) for partition in range(sources)]

    chain = chain_of(*documents)
    expected = told([*feed(chain, [*arrived, *closing]), *chain.flush(), *chain.flush()])

    cluster = Cluster(chance.sample(documents, len(documents)), sources=sources, partitions=partitions, chance=chance)
    for record in arrived:
        cluster.arrive(chance.randrange(sources), dict(view(record).plain))
        for _ in range(chance.choice([0, 0, 3, 30])):
            cluster.step()
    for partition, record in enumerate(closing):
        cluster.arrive(partition, dict(view(record).plain))
    for _ in range(50):
        cluster.step()
    cluster.settle()

    assert told(cluster.said()) == expected
    for rule in documents:
        assert sum(owner.state.engine.counters(rule["id"]).late for owner in cluster.owners) == 0
