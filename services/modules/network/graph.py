"""A network as a graph: routes over what is online, and what its shape is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.modules.network.state import Network

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way through a network, and what it costs."""

    path: tuple[str, ...]
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What there is to know of a network's links, as far as its nodes are online."""

    components: tuple[tuple[str, ...], ...]  #: groups of nodes that reach each other, the largest first
    single_points: tuple[str, ...]  #: nodes whose loss would part what hangs together
    diameter: int | None  #: most links between two nodes; None: not all hang together, or there are none


def _graph(state: Network) -> networkx.DiGraph[str]:
    """The nodes that are online, and the links between them."""
    import networkx  # takes a second to load, and few processes route

    online = {node.node_id for node in state.nodes.values() if node.status == "online"}
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(name for name in state.nodes if name in online)
    for link in state.links:
        if link.start in online and link.end in online:
            for start, end in ((link.start, link.end), (link.end, link.start))[: 2 if link.both_ways else 1]:
                weight = min(link.weight, graph.edges[start, end]["weight"]) if graph.has_edge(start, end) else link.weight
                graph.add_edge(start, end, weight=weight)
    return graph


def route(state: Network, start: str, end: str) -> Route | None:
    """The cheapest way (Dijkstra) over nodes that are online; None: there is none."""
    import networkx

    graph = _graph(state)
    if start not in graph or end not in graph:
        return None
    try:
        path = networkx.dijkstra_path(graph, start, end, weight="weight")
    except networkx.NetworkXNoPath:
        return None
    return Route(path=tuple(path), cost=float(networkx.path_weight(graph, path, "weight")))


def shape(state: Network) -> Shape:
    """Which nodes hang together, over links in whatever direction."""
    import networkx

    graph = _graph(state).to_undirected()
    order = {name: place for place, name in enumerate(state.nodes)}
    groups = [tuple(sorted(group, key=order.__getitem__)) for group in networkx.connected_components(graph)]
    whole = len(groups) == 1 and len(groups[0]) > 1
    return Shape(
        components=tuple(sorted(groups, key=lambda group: (-len(group), order[group[0]]))),
        single_points=tuple(sorted(networkx.articulation_points(graph), key=order.__getitem__)),
        diameter=int(networkx.diameter(graph)) if whole else None,
    )
