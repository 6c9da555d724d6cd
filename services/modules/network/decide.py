"""What the network operations decide. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.context.decide import open_context
from services.modules.lookup import changed, find, gone, has_text, listing, refuse_version, states_of
from services.modules.network.evolve import evolve
from services.modules.network.graph import route, shape
from services.modules.network.operations import (
    AddNode,
    Connect,
    CreateNetwork,
    DeleteNetwork,
    Disconnect,
    GetNetwork,
    Health,
    HealthResult,
    Heartbeat,
    ListNetworks,
    NetworkGone,
    NetworkList,
    NetworkResult,
    OfNode,
    RemoveNode,
    RoutedResult,
    RouteMessage,
    Topology,
    TopologyResult,
    UpdateNetwork,
    UpdateNode,
)
from services.modules.network.state import (
    EVENTS,
    LIFECYCLE,
    LINKS_MAX,
    NODES_MAX,
    Link,
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
from services.modules.operation import Decided, Done, Follow, Operation, Outcome, Refusal, Request, conflict, invalid, not_found
from streams.log.types import Due, View

#: Share of nodes that are not online beyond which a network is degraded.
DEGRADED_SHARE = 0.3


def create_network(view: View[Any], parameters: CreateNetwork, request: Request) -> Outcome:
    """Begins a network without nodes."""
    if parameters.context_id is not None:
        context = open_context(view, parameters.context_id)
        if isinstance(context, Refusal):
            return context
    network_id = request.new_id("network")
    if view.state(network_id) is not None:
        return conflict(f"This request created {network_id} before.")
    event = NetworkCreated(name=parameters.name, description=parameters.description, context_id=parameters.context_id)
    return changed(evolve, None, network_id, request, NetworkResult.of, event)


def get_network(view: View[Any], parameters: GetNetwork, request: Request) -> Outcome:
    """A network with its nodes and links."""
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    return state if isinstance(state, Refusal) else Done(aggregate_id=state.network_id, result=NetworkResult.of(state))


def list_networks(view: View[Any], parameters: ListNetworks, request: Request) -> Outcome:
    """Networks in order of their ids, by context, node, or part of the name."""
    wanted = (
        state
        for state in states_of(view, Network)
        if parameters.context_id in (None, state.context_id)
        and (parameters.node_id is None or parameters.node_id in state.nodes)
        and has_text(parameters.text, state.name, state.description)
    )
    return listing(view, parameters, NetworkList, wanted, lambda state: state.network_id, NetworkResult.of)


def update_network(view: View[Any], parameters: UpdateNetwork, request: Request) -> Outcome:
    """Changes name or description of a network."""
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    refused = refuse_version(parameters.expected_version, state.version, "network")
    if refused is not None:
        return refused
    event = NetworkUpdated(name=parameters.name, description=parameters.description)
    return changed(evolve, state, state.network_id, request, NetworkResult.of, event)


def delete_network(view: View[Any], parameters: DeleteNetwork, request: Request) -> Outcome:
    """Removes a network; its history stays in the log."""
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    return gone(state.network_id, NetworkGone(network_id=state.network_id, deleted=True), NetworkDeleted(reason=parameters.reason))


# --- nodes and links ------------------------------------------------------------------------------------------------------


def add_node(view: View[Any], parameters: AddNode, request: Request) -> Outcome:
    """Adds a node."""
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    if parameters.node_id in state.nodes:
        return conflict(f"There is a node {parameters.node_id!r} already.", "/nodeId")
    if len(state.nodes) >= NODES_MAX:
        return conflict(f"A network has at most {NODES_MAX} nodes.")
    interval = parameters.heartbeat_interval
    event = NodeAdded(
        node_id=parameters.node_id,
        status=parameters.status if parameters.status is not None else "online" if interval is None else "connecting",
        role=parameters.role,
        address=parameters.address,
        interval_us=None if interval is None else interval * 1000,
    )
    return changed(evolve, state, state.network_id, request, NetworkResult.of, event)


def remove_node(view: View[Any], parameters: RemoveNode, request: Request) -> Outcome:
    """Removes a node and its links."""
    found = _node(view, parameters)
    if isinstance(found, Refusal):
        return found
    event = NodeRemoved(node_id=parameters.node_id, reason=parameters.reason)
    return changed(evolve, found[0], found[0].network_id, request, NetworkResult.of, event)


def update_node(view: View[Any], parameters: UpdateNode, request: Request) -> Outcome:
    """Says how a node is."""
    found = _node(view, parameters)
    if isinstance(found, Refusal):
        return found
    state, node = found
    refused = LIFECYCLE.refusal(node.status, parameters.status, "/status")
    if refused is not None:
        return refused
    event = NodeTransitioned(node_id=node.node_id, before=node.status, after=parameters.status, reason=parameters.reason)
    return changed(evolve, state, state.network_id, request, NetworkResult.of, event)


def heartbeat(view: View[Any], parameters: Heartbeat, request: Request) -> Outcome:
    """A node lives. One that was silent, in error or connecting is online again; one in maintenance stays there."""
    found = _node(view, parameters)
    if isinstance(found, Refusal):
        return found
    state, node = found
    events: list[NetworkEvent] = [NodeSeen(node_id=node.node_id)]
    if node.status in ("connecting", "offline", "error"):
        events.append(NodeTransitioned(node_id=node.node_id, before=node.status, after="online", reason="heartbeat"))
    return changed(evolve, state, state.network_id, request, NetworkResult.of, *events)


def connect(view: View[Any], parameters: Connect, request: Request) -> Outcome:
    """Links two nodes."""
    state = _between(view, parameters.network_id, parameters.start, parameters.end)
    if isinstance(state, Refusal):
        return state
    if parameters.start == parameters.end:
        return invalid("A node is not linked to itself.", "/to")
    if len(state.links) >= LINKS_MAX:
        return conflict(f"A network has at most {LINKS_MAX} links.")
    link = Link(start=parameters.start, end=parameters.end, weight=parameters.weight, both_ways=parameters.both_ways)
    return changed(evolve, state, state.network_id, request, NetworkResult.of, NodesConnected(link=link))


def disconnect(view: View[Any], parameters: Disconnect, request: Request) -> Outcome:
    """Takes a link away."""
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    ends = (parameters.start, parameters.end)
    link = next(
        (each for each in state.links if (each.start, each.end) == ends or (each.both_ways and (each.end, each.start) == ends)), None
    )
    if link is None:
        return Refusal(code="not-found", message=f"There is no link from {ends[0]!r} to {ends[1]!r}.", pointer="/to")
    return changed(evolve, state, state.network_id, request, NetworkResult.of, NodesDisconnected(start=link.start, end=link.end))


def fire(view: View[Any], state: Network, timer: Due) -> Follow:
    """Nodes that were silent for too long are offline."""
    silent = [node for node in state.nodes.values() if node.silent_us is not None and node.silent_us <= timer.time_us]
    events = [
        NodeTransitioned(node_id=node.node_id, before=node.status, after="offline", reason="silent for too long", silent=True)
        for node in silent
    ]
    return Follow(events=tuple(Decided(aggregate_id=state.network_id, event=event, subject=event.node_id) for event in events))


def due(state: Network) -> int | None:
    """When the next node will have been silent for too long."""
    return min((node.silent_us for node in state.nodes.values() if node.silent_us is not None), default=None)


# --- routes and health ----------------------------------------------------------------------------------------------------


def route_message(view: View[Any], parameters: RouteMessage, request: Request) -> Outcome:
    """Finds the cheapest way for a message over nodes that are online, and records it."""
    state = _between(view, parameters.network_id, parameters.start, parameters.end)
    if isinstance(state, Refusal):
        return state
    found = route(state, parameters.start, parameters.end)
    if found is None:
        away = [name for name in (parameters.start, parameters.end) if state.nodes[name].status != "online"]
        why = f"{away[0]!r} is {state.nodes[away[0]].status}" if away else "nothing that is online links them"
        message = f"There is no way from {parameters.start!r} to {parameters.end!r}: {why}."
        return Refusal(code="unreachable", message=message, pointer="/to", retryable=True)
    event = MessageRouted(
        message_id=request.new_id("message").partition("/")[2],
        start=parameters.start,
        end=parameters.end,
        path=found.path,
        cost=found.cost,
        message=parameters.message,
    )
    result = RoutedResult(
        network_id=state.network_id, message_id=event.message_id, path=list(found.path), hops=len(found.path) - 1, cost=found.cost
    )
    return changed(evolve, state, state.network_id, request, lambda _: result, event)


def topology(view: View[Any], parameters: Topology, request: Request) -> Outcome:
    """Nodes, links, what hangs together, and which nodes hold it together."""
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    found = shape(state)
    whole = len(found.components) == 1 and len(found.components[0]) == len(state.nodes)
    result = TopologyResult(
        **NetworkResult.of(state).model_dump(),
        components=[list(group) for group in found.components],
        connected=whole,
        single_points_of_failure=list(found.single_points),
        diameter=found.diameter if whole else None,
    )
    return Done(aggregate_id=state.network_id, result=result)


def health(view: View[Any], parameters: Health, request: Request) -> Outcome:
    """How a network is, from the states of its nodes and what hangs together."""
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    counts = Counter(node.status for node in state.nodes.values())
    away = sum(count for status, count in counts.items() if status != "online")
    components = shape(state).components
    isolated = [group[0] for group in components if len(group) == 1] if len(state.nodes) > 1 else []
    if counts["error"]:
        status = "critical"
    elif state.nodes and away / len(state.nodes) > DEGRADED_SHARE:
        status = "degraded"
    else:
        status = "warning" if away or len(components) > 1 else "healthy"
    result = HealthResult(
        network_id=state.network_id,
        status=status,
        nodes=len(state.nodes),
        by_status=dict(counts),
        silent=[node.node_id for node in state.nodes.values() if node.status == "offline"],
        isolated=isolated,
        routed=state.routed,
    )
    return Done(aggregate_id=state.network_id, result=result)


def _node(view: View[Any], parameters: OfNode) -> tuple[Network, Node] | Refusal:
    state = find(view, Network, parameters.network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    node = state.nodes.get(parameters.node_id)
    return not_found("node", parameters.node_id, "/nodeId") if node is None else (state, node)


def _between(view: View[Any], network_id: str, start: str, end: str) -> Network | Refusal:
    state = find(view, Network, network_id, pointer="/networkId")
    if isinstance(state, Refusal):
        return state
    for name, pointer in ((start, "/from"), (end, "/to")):
        if name not in state.nodes:
            return not_found("node", name, pointer)
    return state


MODULE = BuiltIn(
    operations={
        "create-network": Operation(parameters=CreateNetwork, result=NetworkResult, decide=create_network),
        "get-network": Operation(parameters=GetNetwork, result=NetworkResult, decide=get_network),
        "list-networks": Operation(parameters=ListNetworks, result=NetworkList, decide=list_networks, gathers=True),
        "update-network": Operation(parameters=UpdateNetwork, result=NetworkResult, decide=update_network),
        "delete-network": Operation(parameters=DeleteNetwork, result=NetworkGone, decide=delete_network),
        "add-node": Operation(parameters=AddNode, result=NetworkResult, decide=add_node),
        "remove-node": Operation(parameters=RemoveNode, result=NetworkResult, decide=remove_node),
        "update-node": Operation(parameters=UpdateNode, result=NetworkResult, decide=update_node),
        "heartbeat": Operation(parameters=Heartbeat, result=NetworkResult, decide=heartbeat),
        "connect": Operation(parameters=Connect, result=NetworkResult, decide=connect),
        "disconnect": Operation(parameters=Disconnect, result=NetworkResult, decide=disconnect),
        "route-message": Operation(parameters=RouteMessage, result=RoutedResult, decide=route_message),
        "topology": Operation(parameters=Topology, result=TopologyResult, decide=topology),
        "health": Operation(parameters=Health, result=HealthResult, decide=health),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Network, due=due, fire=fire),),
    lifecycles=(LIFECYCLE,),
)
