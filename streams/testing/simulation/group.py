"""A consumer group in the simulation: who owns which partitions, as far as the group knows; sometimes it is wrong.

Members have a name of their own (static membership): one that comes back within the session time-out gets its partitions
back without a rebalance, and an older process of that name is fenced. A member that is stopped longer than the session
time-out is taken out without its knowledge. A rebalance waits for every member, at most `REBALANCE_TIMEOUT_US`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.loop import Life, ProcessLoop

SESSION_TIMEOUT_US = 3_000_000
REBALANCE_TIMEOUT_US = 5_000_000


class InstanceFenced(Exception):
    """Another process with the same name is a member now."""


@dataclass(slots=True, eq=False)
class Member:
    """One process's membership, as the group sees it."""

    name: str
    loop: ProcessLoop
    rejoin: asyncio.Event = field(default_factory=asyncio.Event)  #: the process has learnt that it must join again
    joining: asyncio.Future[list[int] | None] | None = None
    assigned: list[int] = field(default_factory=list)
    generation: int = 0  #: of the last rebalance that it joined

    @property
    def beating(self) -> bool:
        """Whether it sends heartbeats."""
        return self.loop.life is Life.RUNNING

    def silent_since(self, since_us: int) -> bool:
        """Whether it has sent none since then."""
        return self.loop.life is Life.DEAD or self.loop.stopped_at_us <= since_us


class SimulatedGroup:
    """The coordinator."""

    def __init__(self, broker: SimulatedBroker, partitions: int, *, doubles: float) -> None:
        """`doubles`: chance that a partition is given to a second member as well."""
        self._broker = broker
        self._scheduler = broker.scheduler
        self._partitions = partitions
        self.doubles = doubles
        self.members: dict[str, Member] = {}
        self._generation = 0
        self._waiting = False  #: a rebalance is under way

    @property
    def rebalancing(self) -> bool:
        """Whether a rebalance is under way: nobody knows yet what it will be given."""
        return self._waiting

    async def join(self, member: Member) -> list[int]:
        """Joins, or joins again after a rebalance began; returns the partitions given. Raises `InstanceFenced`."""
        if self._scheduler.over:
            raise asyncio.CancelledError
        while True:
            member.rejoin.clear()
            future: asyncio.Future[list[int] | None] = member.loop.create_future()
            self._scheduler.at(self._broker.delay(), partial(self._joined, member, future))
            given = await future
            if given is not None:
                return given
            # It was taken out while it waited; the answer to a join says so.

    def _joined(self, member: Member, future: asyncio.Future[list[int] | None]) -> None:
        known = self.members.get(member.name)
        if known is not None and known is not member:
            if _older(member, known):
                self._broker.resolve(member.loop, future, InstanceFenced(member.name))
                return
            # A restart of a static member: its assignment is handed on as it is, if no rebalance is under way.
            member.assigned = known.assigned
            self.members[member.name] = member
            self._tell(known)
            if not self._waiting:
                self._broker.resolve(member.loop, future, list(member.assigned))
                self.heartbeat_lost(member)
                return
        self.members[member.name] = member
        member.joining = future
        self.heartbeat_lost(member)
        if not self._waiting:
            self.rebalance()
        member.generation = self._generation
        self._complete_if_all()

    def rebalance(self) -> None:
        """Begins a rebalance: all members learn of it with a heartbeat."""
        self._waiting = True
        self._generation += 1
        generation = self._generation
        for member in self.members.values():
            self._tell(member, generation)
        self._scheduler.at(REBALANCE_TIMEOUT_US, lambda: self._complete(generation))

    def leave(self, member: Member) -> None:
        """A member that shuts down in order (static members do not say so: their session runs out)."""
        self.heartbeat_lost(member)

    def heartbeat_lost(self, member: Member) -> None:
        """A member may have fallen silent: in a session time-out the group looks whether it has."""
        if member.beating:
            return
        silent_since = self._scheduler.now_us

        def look() -> None:
            if self.members.get(member.name) is member and not member.beating and member.silent_since(silent_since):
                del self.members[member.name]
                future, member.joining = member.joining, None
                if future is not None:
                    self._broker.resolve(member.loop, future, None)
                self.rebalance()
                self._complete_if_all()

        self._scheduler.at(SESSION_TIMEOUT_US, look)

    def woke(self, member: Member) -> None:
        """A stopped member goes on: its next heartbeat tells it whether it is still one."""
        if self.members.get(member.name) is not member:
            self._tell(member)

    def _tell(self, member: Member, generation: int | None = None) -> None:
        """A heartbeat's answer will say that it must join again; mostly soon, sometimes the group cannot be reached for a while."""

        def told() -> None:
            if member.loop.life is not Life.DEAD and (generation is None or member.generation < generation):
                member.rejoin.set()

        random = self._scheduler.random.random
        self._scheduler.at(self._broker.delay() + int(random() * (300_000 if random() < 0.9 else 3_000_000)), told)

    def _complete_if_all(self) -> None:
        if self._waiting and all(member.joining is not None for member in self.members.values()):
            self._complete(self._generation)

    def _complete(self, generation: int) -> None:
        if not self._waiting or generation != self._generation:
            return
        self._waiting = False
        for name in [name for name, member in self.members.items() if member.joining is None]:
            del self.members[name]
        members = [self.members[name] for name in sorted(self.members)]
        if not members:
            return
        self._share(members)
        for member in members:
            future, member.joining = member.joining, None
            assert future is not None
            answer = list(member.assigned)
            self._scheduler.at(self._broker.delay(), partial(self._broker.resolve, member.loop, future, answer))

    def _share(self, members: list[Member]) -> None:
        chance = self._scheduler.random.random
        shift = int(chance() * len(members))
        for member in members:
            member.assigned = []
        for partition in range(self._partitions):
            members[(partition + shift) % len(members)].assigned.append(partition)
            if self.doubles and chance() < self.doubles:
                other = members[int(chance() * len(members))]
                if partition not in other.assigned:
                    other.assigned.append(partition)


def _older(one: Member, other: Member) -> bool:
    return one.loop.number < other.loop.number
