"""Random rules of a run: of all types but `anomaly`; some read what other rules say, some act."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streams.records import Json

Chance = Callable[[], float]

#: Matchers by name: types of records that satisfy them.
EVENTS: dict[str, list[str]] = {"a": ["sim.a", "sim.ab"], "b": ["sim.b", "sim.ab", "sim.bc"], "c": ["sim.c", "sim.bc"]}
#: What actions emit. Only one rule of a run reads it, or what each emits would bring about more and more.
TOLD = "sim.told"
#: Where webhooks go.
RECEIVERS = ("http://127.0.0.1:8001", "http://127.0.0.1:8002")

_GROUP = "data.g"


def rule(chance: Chance, rule_id: str, below: Sequence[Json] = (), *, last: bool = False) -> dict[str, Any]:
    """A random rule's document. It may read the composites of the rules `below`; the `last` one may read what actions emit."""
    correlation, names = _SHAPES[int(chance() * len(_SHAPES))](chance)
    correlation |= {"grace": f"{int(8000 + 40_000 * chance() ** 2)}ms"}
    grouped = chance() < 0.8
    if grouped:
        correlation["group-by"] = [_GROUP]
    if chance() < 0.4:
        correlation["output"] = "final"
    if chance() < 0.3 and correlation["type"] != "absence":
        correlation["after-match"] = "continue"
    events: dict[str, dict[str, Any]] = {name: {"type": EVENTS[name]} for name in names}
    document: dict[str, Any] = {"id": rule_id, "events": events, "correlation": correlation}
    if chance() < 0.3:
        document["suppress"] = f"{1 + int(chance() * 20)}s"
    told = last and chance() < 0.3
    if told or (below and chance() < 0.5):
        _read_composites(chance, document, () if told else below)
    if chance() < 0.5:
        document["actions"] = [{"emit": TOLD}] if told else _actions(chance)
    return document


def _read_composites(chance: Chance, document: dict[str, Any], below: Sequence[Json]) -> None:
    """Some of its matchers read composites of one of these rules each, or what actions emit if there are none."""
    events, correlation = document["events"], document["correlation"]
    chosen = [name for name in sorted(events) if chance() < 0.7] or [min(events)]
    groups = dict.fromkeys(events, _GROUP)
    for name in chosen:
        if not below:
            events[name], groups[name] = {"type": TOLD}, f'data.group["{_GROUP}"]'
            continue
        read = below[int(chance() * len(below))]
        events[name] = {"rule": read["id"]} | ({"where": "data.count >= 2"} if chance() < 0.25 else {})
        groups[name] = "data.group.g" if "aliases" in read["correlation"] else f'data.group["{_GROUP}"]'
    if "field" in correlation.get("condition", {}):
        correlation["condition"]["field"] = "data.value"
    if "group-by" in correlation:
        correlation["group-by"], correlation["aliases"] = ["g"], {"g": groups}


def _actions(chance: Chance) -> list[Json]:
    return [_ACTIONS[int(chance() * len(_ACTIONS))] for _ in range(1 + int(chance() * 3))]


_ACTIONS: tuple[Json, ...] = (
    {"emit": TOLD},
    {"emit": TOLD},
    {"emit": "{{events[2].type}}.third"},
    {"start-workflow": {"id": "w", "input": {"count": "{{composite.event_count}}"}}},
    {"signal-workflow": {"execution": "e-{{composite.id}}", "name": "go", "data": "{{group}}"}},
    {"webhook": f"{RECEIVERS[0]}/in"},
    {"webhook": {"url": f"{RECEIVERS[1]}/in", "body": {"ids": "{{composite.event_ids}}"}}},
)


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
