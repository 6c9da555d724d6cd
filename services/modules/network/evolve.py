"""The fold of a network's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.network.state import (
    MessageRouted,
    Network,
    NetworkCreated,
    NetworkDeleted,
    NetworkEvent,
    NetworkUpdated,
    Node,
    NodeAdded,
    NodeRemoved,
    NodesConnected,
    NodesDisconnected,
    NodeSeen,
    NodeTransitioned,
)


def evolve(state: Network | None, event: NetworkEvent, aggregate_id: str, time_us: int) -> Network | None:
    """The network after `event`; None: there is none."""
    if isinstance(event, NetworkCreated):
        return Network(
            network_id=aggregate_id,
            name=event.name,
            description=event.description,
            context_id=event.context_id,
            version=1,
            created_us=time_us,
            updated_us=time_us,
        )
    if state is None or isinstance(event, NetworkDeleted):
        return None
    if isinstance(event, NodeSeen):  # no change of the network itself
        node = state.nodes.get(event.node_id)
        return state if node is None else _with(state, replace(node, seen_us=time_us))
    if isinstance(event, MessageRouted):
        return replace(state, routed=state.routed + 1)
    changed = replace(state, version=state.version + 1, updated_us=time_us)
    match event:
        case NetworkUpdated():
            return replace(
                changed,
                name=state.name if event.name is None else event.name,
                description=state.description if event.description is None else event.description,
            )
        case NodeAdded():
            node = Node(
                node_id=event.node_id, role=event.role, address=event.address, status=event.status, added_us=time_us,
                interval_us=event.interval_us,
            )  # fmt: skip
            return _with(changed, node)
        case NodeRemoved():
            nodes = {name: each for name, each in state.nodes.items() if name != event.node_id}
            return replace(changed, nodes=nodes, links=tuple(each for each in state.links if event.node_id not in (each.start, each.end)))
        case NodeTransitioned():
            node = state.nodes.get(event.node_id)
            if node is None:
                return state
            # Whoever comes back, or is said to, has its whole time again.
            seen_us = node.seen_us if event.after in ("offline", "error", "maintenance") else time_us
            return _with(changed, replace(node, status=event.after, detail=event.reason, seen_us=seen_us))
        case NodesConnected():
            others = tuple(each for each in state.links if (each.start, each.end) != (event.link.start, event.link.end))
            return replace(changed, links=(*others, event.link))
        case NodesDisconnected():
            return replace(changed, links=tuple(each for each in state.links if (each.start, each.end) != (event.start, event.end)))
        case _:
            assert_never(event)


def _with(state: Network, node: Node) -> Network:
    return replace(state, nodes={**state.nodes, node.node_id: node})
