"""State and events of networks, and the table of the states of their nodes. Times are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from streams.records import Json

Status: TypeAlias = Literal["online", "offline", "connecting", "error", "maintenance"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "connecting": ("online", "offline", "error", "maintenance"),
    "online": ("offline", "error", "maintenance"),
    "offline": ("connecting", "online", "maintenance"),
    "error": ("connecting", "online", "offline", "maintenance"),
    "maintenance": ("connecting", "online", "offline"),
}
LIFECYCLE = Lifecycle(noun="node", initial=("online", "connecting"), table=TRANSITIONS)

#: Heartbeats that may be missed before a node counts as offline.
MISSED_MAX = 3
NODES_MAX = 1000
LINKS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of a network. `interval_us`: how often it says that it lives; None: it need not."""

    node_id: str
    role: str | None
    address: str | None
    status: Status
    added_us: int
    interval_us: int | None = None
    seen_us: int | None = None
    detail: str = ""

    @property
    def silent_us(self) -> int | None:
        """When it will have been silent for too long; None: it need not say anything."""
        if self.interval_us is None or self.status not in ("online", "connecting"):
            return None
        return (self.added_us if self.seen_us is None else self.seen_us) + MISSED_MAX * self.interval_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link from one node to another. `weight` is what a route over it costs."""

    start: str
    end: str
    weight: float
    both_ways: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network as it is."""

    network_id: str
    name: str
    description: str
    context_id: str | None
    version: int
    created_us: int
    updated_us: int
    nodes: Mapping[str, Node] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    routed: int = 0  #: messages that found a way


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCreated:
    """A network without nodes."""

    TYPE: ClassVar[str] = "network.created"
    name: str
    description: str = ""
    context_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkUpdated:
    """Attributes changed; null: as before."""

    TYPE: ClassVar[str] = "network.updated"
    name: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDeleted:
    """The network is gone; its history stays."""

    TYPE: ClassVar[str] = "network.deleted"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAdded:
    """A node belongs to the network."""

    TYPE: ClassVar[str] = "network.node-added"
    node_id: str
    status: Status
    role: str | None = None
    address: str | None = None
    interval_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRemoved:
    """A node belongs to the network no more, nor do its links."""

    TYPE: ClassVar[str] = "network.node-removed"
    node_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """A node said that it lives."""

    TYPE: ClassVar[str] = "network.node-seen"
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTransitioned:
    """A node's state changed. `silent`: since it said nothing for too long."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "online": "network.node-online",
        "offline": "network.node-offline",
        "connecting": "network.node-connecting",
        "error": "network.node-error",
        "maintenance": "network.node-maintenance",
    }
    node_id: str
    before: Status
    after: Status
    reason: str = ""
    silent: bool = False

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesConnected:
    """A link was made, or changed its weight."""

    TYPE: ClassVar[str] = "network.connected"
    link: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesDisconnected:
    """A link is gone."""

    TYPE: ClassVar[str] = "network.disconnected"
    start: str
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRouted:
    """A message has gone this way."""

    TYPE: ClassVar[str] = "network.message-routed"
    message_id: str
    start: str
    end: str
    path: tuple[str, ...]
    cost: float
    message: Json = None


NetworkEvent: TypeAlias = (
    NetworkCreated | NetworkUpdated | NetworkDeleted | NodeAdded | NodeRemoved | NodeSeen | NodeTransitioned | NodesConnected
    | NodesDisconnected | MessageRouted
)  # fmt: skip
EVENTS = (
    NetworkCreated, NetworkUpdated, NetworkDeleted, NodeAdded, NodeRemoved, NodeSeen, NodeTransitioned, NodesConnected,
    NodesDisconnected, MessageRouted,
)  # fmt: skip
