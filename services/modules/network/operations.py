"""Parameters and results of the network operations."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.modules.network.state import MISSED_MAX, Link, Network, Node, Status
from services.modules.operation import Duration, Identifier, Listing, Misfit, Name, Page, Parameters, Result, Text, Versioned, time_text
from streams.records import Json


class CreateNetwork(Parameters):
    """Parameters of create-network."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    name: Name
    description: Text = ""
    context_id: Identifier | None = None


class OfNetwork(Parameters):
    """Names a network."""

    TARGETS: ClassVar[tuple[str, ...]] = ("network_id",)

    network_id: Identifier = Field(description="Id of the network, from create-network.")


class GetNetwork(OfNetwork):
    """Parameters of get-network."""


class ListNetworks(Page):
    """Parameters of list-networks: conditions that all must hold."""

    context_id: Identifier | None = None
    node_id: Identifier | None = Field(None, description="Only networks with this node.")
    text: Text | None = Field(None, description="Part of the name or description, without regard to case.")


class UpdateNetwork(OfNetwork, Versioned):
    """Parameters of update-network: what is not given stays."""

    name: Name | None = None
    description: Text | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.name is None and self.description is None:
            raise ValueError("give name or description")
        return self


class DeleteNetwork(OfNetwork):
    """Parameters of delete-network."""

    reason: Text = ""


class AddNode(OfNetwork):
    """Parameters of add-node. With a heartbeat interval the node is connecting until it says that it lives, else online at once."""

    node_id: Identifier = Field(description="Unique in the network.")
    role: Name | None = None
    address: Text | None = None
    heartbeat_interval: Duration | None = Field(
        None, description=f"How often the node says that it lives; offline after {MISSED_MAX} missed heartbeats. Without: it need not."
    )
    status: Status | None = Field(None, description="State to begin in: online or connecting.")

    @model_validator(mode="after")
    def _beginning(self) -> Self:
        if self.status not in (None, "online", "connecting"):
            raise Misfit("a node begins online or connecting", "status")
        if self.heartbeat_interval == 0:
            raise Misfit("heartbeatInterval is more than 0", "heartbeatInterval")
        return self


class OfNode(OfNetwork):
    """Names a node of a network."""

    node_id: Identifier


class RemoveNode(OfNode):
    """Parameters of remove-node; its links go with it."""

    reason: Text = ""


class UpdateNode(OfNode):
    """Parameters of update-node."""

    status: Status
    reason: Text = ""


class Heartbeat(OfNode):
    """Parameters of heartbeat; a node that was silent, or connecting, is online again."""


class Connect(OfNetwork):
    """Parameters of connect: makes a link, or changes its weight."""

    start: Identifier = Field(alias="from", description="A node.")
    end: Identifier = Field(alias="to", description="Another node.")
    weight: float = Field(1.0, gt=0, le=1e12, allow_inf_nan=False, description="What a route over it costs.")
    both_ways: bool = True


class Disconnect(OfNetwork):
    """Parameters of disconnect."""

    start: Identifier = Field(alias="from")
    end: Identifier = Field(alias="to")


class RouteMessage(OfNetwork):
    """Parameters of route-message."""

    start: Identifier = Field(alias="from", description="The node that sends.")
    end: Identifier = Field(alias="to", description="The node that shall get it.")
    message: Json = Field(None, description="Kept in the log, with the way that it took.")


class Topology(OfNetwork):
    """Parameters of topology."""


class Health(OfNetwork):
    """Parameters of health."""


class NodeResult(Result):
    """A node."""

    node_id: str
    role: str | None
    address: str | None
    status: Status
    detail: str
    last_seen_at: str | None
    silent_at: str | None = Field(description="When it will count as offline if it says nothing.")

    @classmethod
    def of(cls, node: Node) -> Self:
        """The node as callers see it."""
        return cls(
            node_id=node.node_id,
            role=node.role,
            address=node.address,
            status=node.status,
            detail=node.detail,
            last_seen_at=None if node.seen_us is None else time_text(node.seen_us),
            silent_at=None if node.silent_us is None else time_text(node.silent_us),
        )


class LinkResult(Result):
    """A link."""

    start: str = Field(alias="from")
    end: str = Field(alias="to")
    weight: float
    both_ways: bool

    @classmethod
    def of(cls, link: Link) -> Self:
        """The link as callers see it."""
        return cls(start=link.start, end=link.end, weight=link.weight, both_ways=link.both_ways)


class NetworkResult(Result):
    """A network."""

    network_id: str
    name: str
    description: str
    context_id: str | None
    nodes: list[NodeResult]
    links: list[LinkResult]
    version: int
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, state: Network) -> Self:
        """The network as callers see it."""
        return cls(
            network_id=state.network_id,
            name=state.name,
            description=state.description,
            context_id=state.context_id,
            nodes=[NodeResult.of(node) for node in state.nodes.values()],
            links=[LinkResult.of(link) for link in state.links],
            version=state.version,
            created_at=time_text(state.created_us),
            updated_at=time_text(state.updated_us),
        )


class NetworkList(Listing):
    """Networks in order of their ids."""

    ENTRIES: ClassVar[str] = "networks"
    KEY: ClassVar[str] = "networkId"

    networks: list[NetworkResult]


class NetworkGone(Result):
    """A network that was deleted."""

    network_id: str
    deleted: bool


class RoutedResult(Result):
    """The way that a message took."""

    network_id: str
    message_id: str
    path: list[str]
    hops: int
    cost: float


class TopologyResult(NetworkResult):
    """A network, and its shape: what hangs together over nodes that are online."""

    components: list[list[str]] = Field(description="Groups of nodes that reach each other, the largest first.")
    connected: bool = Field(description="Whether all nodes are online and reach each other.")
    single_points_of_failure: list[str] = Field(description="Nodes whose loss would part what hangs together.")
    diameter: int | None = Field(description="Most links between two nodes; null: not all hang together.")


class HealthResult(Result):
    """How a network is."""

    network_id: str
    status: Literal["healthy", "warning", "degraded", "critical"] = Field(
        description="A node in error: critical; more than 30 % not online: degraded; any not online, or parted: warning."
    )
    nodes: int
    by_status: dict[str, int]
    silent: list[str] = Field(description="Nodes that are offline.")
    isolated: list[str] = Field(description="Nodes that are online and reach no other.")
    routed: int = Field(description="Messages that found a way.")
