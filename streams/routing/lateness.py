"""Which routes are behind: told once when it has lasted a while, and once when it is over, for all source partitions together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: A record that waits for its turn for so long makes its route late, and a route that has been late for so long is told, milliseconds.
LATE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How a route does on one source partition."""

    route: str
    reads_log: bool  #: it has no room for what is live, and reads the log itself
    waited_ms: float  #: for how long the record could have been attempted whose turn is next; 0: there is none

    @property
    def late(self) -> bool:
        """Whether more comes than it can do."""
        return self.reads_log or self.waited_ms >= LATE_MS


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be told of a route."""

    route: str
    seconds: float | None  #: how far it is behind; None: it is so no more


class Lateness:
    """Of the routes of a worker."""

    def __init__(self) -> None:
        self._since_ms: dict[str, float] = {}
        self._told: set[str] = set()

    def look(self, now_ms: float, standings: Iterable[Standing]) -> list[Told]:
        """What has changed by now (any clock that goes on evenly). Of a route that is not here any more nothing is told."""
        late: dict[str, float] = {}
        here: set[str] = set()
        for standing in standings:
            here.add(standing.route)
            if standing.late:
                late[standing.route] = max(late.get(standing.route, 0.0), standing.waited_ms)
        self._told &= here
        self._since_ms = {route: self._since_ms.get(route, now_ms) for route in late}
        found = [Told(route, None) for route in sorted(self._told - late.keys())]
        self._told &= late.keys()
        for route, waited_ms in sorted(late.items()):
            lasted_ms = now_ms - self._since_ms[route]
            if lasted_ms >= LATE_MS and route not in self._told:
                self._told.add(route)
                found.append(Told(route, round(max(waited_ms, lasted_ms) / 1000, 1)))
        return found
