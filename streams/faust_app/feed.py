"""What a worker needs of whatever brings it records: chunks in order, assignments, what is at hand. Faust is one, a simulation another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from streams.faust_app.prefix import Chunk
from streams.faust_app.tenure import Tenure
from streams.settings import Settings

#: Handles a chunk; returns when what it leads to is acknowledged.
Handler = Callable[[Chunk], Awaitable[None]]


async def _nothing() -> None:
    """Nothing is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a member of a consumer group reads, and whom it tells."""

    settings: Settings
    group: str
    instance: str | None  #: static member id, unique and stable over restarts; None: membership is dynamic
    handlers: Mapping[str, tuple[str, Handler]]  #: topic (name on the broker) → name and function of who handles its chunks
    assigned: Callable[[set[tuple[str, int]]], Awaitable[None]]  #: told all (topic, partition)s held after each rebalance; returns soon
    failed: Callable[[BaseException], None]  #: told of an exception of a handler, which must end the process
    #: The (topic, partition)s whose records nobody waits for: it is enough to fetch them some times a second.
    unhurried: Callable[[], Collection[tuple[str, int]]] = frozenset
    revoked: Callable[[], Awaitable[None]] = _nothing  #: told before the group shares the partitions anew; it waits for the answer
    tenure: Tenure | None = None  #: told of what the group says


class Feed(Protocol):
    """One member of a consumer group.

    Chunks of a topic are handled one after the other. A chunk is acknowledged when its handler has returned, and only acknowledged
    prefixes are committed (`streams.faust_app.prefix`); what is unfinished at a rebalance is fetched again.
    """

    async def start(self) -> None:
        """Joins the group and begins to fetch."""

    async def stop(self) -> None:
        """Ends fetching; within a bounded time, also if it has crashed."""

    def crash(self) -> BaseException | None:
        """Why it has crashed; None: it has not."""

    def place(self, topic: str, partition: int) -> tuple[int, bool] | None:
        """The offset before which everything is handled, and whether that is the partition's end; None: not known yet."""

    def is_current(self, chunk: Chunk) -> bool:
        """Whether acknowledging the chunk would count."""

    def waiting_s(self) -> float:
        """How long the chunk that has waited longest for its acknowledgement has, seconds; 0: none waits."""


OpenFeed = Callable[[Subscription], Feed]
