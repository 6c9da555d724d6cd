"""How long this worker may write as the owner of its partitions: between two rebalances, and only while the group knows of it.

A worker that was stopped wakes up believing that nothing has happened. The group, which has not heard of it, has given its partitions to
another, who has looked at what the destinations have and gone on from there; what the sleeper sends now would be there twice. So
nothing is sent but under a *lease*: the broker cannot have forgotten a member before the session's timeout has gone by since it sent its
last answered heartbeat. The lease is looked at once more where the bytes leave the process (`Publisher`, `guard`). Whoever was forgotten
and is given back what it had lets go of it first: meanwhile it was another's, who is further.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic

from aiokafka.errors import KafkaError

#: Share of the session's timeout that the lease lasts: the rest is for the way to the broker.
_SHARE = 0.9
#: How long the group may have to wait for what is under way when it shares the partitions anew, seconds.
END_S = 10.0
_LOOK_S = 0.05


class Lapsed(KafkaError):  # type: ignore[misc]  # aiokafka is untyped
    """The partitions may be somebody else's by now: nothing was sent."""

    message = "the lease of the partitions has ended"


class Tenure:
    """See the module. `heard` may be called by another thread."""

    def __init__(self, session_s: float, clock: Callable[[], float] = monotonic) -> None:
        self.generation = 0  #: of the assignment, as counted here
        self.broken = False  #: what was held may have been another's since; until everything is let go (`renew`)
        self._group_generation = -1  # of the assignment, as counted by the group
        self._lease_s = session_s * _SHARE
        self._clock = clock
        self._until_s = float("-inf")
        self._settled = self._serving = False
        self._under_way = 0
        self._idle = asyncio.Event()

    def begin(self, group_generation: int) -> None:
        """Partitions were assigned: nothing is begun before what is no longer ours was let go (`serve`).

        The group counts its assignments. Between two that follow each other nobody else had what both give to us.
        """
        self.generation += 1
        self.broken |= group_generation not in (self._group_generation, self._group_generation + 1)
        self._group_generation = group_generation
        self._settled = self._serving = False

    def renew(self) -> None:
        """Nothing is held any more of what was held before."""
        self.broken = False

    def serve(self, generation: int) -> bool:
        """Only what this assignment gives is held now. False: it is over already, or another's records may be among it."""
        if generation != self.generation or self.broken:
            return False
        self._settled = self._serving = True
        return True

    async def end(self, wait_s: float = END_S) -> None:
        """The group shares the partitions anew: nothing more is begun. Returns when what is under way has ended, or after a while."""
        self._serving = False
        self._idle.clear()
        if self._under_way:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._idle.wait()
        self.generation += 1  # what is under way yet fails

    def heard(self, sent_s: float) -> None:
        """What was sent to the group then (by the clock) was answered: this is a member."""
        self._until_s = max(self._until_s, sent_s + self._lease_s)

    @property
    def leased(self) -> bool:
        """Whether what is held is what the group has given to us last, and cannot have given to others since."""
        return self._settled and self._clock() < self._until_s

    @property
    def holds(self) -> bool:
        """Whether something may be begun."""
        return self._serving and self.leased

    def check(self, generation: int) -> None:
        """To be asked right before bytes leave. Raises `Lapsed`."""
        if generation != self.generation or not self.leased:
            raise Lapsed

    @asynccontextmanager
    async def act(self) -> AsyncIterator[int]:
        """Something that only the owner does, begun as soon as that is certain; the generation in which it is."""
        while not self.holds:  # noqa: ASYNC110  time ends it, and another thread begins it
            await asyncio.sleep(_LOOK_S)
        self._under_way += 1
        try:
            yield self.generation
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
