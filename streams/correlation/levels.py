"""Chaining: which rules read whose composites, in which order they are to be asked, and cycles. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from streams.correlation.rules import Rule

if TYPE_CHECKING:
    import networkx


def cycles(rules: Iterable[Rule]) -> list[tuple[str, ...]]:
    """The rules that read each other's composites in a circle (also alone): ids, one tuple a circle, sorted."""
    given = list(rules)
    if not any(rule.upstream for rule in given):
        return []
    import networkx  # takes a second to load, and few rules read composites

    graph = _graph(given)
    found = [component for component in networkx.strongly_connected_components(graph) if len(component) > 1]
    found += [{node} for node in graph if graph.has_edge(node, node)]
    return sorted(tuple(sorted(component)) for component in found)


def levels(rules: Iterable[Rule]) -> dict[str, int]:
    """Rule → its level: 0 if it reads no composite of these rules, else one more than the highest that it reads.

    A circle (which `apply` refuses, but two concurrent changes can make) is cut: its rules are on one level and do not feed each other.
    """
    given = list(rules)
    if not any(rule.upstream for rule in given):
        return dict.fromkeys((rule.id for rule in given), 0)
    import networkx

    condensed = networkx.condensation(_graph(given))
    found: dict[str, int] = {}
    at: dict[int, int] = {}
    for component in networkx.topological_sort(condensed):
        at[component] = max((at[before] + 1 for before in condensed.predecessors(component)), default=0)
        found |= dict.fromkeys(condensed.nodes[component]["members"], at[component])
    return {rule.id: found[rule.id] for rule in given}


def lags(rules: Iterable[Rule], level: Mapping[str, int]) -> dict[str, int]:
    """Rule → how far it follows behind the clock, microseconds: its grace, or that of a rule whose composites it reads if that is longer.

    A composite may come, and be revised, as long as the rule that says it waits for records. So a rule that reads composites settles
    nothing before; what is late among other records is decided by its own grace alone.
    """
    found: dict[str, int] = {}
    for rule in sorted(rules, key=lambda rule: level[rule.id]):
        above = [found[before] for before in rule.upstream if before in found and level[before] < level[rule.id]]
        found[rule.id] = max([rule.grace_us, *above])
    return found


def _graph(rules: Iterable[Rule]) -> networkx.DiGraph[str]:
    import networkx

    given = {rule.id: rule for rule in rules}
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(given)
    graph.add_edges_from((before, rule.id) for rule in given.values() for before in rule.upstream if before in given)
    return graph
