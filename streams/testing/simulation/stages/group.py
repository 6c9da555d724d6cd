"""The consumer group of the workers: partitions of several topics, members that read different ones, committed offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.group import Member, SimulatedGroup
from streams.testing.simulation.loop import Life, ProcessLoop

Place = tuple[str, int]


@dataclass(slots=True, eq=False)
class StageMember(Member):
    """A member that reads some topics; `gone`: its process lives on without it."""

    topics: frozenset[str] = field(default_factory=frozenset)
    gone: bool = False

    @property
    def beating(self) -> bool:
        """See `Member.beating`."""
        return not self.gone and self.loop.life is Life.RUNNING

    def silent_since(self, since_us: int) -> bool:
        """See `Member.silent_since`."""
        return self.gone or Member.silent_since(self, since_us)


class StageGroup(SimulatedGroup):
    """The coordinator. `places`: all partitions, by their number in the group."""

    def __init__(self, broker: SimulatedBroker, places: Sequence[Place], *, doubles: float) -> None:
        super().__init__(broker, len(places), doubles=doubles)
        self.places = tuple(places)
        self.offsets: dict[Place, int] = {}

    async def committed(self, loop: ProcessLoop, places: Iterable[Place]) -> dict[Place, int]:
        """Committed offsets, the first where there is none."""
        wanted = list(places)
        return await self._broker.ask(loop, lambda: {place: self.offsets.get(place, 0) for place in wanted})

    async def commit(self, member: StageMember, offsets: Mapping[Place, int]) -> None:
        """Commits; the commit of somebody who is no member, or to whom a partition is not given, counts for nothing."""

        def arrived() -> None:
            if self.members.get(member.name) is member and not self.rebalancing:
                given = {self.places[index] for index in member.assigned}
                self.offsets.update({place: offset for place, offset in offsets.items() if place in given})

        await self._broker.ask(member.loop, arrived)

    def _share(self, members: list[Member]) -> None:
        chance = self._scheduler.random.random
        shift = int(chance() * len(members))
        for member in members:
            member.assigned = []
        for index, (topic, _) in enumerate(self.places):
            readers = [member for member in members if isinstance(member, StageMember) and topic in member.topics]
            if not readers:
                continue
            readers[(index + shift) % len(readers)].assigned.append(index)
            if self.doubles and chance() < self.doubles:
                other = readers[int(chance() * len(readers))]
                if index not in other.assigned:
                    other.assigned.append(index)
