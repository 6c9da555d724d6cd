"""What delivering needs of the world: sources, destinations, dead letters, whom to tell. Kafka is one world, that of tests another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from streams.bus.bodies import Bodies
from streams.bus.rendering import Rendered
from streams.bus.validate import EventFields
from streams.errors import BackboneError
from streams.log.ports import Stored
from streams.matching.matchers import RecordView
from streams.records import SystemEvent
from streams.routing.deliveries import DeliveryWriter
from streams.routing.events import EventWriter
from streams.routing.gates import Gates
from streams.routing.letters import Redriven
from streams.routing.plan import Ready
from streams.routing.routes import ActiveRoute, Destination, ToModule, ToWebhook
from streams.webhooks.outcomes import Outcome


class World(Protocol):
    """See the module. Topics are logical names. What says so raises `BackboneError`: it was not done, or not all of it."""

    def now(self) -> datetime:
        """The wall clock."""

    def now_ms(self) -> int:
        """Unix time."""

    # --- sources ---

    def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """The records of [start, end) that count (of a log by the reader's rule), in order. Raises `BackboneError`."""

    async def epoch_at(self, topic: str, partition: int, offset: int) -> int:
        """The epoch in force before the offset of a log. Raises `BackboneError`."""

    def view(self, value: bytes | None) -> RecordView:
        """A record as matchers see it. Raises `InvalidInput`."""

    async def learn(self, error: BackboneError) -> bool:
        """Whether it is worth while to look at a record again that could not be read."""

    # --- destinations ---

    async def partitions(self, topic: str) -> int:
        """Of a topic. Raises `BackboneError`."""

    def events(self, route: str, place: str) -> EventWriter:
        """Writes what a route makes of the records of a source partition (`topic/partition`, logical)."""

    async def send(self, topic: str, records: Mapping[int, Sequence[bytes]]) -> None:
        """Takes rendered records by partition; returns when the broker has them all.

        Sends nothing that may be somebody else's business by now. Raises `BackboneError`.
        """

    async def settle_down(self) -> None:
        """After `send` has failed: returns when nothing of it can arrive any more."""

    def ours(self) -> bool:
        """Whether the source partitions are certainly this process's."""

    @property
    def gates(self) -> Gates:
        """The ways to destinations that are not Kafka, which all routes of this process share."""

    def at_a_time(self, to: Destination) -> int:
        """How many attempts it is worth while to begin at a destination at a time."""

    async def post(self, to: ToWebhook, key: str, event: EventFields) -> Outcome:
        """One attempt at a webhook."""

    async def call(self, to: ToModule, key: str, ready: Ready, depth: int) -> Outcome:
        """One request to a module. `key` is the id of the request, `depth` that of the record (`streams.causation`)."""

    # --- what is told ---

    async def bury(
        self, active: ActiveRoute | None, raw: Stored, redriven: Redriven | None, *, stage: str, code: str, message: str, attempts: int,
        first_ms: int,
    ) -> None:  # fmt: skip
        """Writes the dead letter of a record, `redriven` if it was put back. Raises `BackboneError`."""

    async def bury_unreadable(self, raw: Stored, error: BackboneError) -> None:
        """Writes the dead letter of a record that nobody can read, for no route in particular. Raises `BackboneError`."""

    def deliveries(self, active: ActiveRoute, topic: str, partition: int) -> DeliveryWriter:
        """Writes the deliveries of a version of a route, of what it reads there."""

    async def tell(self, deliveries: Sequence[Rendered]) -> None:
        """Takes deliveries to be written soon, in order; waits only while there are too many."""

    async def tell_all(self, deliveries: Mapping[int, Bodies]) -> None:
        """As `tell`, of deliveries by partition."""

    async def report(self, event: SystemEvent) -> None:
        """Takes an event to be written soon."""

    async def already(self, topic: str, route: str, source: str, partition: int, since_ms: int, *, by_others: bool) -> frozenset[int]:
        """Offsets of a source partition of which the destination topic has what the route made, as far as it was written since then.

        `by_others`: before the partition became this process's; else up to now. Raises `BackboneError`.
        """
